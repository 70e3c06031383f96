"""Densities in the plane whose truth is known: every one has exact ``log_prob``, ``score`` and ``sample``.

``ring8``, ``grid25``, ``moons`` and ``spirals`` are mixtures of Gaussians (moons and spirals: many small ones along the
curve); ``checkerboard`` is uniform on eight squares. All are scaled to a few units across.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.data.dataset import Dataset
from course_lib.maths.mixture import GaussianMixture


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.1) -> GaussianMixture:
    """Equal Gaussians on a circle: the classic test for mode collapse (Metz et al. 2017, unrolled GAN)."""
    angle = torch.arange(modes) * (2 * math.pi / modes)
    return GaussianMixture.isotropic(radius * torch.stack([angle.cos(), angle.sin()], -1), std)


def grid(side: int = 5, spacing: float = 1.0, std: float = 0.05) -> GaussianMixture:
    """side² equal Gaussians on a square grid."""
    axis = (torch.arange(side) - (side - 1) / 2) * spacing
    return GaussianMixture.isotropic(torch.cartesian_prod(axis, axis), std)


def moons(per_moon: int = 64, std: float = 0.1) -> GaussianMixture:
    """Two interleaved half circles."""
    angle = (torch.arange(per_moon) + 0.5) * (math.pi / per_moon)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], -1)
    lower = torch.stack([0.5 - angle.cos(), 0.25 - angle.sin()], -1)
    return GaussianMixture.isotropic(1.5 * torch.cat([upper, lower]), std)


def spirals(per_arm: int = 96, turns: float = 1.25, std: float = 0.06) -> GaussianMixture:
    """Two arms of an Archimedean spiral, half a turn apart."""
    s = ((torch.arange(per_arm) + 0.5) / per_arm).sqrt()  # equal weights, so equal spacing along the arm
    angle = 2 * math.pi * turns * s
    arm = 2.2 * s.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)
    return GaussianMixture.isotropic(torch.cat([arm, -arm]), std)


class Checkerboard:
    """Uniform on the dark squares of a 4 × 4 board over [−2, 2]²."""

    modes = 8

    def log_prob(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        """log 1/8 on a dark square, −∞ elsewhere (nats)."""
        column, row = x.floor().unbind(-1)
        dark = ((column + row) % 2 == 0) & (x.abs() < 2).all(-1)
        return torch.where(dark, -math.log(8), -math.inf).to(x.dtype)

    def score(self, x: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
        """Zero on the squares; undefined (NaN) where the density is zero."""
        return torch.where(self.log_prob(x).isfinite().unsqueeze(-1), 0.0, torch.nan).expand_as(x)

    def sample_labelled(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 2"], Int[Tensor, " n"]]:
        square = torch.randint(8, (n,), generator=generator)
        row = square // 2
        corner = torch.stack([2 * (square % 2) + row % 2, row], -1) - 2
        return corner + torch.rand(n, 2, generator=generator), square

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        return self.sample_labelled(n, generator)[0]


DENSITIES: dict[str, Callable[[], GaussianMixture | Checkerboard]] = {
    "ring8": ring,
    "grid25": grid,
    "moons": moons,
    "spirals": spirals,
    "checkerboard": Checkerboard,
}


def density(name: str) -> GaussianMixture | Checkerboard:
    """The density behind ``load(name)``.

    Raises:
        ValueError: unknown name.
    """
    if name not in DENSITIES:
        raise ValueError(f"unknown toy density {name!r}; there are {', '.join(DENSITIES)}")
    return DENSITIES[name]()


def loader(name: str) -> Callable[[str, int], Dataset]:
    """How the door loads it: a fixed sample of ``size`` points per split, labelled by mode, arm or square."""

    def load_points(split: str, size: int) -> Dataset:
        seed = ("train", "val", "test").index(split)
        x, labels = density(name).sample_labelled(size, torch.Generator().manual_seed(seed))
        if name in ("moons", "spirals"):  # the many small components stand for two arms
            labels = labels // ((int(labels.max()) + 2) // 2)
        classes = tuple(str(i) for i in range(int(labels.max()) + 1))
        return Dataset(name, split, x, labels, classes, credit="synthetic")

    return load_points
