import inspect
import math

import pytest
import torch

from course_lib.data.toy2d import density, grid
from course_lib.maths.mixture import GaussianMixture
from course_lib.metrics.modes import mode_coverage


@pytest.mark.parametrize(("name", "modes"), [("ring8", 8), ("grid25", 25)])
def test_the_truth_covers_all_and_its_quality_is_the_chi_squared_tail(name, modes):
    n = 20_000
    truth = density(name)
    got = mode_coverage(truth.sample(n, torch.Generator().manual_seed(0)), truth)
    want = 1 - math.exp(-9 / 2)  # P(χ²₂ ≤ 9)
    assert got.covered == modes
    assert got.high_quality == pytest.approx(want, abs=5 * math.sqrt(want * (1 - want) / n))
    assert int(got.counts.sum()) == round(got.high_quality * n)
    assert 0 <= got.kl < 5 * modes / n  # 2n·KL is χ² with modes − 1 degrees of freedom


def test_collapse_and_blur_by_construction():
    truth = grid()
    on_five = truth.means[torch.arange(1000) % 5]
    got = mode_coverage(on_five, truth)
    assert got.covered == 5 and got.high_quality == 1 and got.kl == pytest.approx(math.log(25 / 5), rel=1e-6)
    between = truth.means[:4] + 0.5
    got = mode_coverage(between, truth)
    assert got.covered == 0 and got.high_quality == 0 and math.isnan(got.kl)


def test_three_standard_deviations_are_the_border():
    truth = grid(std=0.05)
    offsets = torch.tensor([[0.149, 0.0], [0.0, -0.149], [0.151, 0.0], [0.11, 0.11]])  # the last is 0.156 away
    got = mode_coverage(truth.means[7] + offsets, truth)
    assert got.high_quality == 0.5 and got.covered == 1 and got.counts[7] == 2
    assert mode_coverage(truth.means[7] + offsets, truth, radius=3.2).high_quality == 1


def test_directions_count_in_their_own_standard_deviations():
    wide = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.diag(torch.tensor([4.0, 0.25])).unsqueeze(0))
    samples = torch.tensor([[5.9, 0.0], [6.1, 0.0], [0.0, 1.4], [0.0, 1.6]])
    assert mode_coverage(samples, wide).high_quality == 0.5


def test_one_lucky_sample_covers_a_mode_unless_more_are_asked_for():
    truth = density("ring8")
    samples = torch.cat([truth.means[:1].expand(100, 2), truth.means[1:4], truth.means[3:4]])
    assert [mode_coverage(samples, truth, at_least=n).covered for n in (1, 2, 3, 100, 101)] == [4, 2, 1, 1, 0]


def test_mistakes():
    truth = density("ring8")
    with pytest.raises(ValueError, match="samples have 3 dimensions and the mixture 2"):
        mode_coverage(torch.zeros(5, 3), truth)
    with pytest.raises(ValueError, match="at least 1 samples"):
        mode_coverage(torch.zeros(0, 2), truth)
    with pytest.raises(ValueError, match="NaN"):
        mode_coverage(torch.full((5, 2), torch.nan), truth)
    for options in ({"radius": 0.0}, {"at_least": 0}):
        with pytest.raises(ValueError, match="radius must be positive and at_least ≥ 1"):
            inspect.unwrap(mode_coverage)(torch.zeros(5, 2), truth, **options)
