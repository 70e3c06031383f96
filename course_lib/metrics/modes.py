r"""Modes covered and high-quality fraction on mixtures whose modes are known.

A sample is **high quality** if it lies within three standard deviations of its nearest mode, and a mode is **covered**
if at least ``at_least`` high-quality samples (the papers': one) are nearest to it (Srivastava et al. 2017, VEEGAN; Lin
et al. 2018, PacGAN). Standard deviations are Mahalanobis distances √((x − μ)ᵀ Σ⁻¹ (x − μ)).

The truth itself does not reach 1: in the plane a Gaussian has 1 − e^{−9/2} = 98.9 % of its mass within three standard
deviations. And one lucky sample covers a mode, so draw equally many (2,500 in the papers), and look at the KL too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.maths.divergences import kl
from course_lib.maths.mixture import GaussianMixture
from course_lib.metrics.inputs import feature_matrix


class ModeCoverage(NamedTuple):
    """
    Attributes:
        covered: number of modes with enough high-quality samples.
        high_quality: their share of all samples, in [0, 1].
        kl: KL(shares of the high-quality samples ‖ weights of the modes) in nats; NaN if there are none. log(K/k) if
            k of K equal modes are hit evenly.
        counts: high-quality samples nearest to each mode.
    """

    covered: int
    high_quality: float
    kl: float
    counts: Int[Tensor, " k"]


def mode_coverage(
    samples: Float[Tensor, "n d"], mixture: GaussianMixture, radius: float = 3.0, at_least: int = 1
) -> ModeCoverage:
    """Count the modes of ``mixture`` that ``samples`` reach.

    Args:
        samples: what a model drew.
        mixture: the truth, as ``data.toy2d.density("ring8")``.
        radius: standard deviations within which a sample is of high quality.
        at_least: high-quality samples that cover a mode.

    Raises:
        ValueError: dimensions differ, no samples, NaN or infinity.
    """
    x = feature_matrix("samples", samples)
    if x.shape[1] != mixture.means.shape[1]:
        raise ValueError(f"samples have {x.shape[1]} dimensions and the mixture {mixture.means.shape[1]}")
    if radius <= 0 or at_least < 1:
        raise ValueError(f"radius must be positive and at_least ≥ 1, got {radius} and {at_least}")
    chol = torch.linalg.cholesky(mixture.covariances.double())
    centred = (x - mixture.means.double().unsqueeze(1)).mT  # (k, d, n)
    distances = torch.linalg.solve_triangular(chol, centred, upper=False).norm(dim=1)  # (k, n)
    nearest, mode = distances.min(0)
    good = nearest <= radius
    counts = mode[good].bincount(minlength=mixture.modes)
    shares = counts.double() / good.sum()  # 0/0 = NaN
    imbalance = kl(shares, mixture.weights.double()).item() if good.any() else float("nan")
    return ModeCoverage(int((counts >= at_least).sum()), good.double().mean().item(), imbalance, counts)
