"""The digit classifier: judge of samples, and features for metrics on digits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.core.player import Batch, BatchAt, minibatches
from course_lib.data.door import load as load_data
from course_lib.nn.classifier import Classifier
from course_lib.zoo.recipe import Loss, Measured, Recipe


def jittered(x: Tensor, degrees: float = 15.0, scale: float = 0.15, shear: float = 0.2, move: float = 0.1) -> Tensor:
    """Each picture under a random affine map of its own: rotated, scaled, sheared, moved (shares of half the side)."""
    u = torch.rand(6, len(x), device=x.device) * 2 - 1
    angle = u[0] * degrees * math.pi / 180
    cos, sin = angle.cos(), angle.sin()
    sx, sy, k = 1 + scale * u[1], 1 + scale * u[2], shear * u[3]
    rows = torch.stack([sx * cos, sy * (k * cos - sin), move * u[4], sx * sin, sy * (k * sin + cos), move * u[5]], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # beyond the border is paper (−1)


def _loss(model: nn.Module, steps: int) -> Loss:
    def loss(batch: Batch, step: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(jittered(x)), y)

    return loss


def _batches(seed: int, device: torch.device) -> BatchAt:
    digits = load_data("digits", device=device)
    return minibatches((digits.x, digits.labels), 64, seed)


def _accuracy(model: nn.Module) -> Measured:
    digits = load_data("digits", "test", device=next(model.parameters()).device)
    right = (model.probabilities(digits.x).argmax(1) == digits.labels).double()
    return Measured("accuracy on 500 test digits", float(right.mean()), float(right.std() / len(right) ** 0.5))


RECIPES = {
    "digit_classifier": Recipe(
        "classifier of digits; `features` (64 numbers) serve FID, KID, precision and recall on digits",
        Classifier,
        _loss,
        _batches,
        _accuracy,
        steps=2500,
        lr=2e-3,
        ema=0.998,
    )
}
