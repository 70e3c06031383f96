import inspect
import math

import numpy as np
import pytest
import torch
from scipy import optimize

from course_lib.metrics.preference import bradley_terry, count_wins

THETA = torch.tensor([1.0, 0.4, 0.0, -0.3, -1.1], dtype=torch.float64)


def votes(n, generator, theta=THETA):
    """n comparisons of every pair."""
    wins = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    for i in range(len(theta)):
        for j in range(i):
            p = (theta[i] - theta[j]).sigmoid()
            wins[i, j] = torch.binomial(torch.tensor(float(n), dtype=torch.float64), p, generator=generator)
            wins[j, i] = n - wins[i, j]
    return wins


def log_likelihood(theta, wins):
    return (wins * torch.nn.functional.logsigmoid(theta.unsqueeze(1) - theta)).sum()


def test_two_systems_have_their_log_odds_and_its_textbook_error():
    fit = bradley_terry(torch.tensor([[0, 30], [10, 0]]))
    gap, low, high = fit.difference(0, 1)
    assert gap == pytest.approx(math.log(3))
    stderr = math.sqrt(1 / 30 + 1 / 10)  # of a log odds
    assert (high - gap, gap - low) == pytest.approx((1.959964 * stderr,) * 2, rel=1e-6)
    assert fit.theta.sum().item() == pytest.approx(0, abs=1e-12)
    assert fit.stderr.tolist() == pytest.approx([stderr / 2] * 2)
    assert fit.probabilities()[0, 1].item() == pytest.approx(0.75)


def test_it_is_the_maximum_of_the_likelihood():
    wins = votes(40, torch.Generator().manual_seed(0))
    got = bradley_terry(wins).theta.requires_grad_()
    (slope,) = torch.autograd.grad(log_likelihood(got, wins), got)
    assert slope.abs().max() < 1e-6
    found = optimize.minimize(
        lambda t: -log_likelihood(torch.as_tensor(t), wins).item(), np.zeros(5), method="BFGS", options={"gtol": 1e-6}
    )
    np.testing.assert_allclose(got.detach().numpy(), found.x - found.x.mean(), atol=1e-5)


def test_the_covariance_inverts_the_likelihoods_curvature():
    wins = votes(40, torch.Generator().manual_seed(0))
    fit = bradley_terry(wins)
    information = -torch.autograd.functional.hessian(lambda t: log_likelihood(t, wins), fit.theta)
    project = torch.eye(5, dtype=torch.float64) - 1 / 5  # strengths with mean 0
    torch.testing.assert_close(information @ fit.covariance, project, atol=1e-7, rtol=0)
    torch.testing.assert_close(fit.covariance.sum(0), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(1)
    truth = THETA - THETA.mean()
    repeats, level = 400, 0.9
    inside, gaps = torch.zeros(repeats, 5), torch.zeros(repeats)
    for r in range(repeats):
        fit = bradley_terry(votes(60, generator))
        low, high = fit.interval(level)
        inside[r] = ((low <= truth) & (truth <= high)).float()
        _, low, high = fit.difference(1, 2, level)
        gaps[r] = low <= 0.4 <= high
    allowed = 5 * math.sqrt(level * (1 - level) / repeats)
    assert (inside.mean(0) - level).abs().max() < allowed and abs(gaps.mean() - level) < allowed


def test_strengths_come_back_and_errors_shrink_with_the_root_of_votes():
    few, many = (bradley_terry(votes(n, torch.Generator().manual_seed(2))) for n in (50, 5000))
    assert ((few.theta - THETA + THETA.mean()).abs() < 5 * few.stderr).all()
    assert ((many.theta - THETA + THETA.mean()).abs() < 5 * many.stderr).all()
    torch.testing.assert_close(few.stderr / many.stderr, torch.full((5,), 10.0, dtype=torch.float64), rtol=0.2, atol=0)


def test_not_every_pair_must_meet():
    """A chain a – b – c: strengths add up along it."""
    wins = torch.tensor([[0, 20, 0], [10, 0, 30], [0, 10, 0]])
    theta = bradley_terry(wins).theta
    torch.testing.assert_close((theta[0] - theta[1]).exp().item(), 2.0)
    torch.testing.assert_close((theta[1] - theta[2]).exp().item(), 3.0)


def test_a_tie_is_half_a_win_for_each():
    wins, ties = torch.tensor([[0, 20], [10, 0]]), torch.tensor([[0, 6], [6, 0]])
    assert bradley_terry(wins, ties).difference(0, 1)[0] == pytest.approx(math.log(23 / 13))
    with_halves = bradley_terry(wins + ties / 2)
    torch.testing.assert_close(bradley_terry(wins, ties).covariance, with_halves.covariance)
    # ties alone say that both are alike
    assert bradley_terry(torch.zeros(2, 2), ties).theta.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_wins_are_counted_from_votes():
    winners, losers = torch.tensor([0, 0, 2, 1, 0]), torch.tensor([1, 1, 0, 2, 2])
    assert count_wins(winners, losers, 3).tolist() == [[0, 2, 1], [0, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match="numbered 0 … 1, got 0 … 2"):
        count_wins(winners, losers, 2)
    with pytest.raises(ValueError, match="compared with itself"):
        count_wins(winners, winners, 3)


def test_strengths_that_the_votes_do_not_determine():
    apart = torch.zeros(4, 4)
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 5
    with pytest.raises(ValueError, match=r"never compared with each other: \[\[0, 1\], \[2, 3\]\]"):
        bradley_terry(apart)
    apart[0, 2] = 1  # a bridge that goes one way
    with pytest.raises(ValueError, match=r"systems \[0, 1\] never lost|systems \[2, 3\] never won"):
        bradley_terry(apart)
    apart[2, 0] = 1
    assert bradley_terry(apart).theta.isfinite().all()
    unlucky = torch.tensor([[0, 3, 4], [2, 0, 5], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"systems \[2\] never won|systems \[0, 1\] never lost"):
        bradley_terry(unlucky)


def test_mistakes():
    good = torch.tensor([[0, 3], [4, 0]])
    for wrong in (-good, good + torch.eye(2, dtype=torch.long)):
        with pytest.raises(ValueError, match="counts ≥ 0 with a zero diagonal"):
            bradley_terry(wrong)
    with pytest.raises(ValueError, match=r"matrix \(k, k\) for k ≥ 2"):
        bradley_terry(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"wins must be a matrix \(k, k\) for k ≥ 2 systems, got \(2, 3\)"):
        inspect.unwrap(bradley_terry)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="ties must be symmetric"):
        bradley_terry(good, torch.tensor([[0, 1], [2, 0]]))
    with pytest.raises(ValueError, match="wins has 1 of 4"):
        bradley_terry(torch.tensor([[0, torch.nan], [1, 0]]))
    with pytest.raises(ValueError, match="level is between 0 and 1, got 95"):
        bradley_terry(good).interval(95)
