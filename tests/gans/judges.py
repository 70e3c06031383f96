"""What the tests of this folder measure and compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.core import FitOptions, fit, stream, warmup_cosine
from course_lib.core.ema import EMA
from course_lib.data import toy2d

RING = toy2d.ring()


def near_modes(x: Tensor) -> tuple[int, float]:
    """Modes of the ring with at least 1 % of the points within three standard deviations, and the share of points so
    near to any."""
    distance, mode = torch.cdist(x, RING.means).min(1)
    good = distance <= 0.3
    counts = mode[good].bincount(minlength=8)
    return int((counts >= 0.01 * len(x)).sum()), good.float().mean().item()


def trained_on_ring(model: nn.Module, players: list, steps: int, size: int = 128) -> tuple[int, float]:
    """Modes covered and high-quality share of the averaged generator after a short run on ring8."""
    ema = EMA(model, 0.99)
    fit(players, stream(RING.sample, size), steps, ema=ema, options=FitOptions(schedule=warmup_cosine(steps, 20)))
    with torch.no_grad():
        return near_modes(ema.module.sample(2000, generator=torch.Generator().manual_seed(0)))
