"""Random numbers on both sides of the seal: the student's draws are believed only as far as they can be checked."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def believable(state: Tensor, claimed: Tensor, blocks: int = 4000) -> Tensor:
    """``claimed`` if drawing numbers leads from ``state`` to it, else a state of which the student knows nothing.

    The Mersenne Twister makes its numbers in blocks of 624 words: within ``blocks`` of them (2.5 million numbers), its
    words must be those that ``state`` leads to. A state made up by the student could make a test's inputs trivial.
    """
    if claimed.dtype == torch.uint8 and claimed.shape == state.shape:
        ours, theirs = _words(state), _words(claimed)
        generator = torch.Generator()
        generator.set_state(state)
        for _ in range(blocks):
            if torch.equal(ours, theirs):
                return claimed.clone() if _sane(claimed) else generator.get_state()
            generator.set_state(_next_block(generator))
            ours = _words(generator.get_state())
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:7], "big"))
    return generator.get_state()


# of torch's state for the CPU: seed, how many are left, whether seeded, next, 624 words; then a stored normal number
_LEFT, _NEXT, _WORDS = slice(8, 12), slice(16, 24), slice(24, 24 + 624 * 8)


def _words(state: Tensor) -> Tensor:
    return state[_WORDS]


def _next_block(generator: torch.Generator) -> Tensor:
    left = int(generator.get_state()[_LEFT].clone().view(torch.int32)[0])
    torch.empty(max(1, left), dtype=torch.int32).random_(generator=generator)
    return generator.get_state()


def _sane(state: Tensor) -> bool:
    left = int(state[_LEFT].clone().view(torch.int32)[0])
    position = int(state[_NEXT].clone().view(torch.int64)[0])
    return 1 <= left <= 624 and 0 <= position <= 624 and left + position in (624, 625)
