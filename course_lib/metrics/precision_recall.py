r"""Quality and variety apart: are fakes where the data are, and are the data where fakes are?

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest neighbour in the set.

.. math::
    precision = \frac1m \sum_i 1[\exists j: ‖y_i - x_j‖ ≤ r_k(x_j)], \qquad
    recall = \frac1n \sum_j 1[\exists i: ‖x_j - y_i‖ ≤ r_k(y_i)]

(Kynkäänniemi et al. 2019; x real, y fake). A single outlier's huge ball makes both optimistic. Naeem et al. 2020 count
the balls instead, and use balls around real points only:

.. math::
    density = \frac1{km} \sum_{i, j} 1[‖y_i - x_j‖ ≤ r_k(x_j)], \qquad
    coverage = \frac1n \sum_j 1[\exists i: ‖x_j - y_i‖ ≤ r_k(x_j)]
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import feature_pair


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density is 1 on average for p = q and can exceed 1; coverage is in [0, 1]."""

    density: float
    coverage: float


def precision_recall(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], k: int = 3, chunk: int = 1024
) -> PrecisionRecall:
    """Improved precision and recall; the paper's k is 3.

    Args:
        real, fake: features; equal numbers of both, because the balls shrink as a set grows.
        k: neighbours.
        chunk: rows of the distance matrix held at a time.

    Raises:
        ValueError: k is not below both numbers of samples, widths differ, NaN or infinity.
    """
    real, fake = _prepare(real, fake, k)
    real_radii, fake_radii = _radii(real, k, chunk), _radii(fake, k, chunk)
    inside_real = []
    inside_fake = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, radii in zip(fake.split(chunk), fake_radii.split(chunk), strict=True):
        distances = torch.cdist(rows, real)  # (chunk, n)
        inside_real.append((distances <= real_radii).any(1))
        inside_fake |= (distances <= radii.unsqueeze(1)).any(0)
    return PrecisionRecall(torch.cat(inside_real).double().mean().item(), inside_fake.double().mean().item())


def density_coverage(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], k: int = 5, chunk: int = 1024
) -> DensityCoverage:
    """Density and coverage; the paper's k is 5. For p = q the expected coverage is about 1 − 2⁻ᵏ (n = m).

    Arguments and errors as for ``precision_recall``.
    """
    real, fake = _prepare(real, fake, k)
    radii = _radii(real, k, chunk)
    balls = 0
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in fake.split(chunk):
        inside = torch.cdist(rows, real) <= radii  # (chunk, n)
        balls += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(balls / (k * len(fake)), covered.double().mean().item())


def _prepare(real: Tensor, fake: Tensor, k: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    x, y = feature_pair(real, fake)
    if not 1 <= k < min(len(x), len(y)):
        raise ValueError(f"the {k}-th neighbour needs k ≥ 1 and more than k samples, got {len(x)} real, {len(y)} fake")
    centre = x.mean(0)  # distances are taken from dot products, which lose digits far from the origin
    return x - centre, y - centre


def _radii(x: Float[Tensor, "n d"], k: int, chunk: int) -> Float[Tensor, " n"]:
    """Distance to the k-th nearest other point; the nearest of all is the point itself."""
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(chunk)])
