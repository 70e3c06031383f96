import functools
import inspect
import pickle

import numpy as np
import pytest
import torch

from course_lib.maths.gaussian import fit_gaussian
from course_lib.metrics import statistics
from course_lib.metrics.inputs import feature_matrix
from course_lib.metrics.statistics import Moments


def features(n=500, d=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + 3


def assert_same(a: Moments, b: Moments):
    assert a.n == b.n
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.covariance, b.covariance, rtol=1e-11, atol=1e-11)


def test_moments_are_numpys():
    x = features()
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean.numpy(), x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-10)
    mean, maximum_likelihood = fit_gaussian(x)
    torch.testing.assert_close(moments.scatter / moments.n, maximum_likelihood)
    torch.testing.assert_close(moments.mean, mean)


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_streaming_is_all_at_once(batch):
    x = features()
    assert_same(
        statistics.of_batches(lambda images: images.flatten(1), x.view(500, 1, 1, 7).split(batch)), Moments.of(x)
    )


def test_merging_in_any_order_is_all_at_once():
    x = features()
    parts = [
        pickle.loads(pickle.dumps(Moments.of(part))) for part in x.split([1, 120, 300, 79])
    ]  # as processes send them
    whole = Moments.of(x)
    assert_same(functools.reduce(Moments.__add__, parts), whole)
    assert_same((parts[3] + parts[1]) + (parts[0] + parts[2]), whole)


def test_a_mean_far_from_the_spread_costs_no_digits():
    """E[x²] − μ² has no correct digit left here; the merge keeps most."""
    x = features(d=3)
    far = statistics.of_batches(lambda y: y, (x + 1e8).split(50))
    torch.testing.assert_close(far.covariance, Moments.of(x).covariance, rtol=1e-5, atol=1e-5)


def test_float32_features_are_summed_in_float64():
    x = features().float()
    moments = statistics.of_batches(lambda y: y, x.split(100))
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    assert_same(moments, Moments.of(x.double()))


def test_no_graph_is_kept():
    weight = torch.ones(7, requires_grad=True)
    assert not statistics.of_batches(lambda y: y * weight, features().split(100)).mean.requires_grad


def test_moments_run_on_meta():
    moments = statistics.of_batches(lambda y: y.flatten(1), [torch.empty(9, 1, 2, 3, device="meta") for _ in range(2)])
    assert moments.n == 18 and moments.covariance.shape == (6, 6) and moments.covariance.is_meta


def test_mistakes():
    with pytest.raises(ValueError, match="no batches"):
        statistics.of_batches(lambda y: y, [])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        _ = Moments.of(features(1)).covariance
    with pytest.raises(ValueError, match="7 and 3 features"):
        Moments.of(features()) + Moments.of(features(d=3))
    with pytest.raises(ValueError, match="1 of 3500 values that are NaN"):
        x = features()
        x[3, 2] = torch.nan
        Moments.of(x)
    with pytest.raises(ValueError, match=r"shape \(samples, features\), got torch.float64 \(500, 7, 1\)"):
        inspect.unwrap(feature_matrix)("features", features().unsqueeze(-1))
    with pytest.raises(ValueError, match=r"got torch.int64"):
        feature_matrix("features", torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 1 samples, got 0"):
        Moments.of(features()[:0])
