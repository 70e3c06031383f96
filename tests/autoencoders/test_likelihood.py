import pytest
import torch
from torch import distributions as D

from course_lib.autoencoders.likelihood import Bernoulli, Gaussian
from course_lib.data import binarize
from tests.oracles import assert_estimates

SHAPE = (4, 2, 3, 3)


def test_bernoulli_is_that_of_torch():
    logits = 3 * torch.randn(SHAPE, dtype=torch.float64)
    x = torch.randint(2, SHAPE).double() * 2 - 1
    want = D.Bernoulli(logits=logits).log_prob((x + 1) / 2).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(logits, x), want)


@pytest.mark.parametrize("logit", [-200.0, -40.0, 0.0, 40.0, 200.0])
@pytest.mark.parametrize("pixel", [-1.0, 1.0])
def test_bernoulli_survives_extreme_logits(logit, pixel):
    """log σ(a) formed as log(sigmoid(a)) is −∞ from a = −104 on, and its gradient NaN."""
    out = torch.full((1, 1, 1, 1), logit, requires_grad=True)
    x = torch.full((1, 1, 1, 1), pixel)
    value = Bernoulli().log_prob(out, x)
    exact = -torch.log1p(torch.exp(torch.tensor(-logit * pixel, dtype=torch.float64)))
    assert value.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), out)
    assert gradient.item() == pytest.approx(pixel / (1 + torch.tensor(logit * pixel).double().exp().item()), abs=1e-12)


def test_bernoulli_of_a_grey_pixel_is_the_expected_log_probability():
    logits = torch.randn(1, 1, 2, 2, dtype=torch.float64)
    grey = torch.rand(1, 1, 2, 2, dtype=torch.float64) * 2 - 1
    white, black = (Bernoulli().log_prob(logits[..., i : i + 1, j : j + 1], s * torch.ones(1, 1, 1, 1).double())
                    for i, j, s in ((0, 0, 1), (0, 0, -1)))  # fmt: skip
    p = (grey[0, 0, 0, 0] + 1) / 2
    got = Bernoulli().log_prob(logits[..., :1, :1], grey[..., :1, :1])
    torch.testing.assert_close(got, p * white + (1 - p) * black)


def test_gaussian_is_that_of_torch():
    out, x = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    for sigma in (0.1, 0.5, 2.0):
        want = D.Normal(out, sigma).log_prob(x).sum((1, 2, 3))
        torch.testing.assert_close(Gaussian(sigma).log_prob(out, x), want)


def test_one_picture_against_many_outputs():
    out, x = torch.randn(5, 2, 1, 3, 3), torch.randint(2, (1, 2, 1, 3, 3)).float() * 2 - 1
    for likelihood in (Bernoulli(), Gaussian(0.3)):
        got = likelihood.log_prob(out, x)
        assert got.shape == (5, 2)
        torch.testing.assert_close(got[3], likelihood.log_prob(out[3], x[0]))


def test_mean_is_the_mean_of_samples():
    logits = torch.randn(2, 1, 2, 2)
    draws = Bernoulli().sample(logits.expand(20_000, -1, 1, 2, 2)[:, 0], torch.Generator().manual_seed(0))
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert_estimates(draws, Bernoulli().mean(logits[:1])[0])
    draws = Gaussian(0.4).sample(0.1 * logits[:1].expand(20_000, 1, 2, 2))
    assert_estimates(draws, 0.1 * logits[0])
    assert_estimates((draws - 0.1 * logits[0]).square(), 0.16)
    assert Gaussian().mean(10 * logits).abs().max() <= 1 and Bernoulli().mean(100 * logits).abs().max() <= 1


def test_binarize_draws_white_with_the_grey_value_s_probability():
    grey = torch.tensor([-1.0, -0.6, 0.0, 0.3, 0.9, 1.0])
    draws = torch.stack([binarize(grey) for _ in range(20_000)])
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert_estimates(draws, grey, slack=1e-12)  # black stays black and white stays white: no standard error there
    a, b = (binarize(grey.expand(50, 6), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, binarize(grey.expand(50, 6)))
