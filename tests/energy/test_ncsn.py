import pytest
import torch

from course_lib.core import EMA, FitOptions, Player, fit, minibatches, stream, warmup_cosine
from course_lib.data import load
from course_lib.energy.ncsn import NCSN, best_step, mlp_ncsn, unet_ncsn
from course_lib.maths.langevin import geometric_ladder
from course_lib.maths.mixture import GaussianMixture
from course_lib.nn.unet import UNetConfig
from tests.oracles import assert_estimates

SIGMAS = geometric_ladder(8.0, 0.1, 10)


def unequal() -> GaussianMixture:
    means = torch.tensor([[-2.0, -2.0], [2.0, 2.0]])
    return GaussianMixture(torch.tensor([0.2, 0.8]), means, 0.16 * torch.eye(2).expand(2, 2, 2).contiguous())


class Exact(torch.nn.Module):
    """The F for which s(x, σ) = ∇log p_σ(x): a network that is right, to test everything around it."""

    def __init__(self, mixture: GaussianMixture, sigmas) -> None:
        super().__init__()
        self.mixture, self.sigmas = mixture, sigmas

    def forward(self, x, t):
        high, low = self.sigmas[0], self.sigmas[-1]
        out = torch.empty_like(x)
        for value in t.unique():
            sigma = float(low * (high / low) ** (value / 1000))
            rows = t == value
            wide = (1 + sigma**2) ** 0.5
            there = x[rows] * wide
            out[rows] = (self.mixture.noised(sigma).score(there) + there / wide**2) * sigma * wide
        return out


def exact(sigmas=SIGMAS, steps: int = 20) -> NCSN:
    return NCSN(Exact(unequal(), sigmas), (2,), sigmas, best_step(sigmas, steps), steps)


def test_score_undoes_its_scalings():
    model, x = exact(), torch.randn(6, 2)
    for sigma in (8.0, 0.9, 0.1):
        torch.testing.assert_close(model.score(x, sigma), unequal().noised(sigma).score(x), rtol=1e-3, atol=1e-3)
    mixed = torch.tensor([8.0, 8.0, 0.9, 0.9, 0.1, 0.1])
    want = torch.cat([model.score(x[i : i + 2], float(mixed[i])) for i in (0, 2, 4)])
    torch.testing.assert_close(model.score(x, mixed), want, rtol=1e-3, atol=1e-3)


def test_weighted_loss_is_sigma_squared_times_denoising_score_matching():
    model = mlp_ncsn(2, 16, SIGMAS)
    x, noise = torch.randn(5, 2), torch.randn(5, 2)
    sigma = torch.tensor(SIGMAS)[[0, 3, 5, 7, 9]]
    s = model.score(x + sigma[:, None] * noise, sigma)
    want = sigma**2 * 0.5 * (s + noise / sigma[:, None]).square().sum(1)
    torch.testing.assert_close(model.weighted_loss(x, noise, sigma), want, rtol=1e-4, atol=1e-5)


def test_a_silent_network_is_right_about_a_standard_normal():
    """F = 0 is the exact score of N(0, I) under noise; its loss is the mean of ½/(1 + σ²) over the ladder."""
    model = NCSN(torch.nn.Module(), (2,), SIGMAS)
    model.net.forward = lambda x, t: torch.zeros_like(x)
    normal, x = GaussianMixture.isotropic(torch.zeros(1, 2), 1.0), torch.randn(6, 2)
    for sigma in SIGMAS:
        torch.testing.assert_close(model.score(x, sigma), normal.noised(sigma).score(x))
    losses = torch.stack([model.loss(torch.randn(500, 2)) for _ in range(100)])
    assert_estimates(losses, float((0.5 / (1 + torch.tensor(SIGMAS).square())).mean()))


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_best_step_brings_the_variance_closest_to_the_next_level(steps):
    """On data that are one point, run the chain's own variance recursion and compare neighbouring steps."""
    gamma, best = SIGMAS[0] / SIGMAS[1], best_step(SIGMAS, steps)

    def after(eta: float) -> float:
        variance = gamma**2
        for _ in range(steps):
            variance = (1 - eta / 2) ** 2 * variance + eta
        return variance

    assert 1 < after(best) <= min(after(best * 0.9), after(best * 1.1))


def test_annealed_sampling_finds_the_weights_with_the_exact_score():
    x = exact().sample(3000, torch.Generator().manual_seed(0))
    assert_estimates((x.sum(1) > 0).double(), 0.8, slack=0.03)


def test_denoising_removes_the_last_noise():
    """Data on two points: what is left of the noise is the spread around them."""
    points = GaussianMixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 1e-3)
    sigmas = geometric_ladder(4.0, 0.1, 12)
    model = NCSN(Exact(points, sigmas), (2,), sigmas, best_step(sigmas, 10), 10)
    rough = model.sample(500, torch.Generator().manual_seed(0), denoise=False)
    clean = model.sample(500, torch.Generator().manual_seed(0))
    spread = lambda x: torch.cdist(x, points.means).amin(1).square().mean().sqrt()  # noqa: E731
    assert spread(rough) > 0.1 and spread(clean) < 0.01


def test_training_learns_the_scores_of_all_levels_and_the_weights():
    torch.manual_seed(0)
    model, steps = mlp_ncsn(2, 64, SIGMAS), 700
    ema, options = EMA(model, 0.99), FitOptions(schedule=warmup_cosine(steps))
    fit(Player.of(model, 3e-3), stream(unequal().sample, 256), steps, ema=ema, options=options)
    for sigma in SIGMAS[::3]:
        noised = unequal().noised(sigma)
        x = noised.sample(3000, torch.Generator().manual_seed(1))
        with torch.no_grad():
            error = (ema.module.score(x, sigma) - noised.score(x)).square().sum() / noised.score(x).square().sum()
        assert error < (0.3 if sigma == SIGMAS[-1] else 0.1), (sigma, float(error))  # s = 0 has error 1
    x = ema.module.sample(2000, torch.Generator().manual_seed(2))
    assert abs((x.sum(1) > 0).double().mean() - 0.8) < 0.1  # plain Langevin dynamics: 0.3 off
    spread = lambda x: unequal().log_prob(x).mean()  # noqa: E731
    assert abs(spread(x) - spread(unequal().sample(2000))) < 0.4


def test_pictures_beat_independent_pixels_after_a_short_training():
    """8×8 digits: pixels of samples vary together as in the data; independent pixels would have no covariance."""
    digits = load("digits8").x
    torch.manual_seed(0)
    sigmas = geometric_ladder(8.0, 0.05, 12)
    model, steps = unet_ncsn(1, 8, UNetConfig(16, (1, 2), 1, (1,)), sigmas), 150
    ema, options = EMA(model, 0.98), FitOptions(schedule=warmup_cosine(steps, 10))
    fit(Player.of(model, 3e-3), minibatches(digits, 64), steps, ema=ema, options=options)
    fake = ema.module.eval().sample(300, torch.Generator().manual_seed(0))
    assert fake.abs().max() <= 1
    pairs = torch.triu_indices(64, 64, 1).unbind()
    off_diagonal = [x.flatten(1).T.cov()[pairs] for x in (fake, digits)]
    assert torch.stack(off_diagonal).corrcoef()[0, 1] > 0.4
    assert torch.stack([fake.mean(0).flatten(), digits.mean(0).flatten()]).corrcoef()[0, 1] > 0.9
