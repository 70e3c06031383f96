"""FID at the size of the papers, 2,048 features and 10,000 samples: the same value as two peers, faster than both.

Ratios within one run (``make benchmark``); see ``test_speed.py``. The reference code takes SciPy's general matrix
square root of Σ₁Σ₂, torchmetrics the eigenvalues of Σ₁Σ₂ as a general matrix; ours are a Cholesky
factor and the eigenvalues of a symmetric matrix. Means and covariances are the same work for all and are left out of
the first two ratios.
"""

import pytest
import torch
from scipy import linalg
from torchmetrics.image.fid import _compute_fid

from course_lib.metrics.fid import fid, frechet_distance
from course_lib.metrics.statistics import Moments
from tests.benchmarks.test_speed import _seconds, paired_ratio

FEATURES, SAMPLES = 2_048, 10_000


@pytest.fixture(scope="module")
def sets():
    """Features of two laws, with the spread of variances that networks have (a power law)."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, FEATURES + 1, dtype=torch.float64) ** -0.5
    mix = torch.eye(FEATURES) + 0.2 * torch.randn(FEATURES, FEATURES, generator=generator) / FEATURES**0.5
    real = torch.randn(SAMPLES, FEATURES, generator=generator) * scale.float()
    return real, (torch.randn(SAMPLES, FEATURES, generator=generator) * scale.float()) @ mix + 0.05


@pytest.fixture(scope="module")
def moments(sets):
    real, fake = (Moments.of(x) for x in sets)
    return real.mean, real.covariance, fake.mean, fake.covariance


def by_sqrtm(mu1, cov1, mu2, cov2):
    root = linalg.sqrtm((cov1 @ cov2).numpy())
    return ((mu1 - mu2).square().sum() + cov1.trace() + cov2.trace()).item() - 2 * root.trace().real


@pytest.mark.parametrize(("name", "peer"), [("scipy sqrtm", by_sqrtm), ("torchmetrics", _compute_fid)])
def test_frechet_distance_against(benchmark, moments, name, peer):
    values = {}

    def ours():
        values["ours"] = float(frechet_distance(*moments))

    def theirs():
        values["theirs"] = float(peer(*moments))

    ratio, _ = paired_ratio(theirs, ours, rounds=1)  # tens of seconds each, and in CPU seconds
    print(f"\nFréchet distance, {FEATURES:,} features: {name} / ours {ratio:.2f}", end="")
    print(f"; values {values['theirs']:.6f}, {values['ours']:.6f}")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours, rounds=1)
    assert values["ours"] == pytest.approx(values["theirs"], rel=1e-4)
    assert ratio >= 1


def test_fid_from_features(benchmark, sets):
    """With means and covariances of 10,000 samples included, against SciPy's square root alone."""
    real, fake = (Moments.of(x) for x in sets)
    arguments = real.mean, real.covariance, fake.mean, fake.covariance
    theirs, ours = _seconds(lambda: by_sqrtm(*arguments)), _seconds(lambda: fid(*sets))
    ratio = theirs / ours
    print(f"\nscipy sqrtm without statistics / our FID with them: {ratio:.2f}")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(lambda: fid(*sets), rounds=1)
    assert ratio >= 1
