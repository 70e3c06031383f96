"""Short tunes at 8 kHz: plucked strings (Karplus & Strong 1983) and vowel-like tones, made on the fly.

Each clip plays notes of a pentatonic scale, so that sound has structure at three scales: the wave, the note, the tune.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

RATE = 8_000  # samples a second
INSTRUMENTS = ("string", "vowel")
PENTATONIC = (0, 2, 4, 7, 9)  # semitones above the key note
FORMANTS = ((730.0, 1090.0), (270.0, 2290.0), (300.0, 870.0))  # Hz, of a, i, u (Peterson & Barney 1952)


def melodies(
    n: int, length: int = 4_000, notes: int = 4, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n length"], Int[Tensor, " n"]]:
    """n clips in [−1, 1] and their instruments (indices into ``INSTRUMENTS``).

    Args:
        n: clips.
        length: samples; 4,000 is half a second.
        notes: notes in a clip, equally long.
        generator: for notes, instruments and the noise that plucks the strings.
    """
    instrument = torch.randint(len(INSTRUMENTS), (n,), generator=generator)
    degree = torch.randint(2 * len(PENTATONIC), (n, notes), generator=generator)
    semitones = torch.tensor(PENTATONIC)[degree % len(PENTATONIC)] + 12 * (degree // len(PENTATONIC))
    pitch = 220.0 * 2 ** (semitones / 12)  # (n, notes) in Hz, upwards from A3
    note = -(-length // notes)
    clips = torch.stack(
        [
            torch.cat([(_string, _vowel)[kind](float(hz), note, generator) for hz in hertz])[:length]
            for kind, hertz in zip(instrument.tolist(), pitch, strict=True)
        ]
    )
    return 0.9 * clips / clips.abs().amax(1, keepdim=True), instrument


def _string(hertz: float, samples: int, generator: torch.Generator | None) -> Tensor:
    """Karplus–Strong: a burst of noise goes round a delay line and loses its high frequencies at each turn."""
    period = round(RATE / hertz)
    line = torch.rand(period, generator=generator) * 2 - 1
    turns = [line]
    while len(turns) * period < samples:
        line = 0.498 * (line + line.roll(1))
        turns.append(line)
    return torch.cat(turns)[:samples]


def _vowel(hertz: float, samples: int, generator: torch.Generator | None) -> Tensor:
    """Harmonics weighted by two formants, with a soft attack and release."""
    first, second = FORMANTS[int(torch.randint(len(FORMANTS), (1,), generator=generator))]
    t = torch.arange(samples) / RATE
    harmonics = torch.arange(1, int(RATE / 2 / hertz) + 1) * hertz
    weight = (
        torch.exp(-(((harmonics - first) / 150) ** 2)) + 0.5 * torch.exp(-(((harmonics - second) / 200) ** 2)) + 0.02
    )
    wave = (weight[:, None] * torch.sin(2 * math.pi * harmonics[:, None] * t)).sum(0)
    envelope = torch.sin(math.pi * (torch.arange(samples) + 0.5) / samples) ** 0.5
    return envelope * wave / wave.abs().max()
