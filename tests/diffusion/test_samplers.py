"""DDIM, EDM and SDE samplers against each other and against exact solutions."""

import itertools
import math

import pytest
import torch

from course_lib.diffusion import edm, sde
from course_lib.diffusion.ddim import ddim_encode, ddim_sample, ddim_sigma, ddim_step, respaced, slerp, walk
from course_lib.diffusion.parametrization import EPSILON, VELOCITY, X0
from course_lib.maths.mixture import GaussianMixture
from course_lib.maths.schedules import cosine_schedule, linear_schedule
from tests.diffusion.exact import exact_ddpm, lopsided, scaled
from tests.oracles import assert_estimates

MIXTURE = lopsided()
SCHEDULE = linear_schedule(200)
GAUSSIAN = GaussianMixture.isotropic(torch.tensor([[0.5, -0.3]], dtype=torch.float64), 0.4)


def noise(n, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_respacing():
    assert respaced(4, 1000) == [1000, 750, 500, 250, 0] and respaced(3, 3) == [3, 2, 1, 0]
    for steps in (0, 11):
        with pytest.raises(ValueError, match="steps"):
            respaced(steps, 10)


def test_eta_one_is_ddpm():
    model, xt = exact_ddpm(MIXTURE, SCHEDULE), noise(5)
    for t in (1, 2, 90, 200):
        x0, eps = model.x0_and_eps(xt, torch.full((5,), t))
        got = ddim_step(SCHEDULE, x0, eps, t, t - 1, 1.0, torch.Generator().manual_seed(1))
        want = model.p_sample(xt, torch.full((5,), t), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_every_eta_has_the_right_marginals(eta):
    """x_s made from q(x_t | x_0) by the true x_0 and ε has mean √ᾱ_s x_0 and variance 1 − ᾱ_s.  Song 2021 eq. (7)."""
    t, s, n = 150, 60, 200_000
    a_t, a_s = SCHEDULE.alpha_bar[t], SCHEDULE.alpha_bar[s]
    x0, eps = torch.full((n, 2), 0.7, dtype=torch.float64), noise(n)
    x_s = ddim_step(SCHEDULE, x0, eps, t, s, eta, torch.Generator().manual_seed(1))
    assert_estimates(x_s, 0.7 * a_s.sqrt())
    assert_estimates((x_s - 0.7 * a_s.sqrt()).square(), 1 - a_s)
    # and it still belongs to x_t: their covariance is what the family says, √(1 − ᾱ_s − σ²) √(1 − ᾱ_t)
    covariance = (x_s - 0.7 * a_s.sqrt()) * (1 - a_t).sqrt() * eps
    assert_estimates(covariance, ((1 - a_s - ddim_sigma(SCHEDULE, t, s, eta) ** 2) * (1 - a_t)).sqrt())


@pytest.mark.parametrize("p", [EPSILON, X0, VELOCITY], ids=lambda p: p.name)
def test_ddim_is_eulers_method_in_sigma(p):
    model = exact_ddpm(MIXTURE, SCHEDULE, p)
    times, x = respaced(20, 200), noise(7)
    ddim = walk(model.x0_and_eps, SCHEDULE, x, times)
    ours = edm.euler(edm.denoiser(model), x / SCHEDULE.alpha_bar[-1].sqrt(), SCHEDULE.sigma()[times])
    torch.testing.assert_close(ddim, ours, rtol=1e-8, atol=1e-8)


def test_few_deterministic_steps_find_the_modes():
    model = exact_ddpm(MIXTURE, SCHEDULE)
    x = ddim_sample(model, 4000, 50, generator=torch.Generator().manual_seed(0))
    assert_estimates(MIXTURE.responsibilities(x), MIXTURE.weights, slack=0.02)


def test_encoding_is_undone_by_sampling():
    model, x0 = exact_ddpm(MIXTURE, SCHEDULE), MIXTURE.sample(500, torch.Generator().manual_seed(0))
    code = ddim_encode(model, x0, 200)
    back = walk(model.x0_and_eps, SCHEDULE, code, respaced(200, 200))
    assert (back - x0).norm(dim=1).median() < 0.02
    assert_estimates(code.square(), 1.0, slack=0.1)  # codes look like noise


def test_slerp_keeps_the_length_of_noise_and_meets_its_ends():
    x, y = torch.randn(2, 3, 1, 28, 28)
    torch.testing.assert_close(slerp(x, y, 0.0), x)
    torch.testing.assert_close(slerp(x, y, 1.0), y)
    assert slerp(x, y, 0.5).std().item() == pytest.approx(1, abs=0.05)
    assert torch.lerp(x, y, 0.5).std().item() == pytest.approx(math.sqrt(0.5), abs=0.05)


# --- noise levels -----------------------------------------------------------------------------------------------------


def test_times_and_noise_levels_are_inverse():
    for schedule in (SCHEDULE, cosine_schedule(200)):
        t = torch.arange(1, 201, dtype=torch.float64)
        torch.testing.assert_close(edm.time_of(schedule, schedule.sigma()[1:]), t, rtol=1e-9, atol=1e-9)
        between = (schedule.sigma()[50] * schedule.sigma()[51]).sqrt().view(1)
        torch.testing.assert_close(edm.time_of(schedule, between), torch.tensor([50.5], dtype=torch.float64))


def test_karras_levels():
    sigmas = edm.karras_sigmas(18, 0.002, 80.0)
    assert sigmas[0].item() == pytest.approx(80) and sigmas[17].item() == pytest.approx(0.002) and sigmas[18] == 0
    torch.testing.assert_close((sigmas[:18] ** (1 / 7)).diff().std(), torch.tensor(0.0).double(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="at least 2"):
        edm.karras_sigmas(1)


def true_denoiser(mixture):
    return lambda x, sigma: x + sigma[0] ** 2 * mixture.noised(float(sigma[0])).score(x)


@pytest.mark.parametrize(("solver", "order"), [(edm.euler, 1), (edm.heun, 2)])
def test_solvers_have_their_order_on_a_gaussian(solver, order):
    """x − μ ∝ sqrt(s² + σ²) along the ODE of a Gaussian N(μ, s² I), down to a small σ."""
    top, bottom = 10.0, 0.05
    x, mean = 0.5 + top * noise(50), GAUSSIAN.means[0]
    want = mean + (x - mean) * math.sqrt((0.4**2 + bottom**2) / (0.4**2 + top**2))
    errors = []
    for n in (40, 80, 160):
        sigmas = edm.karras_sigmas(n, bottom, top)[:-1]  # without the last step to 0
        errors.append((solver(true_denoiser(GAUSSIAN), x, sigmas) - want).norm().item())
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(s - order) < 0.2 for s in slopes), slopes


def test_a_little_churn_keeps_the_law():
    x = 80 * noise(4000)
    out = edm.stochastic_heun(true_denoiser(MIXTURE), x, edm.karras_sigmas(40), 20.0, torch.Generator().manual_seed(1))
    assert_estimates(MIXTURE.responsibilities(out), MIXTURE.weights, slack=0.02)
    assert not torch.allclose(out, edm.heun(true_denoiser(MIXTURE), x, edm.karras_sigmas(40)), atol=0.1)


def test_clipping_clips():
    wild = lambda x, sigma: 3 * x  # noqa: E731
    assert edm.clipped(wild)(torch.ones(2, 2), torch.ones(2)).max() == 1


# --- stochastic differential equations --------------------------------------------------------------------------------

SDES = pytest.mark.parametrize("process", [sde.VP(), sde.VE()], ids=["VP", "VE"])


def true_score(process, mixture):
    def score(x, t):
        s, sigma = process.marginal(float(t[0]))
        return scaled(mixture, s, sigma).score(x)

    return score


@SDES
def test_marginals_solve_the_moment_equations(process):
    """ds/dt = f s and dσ²/dt = 2 f σ² + g², by central differences."""
    h = 1e-5
    for t in (0.1, 0.5, 0.9):
        (s0, v0), (s, v), (s1, v1) = (process.marginal(t + k * h) for k in (-1, 0, 1))
        assert (s1 - s0) / (2 * h) == pytest.approx(process.drift(t) * s, rel=1e-5, abs=1e-9)
        want = 2 * process.drift(t) * v**2 + process.squared_diffusion(t)
        assert (v1**2 - v0**2) / (2 * h) == pytest.approx(want, rel=1e-4)


@SDES
def test_noising_has_the_marginals(process):
    x = torch.full((20_000, 1), 0.8, dtype=torch.float64)
    times = torch.linspace(0, 0.5, 400, dtype=torch.float64)
    path = sde.noising(process, x, times, torch.Generator().manual_seed(0))
    s, sigma = process.marginal(0.5)
    assert_estimates(path[-1], 0.8 * s, slack=0.005 * sigma)
    assert_estimates((path[-1] - 0.8 * s).square(), sigma**2, slack=0.02 * sigma**2)
    assert len(path) == 400 and path[0] is x


def test_vp_is_ddpm_with_many_steps():
    process, schedule = sde.VP(), linear_schedule(1000)
    for t in (100, 500, 1000):
        assert process.marginal(t / 1000)[0] == pytest.approx(schedule.alpha_bar[t].sqrt().item(), rel=0.05)


@SDES
def test_the_reversed_sde_and_the_ode_end_at_the_data(process):
    score, (_, sigma) = true_score(process, MIXTURE), process.marginal(1.0)
    times = torch.linspace(1, 0, 800, dtype=torch.float64)
    back = sde.reverse_sde(process, score, sigma * noise(2500), times, torch.Generator().manual_seed(1))
    assert_estimates(MIXTURE.responsibilities(back), MIXTURE.weights, slack=0.015)
    flow = sde.solve(sde.probability_flow(process, score), sigma * noise(2500), times[::8])
    assert_estimates(MIXTURE.responsibilities(flow), MIXTURE.weights, slack=0.015)
    entropy = -MIXTURE.log_prob(MIXTURE.sample(20_000, torch.Generator().manual_seed(1))).mean()
    for x in (back, flow):
        assert_estimates(-MIXTURE.log_prob(x), entropy, slack=0.1)


@pytest.mark.parametrize(("step", "order"), [(sde.euler_step, 1), (sde.heun_step, 2), (sde.rk4_step, 4)])
def test_steps_have_their_order(step, order):
    """dx/dt = −x² from x(0) = 1: x(t) = 1 / (1 + t)."""
    x, errors = torch.ones(1, 1, dtype=torch.float64), []
    for n in (10, 20, 40):
        times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        errors.append(abs(sde.solve(lambda x, t: -x.square(), x, times, step).item() - 0.5))
    assert all(abs(math.log2(a / b) - order) < 0.25 for a, b in itertools.pairwise(errors))


@SDES
def test_likelihood_by_the_ode_is_exact(process):
    x = MIXTURE.sample(40, torch.Generator().manual_seed(0))
    field = sde.probability_flow(process, true_score(process, MIXTURE))
    end = scaled(MIXTURE, *process.marginal(1.0))  # not the prior, so that the identity is exact
    times = torch.linspace(0, 1, 150, dtype=torch.float64)
    exact = math.sqrt(2) * torch.eye(2, dtype=torch.float64)[:, None].expand(2, 40, 2)
    got, _ = sde.ode_log_prob(field, x, times, end.log_prob, exact, sde.rk4_step)
    torch.testing.assert_close(got, MIXTURE.log_prob(x), atol=1e-2, rtol=0)

    signs = torch.randint(2, (32, 40, 2), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    estimate, stderr = sde.ode_log_prob(field, x, times[::2], end.log_prob, signs)
    same_steps, _ = sde.ode_log_prob(field, x, times[::2], end.log_prob, exact)
    off = (estimate - same_steps) / stderr
    assert off.abs().max() < 5 and 0.4 < off.std() < 2.5  # the stated error is the error
