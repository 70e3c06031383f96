"""DDPM: kernel, posterior, bound and sampler against exact laws."""

import math

import pytest
import torch
from torch import nn

from course_lib.core import fit, stream
from course_lib.core.player import Player
from course_lib.diffusion.ddpm import DDPM, discretized_normal, q_posterior, q_sample
from course_lib.diffusion.p2 import p2_weight, vlb_weight
from course_lib.diffusion.parametrization import EPSILON, VELOCITY, X0
from course_lib.maths.mixture import GaussianMixture
from course_lib.maths.schedules import cosine_schedule, linear_schedule
from course_lib.nn.mlp import mlp
from tests.diffusion.exact import exact_ddpm, lopsided
from tests.oracles import assert_estimates

SCHEDULE = linear_schedule(100)
PARAMETRIZATIONS = pytest.mark.parametrize("p", [EPSILON, X0, VELOCITY], ids=lambda p: p.name)


class Told(nn.Module):
    """An MLP on (x, t / T)."""

    def __init__(self, dims, hidden=64, steps=100):
        super().__init__()
        self.body, self.steps = mlp([dims + 1, hidden, hidden, dims]), steps

    def forward(self, x, t):
        return self.body(torch.cat([x, t.unsqueeze(1) / self.steps], 1))


def test_the_kernel_is_t_composed_steps():
    """q(x_t | x_0) in closed form against t steps of q(x_t | x_{t−1}): mean and variance, exactly."""
    mean, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for t in range(1, 101):
        mean = (1 - SCHEDULE.beta[t]).sqrt() * mean
        variance = (1 - SCHEDULE.beta[t]) * variance + SCHEDULE.beta[t]
        at = torch.tensor([t])
        one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        torch.testing.assert_close(q_sample(SCHEDULE, one, at, zero).squeeze(), mean)
        torch.testing.assert_close(q_sample(SCHEDULE, zero, at, one).squeeze().square(), variance)


@pytest.mark.parametrize("t", [2, 30, 100])
def test_posterior_is_bayes_on_a_grid(t):
    x0, xt = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)
    grid = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    normal = lambda x, mean, var: -0.5 * (x - mean) ** 2 / var  # noqa: E731
    beta, before = SCHEDULE.beta[t], SCHEDULE.alpha_bar[t - 1]
    log_p = normal(xt, (1 - beta).sqrt() * grid, beta) + normal(grid, before.sqrt() * x0, 1 - before)
    p = log_p.flatten().softmax(0)
    mean, variance = q_posterior(SCHEDULE, x0, xt, torch.tensor([t]))
    want = (p * grid).sum()
    torch.testing.assert_close(mean.squeeze(), want, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(variance.squeeze(), (p * (grid - want) ** 2).sum(), rtol=1e-5, atol=0)


def test_the_posterior_at_the_first_step_is_the_picture_itself():
    x0, xt = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    mean, variance = q_posterior(SCHEDULE, x0, xt, torch.tensor([1, 1]))
    torch.testing.assert_close(mean, x0)
    assert not variance.any()


@PARAMETRIZATIONS
def test_a_prediction_and_its_picture_and_noise_belong_together(p):
    x0, eps, a = torch.randn(3, 4).double(), torch.randn(3, 4).double(), torch.rand(3, 1).double()
    xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
    out = p.target(x0, eps, a)
    torch.testing.assert_close(p.x0(out, xt, a), x0)
    torch.testing.assert_close(p.eps(out, xt, a), eps)


@PARAMETRIZATIONS
def test_errors_of_different_targets_differ_by_the_stated_factor(p):
    """The same wrong x̂_0, once as an error of ε and once as one of the target."""
    x0, eps, wrong, a = (torch.rand(5, 2).double() for _ in range(4))
    xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
    wrong_eps = (xt - a.sqrt() * wrong) / (1 - a).sqrt()
    ratio = (p.target(wrong, wrong_eps, a) - p.target(x0, eps, a)).square() / (wrong_eps - eps).square()
    torch.testing.assert_close(ratio, p.error(a).expand_as(ratio))


def test_l_simple_by_hand():
    model = DDPM(Told(2), SCHEDULE, (2,), clip=False)
    x, generator = torch.randn(6, 2), torch.Generator().manual_seed(5)
    got = model.loss(x, generator)
    generator.manual_seed(5)
    t, eps = torch.randint(1, 101, (6,), generator=generator), torch.randn(6, 2, generator=generator)
    a = SCHEDULE.alpha_bar[t].float().unsqueeze(1)
    want = (eps - model.network(a.sqrt() * x + (1 - a).sqrt() * eps, t.float())).square().mean()
    torch.testing.assert_close(got, want)


def test_the_true_noise_minimizes_the_loss_and_the_posterior_kl_is_the_weighted_error():
    model, d = DDPM(Told(8).double(), SCHEDULE, (8,), clip=False), 8
    x0, t = torch.randn(4, d, dtype=torch.float64), torch.tensor([2, 30, 77, 100])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bound = model.bound_term(x0, t, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(bound, vlb_weight(SCHEDULE)[t] * d * model.errors(x0, t, eps))


def test_weights_multiply_the_error():
    weighted = DDPM(Told(2), SCHEDULE, (2,), weight=p2_weight(1.0, 0.0))
    plain = DDPM(weighted.network, SCHEDULE, (2,))
    seeded = lambda: torch.Generator().manual_seed(2)  # noqa: E731
    x = torch.randn(5, 2)
    torch.testing.assert_close(weighted.loss(x, seeded()), plain.loss(x, seeded()))  # γ = 0: the plain loss
    half = DDPM(weighted.network, SCHEDULE, (2,), weight=lambda s: torch.full((101,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(half.loss(x, seeded()), plain.loss(x, seeded()) / 2)
    snr = SCHEDULE.snr()[1:]
    torch.testing.assert_close(p2_weight(2.0, 0.5)(SCHEDULE)[1:], (2 + snr) ** -0.5)


def gap_of_the_bound(one, steps, variance, n=2000):
    """E[bound + log p(x)] in nats, with the exact network, for continuous data: L_0 is a density here."""
    model = exact_ddpm(one, linear_schedule(steps), variance=variance)
    x0 = one.sample(n, torch.Generator().manual_seed(0))
    generator, bound = torch.Generator().manual_seed(1), model.prior_term(x0)
    for t in range(2, steps + 1):
        bound = bound + model.bound_term(x0, torch.full((n,), t), generator=generator)
    first = torch.ones(n, dtype=torch.long)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    mean, beta = model.p_mean(q_sample(model.schedule, x0, first, eps), first), model.schedule.beta[1]
    bound = bound + ((x0 - mean) ** 2 / (2 * beta) + 0.5 * (2 * math.pi * beta).log()).sum(1)
    return (bound + one.log_prob(x0)).mean().item()


def test_the_bound_is_tight_for_a_gaussian_and_an_exact_network_with_the_right_variance():
    """Reverse steps of N(μ, I/4) have a variance near β; with β̃ a gap stays, however many steps there are."""
    one = GaussianMixture.isotropic(torch.tensor([[0.3, -0.5]], dtype=torch.float64), 0.5)
    assert abs(gap_of_the_bound(one, 50, lambda s: s.beta)) < 0.15  # ± 0.05
    assert gap_of_the_bound(one, 50, None) > 0.5 and gap_of_the_bound(one, 200, None) > 0.5


def test_prior_term_is_the_kl_and_tiny():
    model = DDPM(Told(3), linear_schedule(), (3,))
    x0 = torch.rand(4, 3) * 2 - 1
    q = torch.distributions.Normal(
        model.schedule.alpha_bar[-1].sqrt() * x0.double(), (1 - model.schedule.alpha_bar[-1]).sqrt()
    )
    want = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(model.prior_term(x0).double(), want, rtol=1e-4, atol=1e-9)
    assert want.max() < 1e-3


def test_discretized_normal_is_a_distribution_and_keeps_its_tails():
    greys = torch.linspace(-1, 1, 256, dtype=torch.float64).unsqueeze(1)
    for std in (0.003, 0.1, 3.0):
        log_p = discretized_normal(greys, torch.full_like(greys, 0.3), std, 256)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(
        discretized_normal(greys[:1], -greys[-1:], 0.01, 256), discretized_normal(-greys[:1], greys[-1:], 0.01, 256)
    )


def test_ancestral_sampling_with_the_exact_network_gives_the_data():
    mixture = lopsided()
    model = exact_ddpm(mixture, linear_schedule(300))
    x = model.sample(3000, generator=torch.Generator().manual_seed(0))
    shares = mixture.responsibilities(x)
    assert_estimates(shares, mixture.weights, slack=0.01)
    entropy = -mixture.log_prob(mixture.sample(20_000, torch.Generator().manual_seed(1))).mean()
    assert_estimates(-mixture.log_prob(x), entropy, slack=0.05)


def test_the_last_step_adds_no_noise():
    model, x = DDPM(Told(2), SCHEDULE, (2,)), torch.randn(3, 2)
    one, two = torch.ones(3, dtype=torch.long), torch.full((3,), 2)
    assert torch.equal(model.p_sample(x, one), model.p_sample(x, one))
    assert not torch.equal(model.p_sample(x, two), model.p_sample(x, two))


def test_training_learns_a_ring():
    mixture = lopsided()
    model = DDPM(Told(2, 128), cosine_schedule(100), (2,), clip=False)
    fit(Player.of(model, lr=4e-3), stream(lambda n, g: mixture.sample(n, g).float(), 256), 600)
    x = model.sample(2000, generator=torch.Generator().manual_seed(0)).double()
    entropy = -mixture.log_prob(mixture.sample(20_000)).mean()
    one = torch.distributions.MultivariateNormal(mixture.sample(20_000).mean(0), mixture.sample(20_000).T.cov())
    baseline = -mixture.log_prob(one.sample((2000,))).mean() - entropy  # one Gaussian instead
    assert -mixture.log_prob(x).mean() - entropy < 0.25 * baseline
    assert (mixture.responsibilities(x).mean(0) - mixture.weights).abs().max() < 0.15
