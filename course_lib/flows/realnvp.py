r"""Real NVP: affine coupling.

.. math:: y_a = x_a, \qquad y_b = x_b ⊙ e^{s(x_a)} + t(x_a), \qquad \log\det = \sum_j s_j(x_a)

The Jacobian is triangular, so its determinant is the product of the diagonal, and the inverse needs no inverse of s
or t. A mask says which half passes through: checkerboard or channels.

Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", eqs. (4)–(9).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.flows.flow import Chain, Flow, Logit, MultiScale, Squeeze
from course_lib.flows.glow import ActNorm
from course_lib.nn.mlp import mlp


class AffineCoupling(nn.Module):
    """Eq. (9): masked coupling.

    Args:
        mask: 1 where a number passes through and is looked at, 0 where it is changed; broadcasts over the batch.
        net: x to s and t, concatenated along axis 1 (zero at the start, so that the layer begins as the identity).
        bound: |s| < bound, through a tanh: no single layer can blow numbers up.
    """

    def __init__(self, mask: Float[Tensor, "*s"], net: nn.Module, bound: float = 2.0) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.net, self.bound = net, bound

    def _scale_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.net(kept).chunk(2, 1)
        free = 1 - self.mask
        return (s / self.bound).tanh() * (self.bound * free), t * free

    def forward(self, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        s, t = self._scale_shift(x * self.mask)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        s, t = self._scale_shift(y * self.mask)  # the mask's half is the same in x and y
        return (y - t) * (-s).exp(), -s.flatten(1).sum(1)


def checkerboard(height: int, width: int, odd: bool) -> Float[Tensor, "1 h w"]:
    """1 where row + column is even (odd: where it is odd)."""
    parity = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    return (parity == int(odd)).float().unsqueeze(0)


def channel_mask(channels: int, second: bool) -> Float[Tensor, "c 1 1"]:
    """1 on the first half of the channels (second: on the second half)."""
    half = torch.arange(channels) < channels // 2
    return (half != second).float()[:, None, None]


def conv_net(channels: int, width: int) -> nn.Sequential:
    """3×3, 1×1, 3×3 convolutions from c to 2c channels, zero at the start."""
    last = nn.Conv2d(width, 2 * channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last
    )


def realnvp_2d(layers: int = 8, hidden: int = 64, activation: Callable[[], nn.Module] = nn.SiLU) -> Flow:
    """A flow in the plane: couplings that change x₁ and x₂ in turn."""
    chain: list[nn.Module] = []
    for i in range(layers):
        net = mlp([2, hidden, hidden, 4], activation)
        nn.init.zeros_(net[-1].weight)
        nn.init.zeros_(net[-1].bias)
        chain += [ActNorm(2), AffineCoupling(torch.tensor([1.0, 0.0]).roll(i), net)]
    return Flow(Chain(chain), (2,))


def realnvp(shape: tuple[int, int, int], levels: int = 2, width: int = 64, alpha: float = 0.05) -> Flow:
    """Pictures in (−1, 1): logit, then per level three checkerboard couplings, squeeze, three channel couplings, split.

    ``alpha`` is the logit's: small values leave the many pixels that are exactly 0 or 1 more room.

    Raises:
        ValueError: a side is not a multiple of 2^levels.
    """
    c, h, w = shape
    if h % 2**levels or w % 2**levels:
        raise ValueError(f"{levels} levels halve the sides {levels} times, but they are {h} × {w}")
    chains: list[nn.Module] = []
    shapes: list[tuple[int, int, int]] = []
    for level in range(levels):
        chain: list[nn.Module] = [Logit(alpha)] if level == 0 else []
        for i in range(3):
            chain += [AffineCoupling(checkerboard(h, w, bool(i % 2)), conv_net(c, width)), ActNorm(c)]
        chain.append(Squeeze())
        c, h, w = 4 * c, h // 2, w // 2
        for i in range(3):
            chain += [AffineCoupling(channel_mask(c, bool(i % 2)), conv_net(c, width)), ActNorm(c)]
        chains.append(Chain(chain))
        shapes.append((c, h, w))
        c //= 2
    return Flow(MultiScale(chains, shapes), shape)
