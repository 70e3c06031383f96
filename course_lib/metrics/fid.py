r"""Fréchet Inception Distance (Heusel et al. 2017): the squared W₂ distance of Gaussians fitted to features.

.. math:: W_2^2 = ‖μ_1 - μ_2‖^2 + tr(Σ_1) + tr(Σ_2) - 2\, tr\big((Σ_1^{1/2} Σ_2 Σ_1^{1/2})^{1/2}\big)

(Dowson & Landau 1982). Σ₁Σ₂ is not symmetric, and its square root is what reference code spends its time on. Only the
trace is needed: the sum of the square roots of the eigenvalues. Σ₁Σ₂ with Σ₁ = AAᵀ has the eigenvalues of AᵀΣ₂A (and of
Σ₁^{1/2} Σ₂ Σ₁^{1/2}), which is symmetric. A is the Cholesky factor, or eigenvectors times square roots of eigenvalues
where Σ₁ is singular (fewer samples than features).

FID of n samples is too high by about C/n, where C depends on the generator, so values at different n cannot be
compared. ``fid_infinity`` fits the line in 1/n and reads it at 0 (Chong & Forsyth 2020).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import FewSamplesWarning, feature_matrix, require_finite
from course_lib.metrics.statistics import Moments

RELATIVE_TOLERANCE = 1e-6  # asymmetry and negative eigenvalues up to here are rounding


def frechet_distance(
    mu1: Float[Tensor, " d"], cov1: Float[Tensor, "d d"], mu2: Float[Tensor, " d"], cov2: Float[Tensor, "d d"]
) -> Float[Tensor, ""]:
    """W₂² between N(mu1, cov1) and N(mu2, cov2), in float64. The covariances may be singular.

    Raises:
        ValueError: shapes do not fit, values are not finite, or a covariance is not symmetric positive semidefinite.
    """
    d = len(mu1)
    for i, (mean, cov) in enumerate(((mu1, cov1), (mu2, cov2)), 1):
        if mean.shape != (d,) or cov.shape != (d, d):
            raise ValueError(f"need means ({d},) and covariances ({d}, {d}), got {mean.shape} and {cov.shape}")
        require_finite(f"mean {i}", mean)
        require_finite(f"covariance {i}", cov)
        if not cov.is_meta and (cov - cov.T).abs().max() > RELATIVE_TOLERANCE * cov.abs().max():
            raise ValueError(f"covariance {i} is not symmetric")
    return _distance(mu1.double(), cov1.double(), _factor(cov1.double()), mu2.double(), cov2.double())


def fid(real_features: Moments | Float[Tensor, "n d"], fake_features: Moments | Float[Tensor, "m d"]) -> float:
    """FID between two sets of features, or the ``Moments`` that ``statistics.of_batches`` made of them.

    Warns with ``FewSamplesWarning`` if a set has no more samples than features: its covariance is then singular, and
    the value is mostly bias.

    Raises:
        ValueError: widths differ, fewer than two samples, NaN or infinity.
    """
    real, fake = _moments("real features", real_features), _moments("fake features", fake_features)
    _warn_of_few("real", real.n, len(real.mean))
    _warn_of_few("fake", fake.n, len(fake.mean))
    return frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance).item()


class BiasCurve(NamedTuple):
    """FID against the number of fake samples, and the line FID ≈ infinity + slope/n through it."""

    sizes: list[int]
    values: list[float]
    slope: float
    infinity: float


def fid_infinity(
    real_features: Moments | Float[Tensor, "n d"],
    fake_features: Float[Tensor, "m d"],
    sizes: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> BiasCurve:
    """FID_∞: what FID would be with infinitely many fake samples (Chong & Forsyth 2020). The real set stays as it is.

    Args:
        real_features: features or moments.
        fake_features: all m of them; each size is a random subset.
        sizes: numbers of samples; default: 15 from m/10 to m, evenly spaced (the paper's 5,000 … 50,000).
        generator: of the subsets.

    Raises:
        ValueError: fewer than two distinct sizes, or a size below 2 or above m; and as ``fid``.

    Warns as ``fid`` does, once, if the smallest size is not above the number of features.
    """
    real = _moments("real features", real_features)
    fake = feature_matrix("fake features", fake_features, at_least=2)
    m = len(fake)
    sizes = list(sizes) if sizes is not None else torch.linspace(m / 10, m, 15).round().int().tolist()
    if len(set(sizes)) < 2 or min(sizes) < 2 or max(sizes) > m:
        raise ValueError(f"a line needs two distinct sizes between 2 and the {m} fake samples, got {sizes}")
    if fake.shape[1] != len(real.mean):
        raise ValueError(f"real samples have {len(real.mean)} features and fake samples {fake.shape[1]}")
    _warn_of_few("real", real.n, len(real.mean))
    _warn_of_few("fake", min(sizes), len(real.mean))
    covariance = real.covariance
    factor = _factor(covariance)  # the same for every size
    device = generator.device if generator is not None else fake.device
    values = []
    for size in sizes:
        chosen = torch.randperm(m, generator=generator, device=device)[:size].to(fake.device)
        part = Moments.of(fake[chosen])
        values.append(_distance(real.mean, covariance, factor, part.mean, part.covariance).item())
    inverse = torch.tensor([1 / size for size in sizes], dtype=torch.float64)
    design = torch.stack([torch.ones_like(inverse), inverse], 1)
    infinity, slope = torch.linalg.lstsq(design, torch.tensor(values, dtype=torch.float64)).solution.tolist()
    return BiasCurve(sizes, values, slope, infinity)


def _warn_of_few(name: str, n: int, dims: int) -> None:
    if n <= dims:
        warnings.warn(
            f"FID from {n} {name} samples with {dims} features: the covariance is singular and the value mostly bias; "
            "take more samples than features, and see fid_infinity",
            FewSamplesWarning,
            stacklevel=3,
        )


def _moments(name: str, features: Moments | Tensor) -> Moments:
    if isinstance(features, Moments):
        return features
    return Moments.of(feature_matrix(name, features, at_least=2))


def _factor(cov: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A with AAᵀ = cov."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    if cov.is_meta or not failed:
        return factor
    eigenvalues, vectors = torch.linalg.eigh(cov)
    return vectors * _roots(eigenvalues)


def _distance(
    mu1: Float[Tensor, " d"],
    cov1: Float[Tensor, "d d"],
    factor1: Float[Tensor, "d d"],
    mu2: Float[Tensor, " d"],
    cov2: Float[Tensor, "d d"],
) -> Float[Tensor, ""]:
    trace = _roots(torch.linalg.eigvalsh(factor1.T @ cov2 @ factor1)).sum()
    squared = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * trace
    return squared.clamp_min(0)  # equal Gaussians come out as 0 ± rounding


def _roots(eigenvalues: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    if not eigenvalues.is_meta and eigenvalues.min() < -RELATIVE_TOLERANCE * eigenvalues.abs().max():
        raise ValueError(f"not a covariance: it has the eigenvalue {eigenvalues.min().item():.3g}")
    return eigenvalues.clamp_min(0).sqrt()
