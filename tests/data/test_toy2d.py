import math

import pytest
import torch

from course_lib.data import load, toy2d
from tests.oracles import assert_estimates, integral, on_points, plane

every_density = pytest.mark.parametrize("name", toy2d.DENSITIES)


@every_density
def test_samples_follow_log_prob(name):
    """χ² of a 2-D histogram against the density's integral over each bin."""
    n, extent, bins, fine = 40_000, 3.25, 26, 12
    density = toy2d.density(name)
    points, area = plane(extent, bins * fine)
    exact = density.double() if hasattr(density, "double") else density
    mass = on_points(exact.log_prob, points).exp().view(bins, fine, bins, fine).sum((1, 3)) * area
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)
    x = density.sample(n, torch.Generator().manual_seed(3))
    cell = ((x + extent) / (2 * extent / bins)).floor().long().clamp(0, bins - 1)
    counts = (cell[:, 0] * bins + cell[:, 1]).bincount(minlength=bins**2).view(bins, bins)
    often = n * mass > 5
    chi2 = ((counts - n * mass).square() / (n * mass))[often].sum()
    free = often.sum() - 1
    assert chi2 < free + 5 * math.sqrt(2 * free)
    assert counts[~often].sum() <= n * mass[~often].sum() + 5 * math.sqrt(n * mass[~often].sum() + 1)


def test_checkerboard():
    board = toy2d.density("checkerboard")
    assert integral(board.log_prob, 2.5, cells=400) == pytest.approx(1, abs=1e-7)  # −log 8 in float32
    x, square = board.sample_labelled(20_000)
    assert torch.isfinite(board.log_prob(x)).all()
    one_hot = torch.nn.functional.one_hot(square, 8).double()
    assert_estimates(one_hot, 1 / 8)
    for k in range(8):  # a label is one square of side 1
        low, high = x[square == k].aminmax(dim=0)
        assert torch.equal(low.floor(), (high - 1e-6).floor())
    assert (board.score(x) == 0).all()
    assert (
        board.score(torch.tensor([[0.5, -0.5]])).isnan().all()
        and board.log_prob(torch.tensor([[5.0, 5.0]])) == -math.inf
    )


@every_density
def test_labels_are_modes_arms_or_squares(name):
    data = load(name)
    modes = {"ring8": 8, "grid25": 25, "moons": 2, "spirals": 2, "checkerboard": 8}[name]
    assert len(data.classes) == modes == len(data.labels.unique())
    assert_estimates(torch.nn.functional.one_hot(data.labels, modes).double(), 1 / modes)
    assert len(load(name, "val", 1000)) == 1000
    assert not torch.equal(load(name, "val").x, data.x)


def test_arms_are_two_curves():
    moons = load("moons")
    upper, lower = (moons.x[moons.labels == k] for k in (0, 1))
    # each point lies within noise of its own half circle of radius 1.5
    for arm, centre in ((upper, (-0.75, -0.375)), (lower, (0.75, 0.375))):
        radius = (arm - torch.tensor(centre)).norm(dim=1)
        assert (radius - 1.5).abs().max() < 0.6
        assert radius.std() < 0.15
    # an arm of the spiral is its half of the components; the other arm is its mirror image through the origin
    spirals = load("spirals")
    half = toy2d.density("spirals").means[:96].mean(0)
    assert_estimates(spirals.x[spirals.labels == 0], half)
    assert_estimates(spirals.x[spirals.labels == 1], -half)


def test_modes_lie_where_the_name_says():
    ring = toy2d.density("ring8").means
    torch.testing.assert_close(ring.norm(dim=1), torch.full((8,), 2.0))
    grid = toy2d.density("grid25").means
    assert sorted(set(grid.flatten().tolist())) == [-2, -1, 0, 1, 2] and len(grid.unique(dim=0)) == 25
    with pytest.raises(ValueError, match="unknown toy density 'square'; there are ring8"):
        toy2d.density("square")
