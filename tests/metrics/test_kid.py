import inspect

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from course_lib.metrics.kid import KID, kid
from tests.oracles import assert_estimates


def features(n, d=8, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_it_is_torchmetrics_on_the_same_features():
    real, fake = features(200), features(200, seed=1, shift=0.3)  # torchmetrics takes equal numbers only
    assert kid(real, fake).value == pytest.approx(poly_mmd(real, fake).item(), rel=1e-9)
    assert kid(real.float(), fake.float()).value == pytest.approx(poly_mmd(real, fake).item(), rel=1e-4)


def test_it_is_the_double_sum_for_unequal_sizes():
    x, y = features(9, d=3), features(5, d=3, seed=1, shift=1.0)

    def k(a, b):
        return (a @ b / 3 + 1).item() ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kid(x, y).value == pytest.approx(xx + yy - 2 * xy, rel=1e-10)
    assert kid(y, x) == pytest.approx(kid(x, y), rel=1e-10)


def test_the_standard_error_leaves_each_sample_out():
    x, y = features(7, d=3), features(6, d=3, seed=1, shift=1.0)
    variance = 0.0
    for n, values in (
        (7, [kid(torch.cat([x[:i], x[i + 1 :]]), y).value for i in range(7)]),
        (6, [kid(x, torch.cat([y[:i], y[i + 1 :]])).value for i in range(6)]),
    ):
        variance += (n - 1) / n * np.square(values - np.mean(values)).sum()
    assert kid(x, y).stderr == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_chunks_change_nothing():
    real, fake = features(100), features(70, seed=1, shift=0.3)
    assert kid(real, fake, chunk=13) == pytest.approx(kid(real, fake), rel=1e-12)


def draws(shift, n=50, repeats=300):
    return [kid(features(n, seed=2 * i), features(n, seed=2 * i + 1, shift=shift)) for i in range(repeats)]


def spread(results: list[KID]) -> tuple[torch.Tensor, float]:
    values, errors = (torch.tensor(column, dtype=torch.float64) for column in zip(*results, strict=True))
    return values, errors.square().mean().sqrt().item() / values.std().item()


def test_equal_laws_give_zero_on_average():
    """Unbiased at 50 samples; with the diagonals it would be about 2 E k(x, x)/50."""
    values, ratio = spread(draws(shift=0.0))
    assert_estimates(values, 0.0)
    assert (values < 0).any()
    assert 1.2 < ratio < 1.7  # √2, as the docstring says: the variance has no leading term here


def test_a_shift_by_its_closed_form_and_with_an_honest_standard_error():
    """k has E k(x, y) = Σ binom(3, j) E(x·y/d)ʲ, so x ~ N(0, I) and y ~ N(s1, I) have a KID in closed form."""
    d, s = 8, 0.7

    def expected(mean_dot, norms):  # x·y = a·b + a·e + b·f + e·f for means a, b and noises e, f
        second = mean_dot**2 + norms + d
        third = mean_dot**3 + 3 * mean_dot * (norms + d) + 6 * mean_dot  # E[(a·e + b·f)² e·f] = 2 a·b, three times
        return 1 + 3 * mean_dot / d + 3 * second / d**2 + third / d**3

    norm = d * s**2
    want = expected(0, 0) + expected(norm, 2 * norm) - 2 * expected(0, norm)
    values, ratio = spread(draws(shift=s))
    assert_estimates(values, want)
    assert 0.85 < ratio < 1.2


def test_mistakes():
    with pytest.raises(ValueError, match="fake features needs at least 3 samples, got 2"):
        kid(features(9), features(2))
    with pytest.raises(ValueError, match="8 features and fake samples 5"):
        inspect.unwrap(kid)(features(9), features(9, d=5))
    with pytest.raises(ValueError, match="real features has 8 of 72 values"):
        x = features(9)
        x[0] = torch.inf
        kid(x, features(9))
