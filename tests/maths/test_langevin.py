import math

import pytest
import torch

from course_lib.data import toy2d
from course_lib.maths.langevin import annealed_langevin, geometric_ladder, langevin, tweedie
from course_lib.maths.mixture import GaussianMixture
from tests.oracles import assert_estimates, on_points, plane


def two_modes(weights=(0.2, 0.8), distance: float = 8.0) -> GaussianMixture:
    """Song & Ermon 2019, section 3.2.2: modes too far apart for a chain to cross."""
    means = torch.tensor([[-distance / 2, -distance / 2], [distance / 2, distance / 2]])
    return GaussianMixture(torch.tensor(weights), means, torch.eye(2).expand(2, 2, 2).contiguous()).double()


def share_of_the_second(x: torch.Tensor) -> torch.Tensor:
    return (x.sum(1) > 0).double()


@pytest.mark.parametrize("step", [0.05, 0.5, 1.5])
def test_stationary_variance_on_a_gaussian_is_the_analytic_one_step_bias_included(step):
    """x' = (1 − α/2s²) x + √α z has variance s² / (1 − α/4s²)."""
    s = 0.8
    x = s * torch.randn(40_000, 1, dtype=torch.float64)
    steps = math.ceil(8 / (step / s**2))  # (1 − α/2s²)^(2k) < e^−8
    x = langevin(lambda points: -points / s**2, x, step, steps)
    assert_estimates(x.square(), s**2 / (1 - step / (4 * s**2)), slack=s**2 * 1e-3)
    assert_estimates(x, 0.0)


def test_one_step_has_the_stated_mean_and_noise():
    mixture = toy2d.density("moons").double()
    start = torch.tensor([[0.3, -0.7]], dtype=torch.float64).expand(50_000, 2)
    after = langevin(mixture.score, start, 0.02, 1)
    assert_estimates(after - start, 0.01 * mixture.score(start[:1])[0])
    assert_estimates((after - after.mean(0)).square(), 0.02, slack=1e-5)


def test_a_step_that_is_too_long_explodes():
    x = langevin(lambda points: -points, torch.ones(8, 1), 4.2, 200)
    assert x.abs().min() > 1e3


def test_plain_langevin_misses_the_weights_and_annealed_langevin_finds_them():
    mixture = two_modes()
    generator = torch.Generator().manual_seed(1)
    start = 16 * torch.rand(2000, 2, generator=generator, dtype=torch.float64) - 8
    plain = langevin(mixture.score, start, 0.1, 400, generator)
    assert abs(share_of_the_second(plain).mean() - 0.5) < 0.05  # as if the weights were equal
    noised = {}

    def score(x, sigma):
        noised.setdefault(sigma, mixture.noised(sigma))
        return noised[sigma].score(x)

    sigmas = geometric_ladder(20.0, 0.1, 20)
    wide = 20 * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    annealed = annealed_langevin(score, wide, sigmas, 0.001, 40, generator)
    assert_estimates(share_of_the_second(annealed), 0.8, slack=0.03)
    assert mixture.log_prob(annealed).mean() > mixture.log_prob(mixture.sample(2000)).mean() - 0.3


def test_annealing_scales_the_step_with_the_squared_noise_level():
    seen = []

    def score(x, sigma):
        seen.append(sigma)
        return torch.ones_like(x)

    x = torch.zeros(20_000, 1, dtype=torch.float64)
    out = annealed_langevin(score, x, [2.0, 1.0, 0.5], 0.1, 3)
    assert seen == [2.0] * 3 + [1.0] * 3 + [0.5] * 3
    alphas = 3 * 0.1 * (16 + 4 + 1)  # ε σ_i²/σ_L², summed over all steps
    assert_estimates(out, alphas / 2)
    assert_estimates((out - out.mean()).square(), alphas, slack=1e-3)


@pytest.mark.parametrize("sigmas", [[1.0, 2.0], [1.0, 1.0], [1.0, 0.0], []])
def test_levels_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="fall strictly"):
        annealed_langevin(lambda x, sigma: x, torch.zeros(2, 2), sigmas, 0.1, 1)


def test_a_step_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        langevin(lambda x: x, torch.zeros(2, 2), 0.0, 1)


def test_the_generator_decides():
    mixture = toy2d.density("ring8")
    runs = [
        langevin(mixture.score, torch.zeros(5, 2), 0.01, 10, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("name", ["ring8", "moons"])
def test_tweedie_is_the_posterior_mean_by_quadrature(name):
    """E[x_0 | x] = ∫ x_0 p(x_0) N(x; x_0, σ²) dx_0 / ∫ p(x_0) N(x; x_0, σ²) dx_0."""
    mixture, sigma = toy2d.density(name).double(), 0.5
    clean, area = plane(4.0, 400)
    p = on_points(mixture.log_prob, clean).exp() * area
    noisy = mixture.noised(sigma).sample(6)
    weight = p * torch.exp(-(noisy[:, None] - clean).square().sum(-1) / (2 * sigma**2))
    mean = weight @ clean / weight.sum(1, keepdim=True)
    torch.testing.assert_close(tweedie(noisy, mixture.noised(sigma).score(noisy), sigma), mean, rtol=1e-6, atol=1e-6)


def test_ladder_is_geometric():
    ladder = torch.tensor(geometric_ladder(10.0, 0.1, 5), dtype=torch.float64)
    torch.testing.assert_close(ladder, torch.tensor([10, 10**0.5, 1, 10**-0.5, 0.1], dtype=torch.float64))
    for arguments in [(1.0, 2.0, 5), (1.0, 0.0, 5), (1.0, 0.5, 1)]:
        with pytest.raises(ValueError, match="levels"):
            geometric_ladder(*arguments)
