import inspect
import math

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from course_lib.data.toy2d import ring
from course_lib.metrics.precision_recall import density_coverage, precision_recall
from tests.oracles import assert_estimates


def points(n=300, d=4, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def radii(x, k):
    return torch.as_tensor(NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1])  # without the point itself


def distances(x, y):
    return (x.unsqueeze(1) - y).norm(dim=-1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_their_definitions(k):
    real, fake = points(), points(200, seed=1, shift=0.5)
    d, real_radii, fake_radii = distances(fake, real), radii(real, k), radii(fake, k)
    got = precision_recall(real, fake, k)
    assert got.precision == pytest.approx((d <= real_radii).any(1).double().mean().item())
    assert got.recall == pytest.approx((d <= fake_radii.unsqueeze(1)).any(0).double().mean().item())
    assert 0.3 < got.precision < 1 and 0.3 < got.recall < 1
    got = density_coverage(real, fake, k)
    assert got.density == pytest.approx((d <= real_radii).double().sum().item() / (k * 200))
    assert got.coverage == pytest.approx((d <= real_radii).any(0).double().mean().item())


def test_precision_and_recall_change_places_with_the_sets():
    real, fake = points(), points(200, seed=1, shift=0.5)
    assert precision_recall(fake, real) == tuple(reversed(precision_recall(real, fake)))


def test_chunks_and_a_far_origin_change_nothing():
    real, fake = points(), points(200, seed=1, shift=0.5)
    for metric in (precision_recall, density_coverage):
        assert metric(real, fake, chunk=37) == metric(real, fake)
        assert metric(real + 1e6, fake + 1e6) == pytest.approx(metric(real, fake), abs=0.01)


def test_a_collapsed_generator_is_precise_and_recalls_little():
    truth = ring()
    real = truth.sample(1000, torch.Generator().manual_seed(0))
    two_modes = truth.means[torch.arange(1000) % 2] + 0.1 * points(1000, d=2, seed=1).float()
    got = precision_recall(real, two_modes)
    assert got.precision > 0.9 and got.recall == pytest.approx(2 / 8, abs=0.05)
    assert density_coverage(real, two_modes).coverage == pytest.approx(2 / 8, abs=0.05)
    one_point = real[:1].expand(1000, 2)
    assert precision_recall(real, one_point).precision == 1 and precision_recall(real, one_point).recall < 0.01


def test_a_generator_that_is_too_broad_recalls_and_is_not_precise():
    truth = ring()
    real = truth.sample(1000, torch.Generator().manual_seed(0))
    broad = truth.noised(0.5).sample(1000, torch.Generator().manual_seed(1))
    got = precision_recall(real, broad)
    assert got.precision < 0.4 and got.recall > 0.9


def test_memorization_is_perfect_by_every_one_of_them():
    real = points()
    assert precision_recall(real, real) == (1, 1)
    assert density_coverage(real, real).coverage == 1


def test_equal_laws_have_the_expected_values():
    """E density = 1 and E coverage = 1 − (n−1)…(n−k) / (m+n−1)…(m+n−k), whatever the law (Naeem 2020, lemmas)."""
    n, m, k = 60, 40, 5
    got = torch.tensor(
        [density_coverage(points(n, 2, 2 * i), points(m, 2, 2 * i + 1), k) for i in range(400)], dtype=torch.float64
    )
    # a ball is missed if the k nearest of all other points, n − 1 real and m fake, are real
    missed = math.prod((n - j) / (m + n - j) for j in range(1, k + 1))
    assert_estimates(got, torch.tensor([1.0, 1 - missed], dtype=torch.float64))


def test_an_outlier_fools_recall_and_precision_but_not_density():
    real = torch.cat([points(), torch.full((1, 4), 40.0, dtype=torch.float64)])
    beside = points(200, seed=1) + 20  # between the data and the outlier, inside its ball
    assert precision_recall(real, beside).precision > 0.9
    assert density_coverage(real, beside, 3).density < 0.5


def test_mistakes():
    with pytest.raises(
        ValueError, match="the 3-th neighbour needs k ≥ 1 and more than k samples, got 300 real, 3 fake"
    ):
        precision_recall(points(), points(3))
    with pytest.raises(ValueError, match="the 0-th neighbour"):
        density_coverage(points(), points(), k=0)
    with pytest.raises(ValueError, match="4 features and fake samples 2"):
        inspect.unwrap(precision_recall)(points(), points(d=2))
    with pytest.raises(ValueError, match="fake features has"):
        precision_recall(points(), points() * torch.nan)
