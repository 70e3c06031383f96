import itertools

import pytest
import torch

from course_lib.core import FitOptions, Player, fit, stream
from course_lib.data import toy2d
from course_lib.energy.score_matching import (
    denoising,
    denoising_loss,
    directional,
    divergence,
    explicit_loss,
    implicit_loss,
    mlp_score,
    rademacher,
    sliced,
    sliced_loss,
    sliced_vr_loss,
)
from course_lib.maths.mixture import GaussianMixture
from tests.oracles import STANDARD_ERRORS, assert_estimates, on_points, plane

DOUBLE = torch.float64


def mixture() -> GaussianMixture:
    roots = torch.tensor([[[0.6, 0.0], [0.4, 0.3]], [[0.3, -0.2], [0.0, 0.7]]])
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]])
    return GaussianMixture(torch.tensor([0.3, 0.7]), means, roots @ roots.mT + 0.05 * torch.eye(2)).double()


def field() -> torch.nn.Module:
    """Some network: a vector field with a curl, which is no gradient."""
    torch.manual_seed(3)
    return mlp_score(implicit_loss, 2, 16).double()


def by_quadrature(values: torch.Tensor, p: torch.Tensor) -> float:
    return float((values * p).sum())


def grid(of: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    points, area = plane(6.0, 240)
    return points, on_points(of.log_prob, points).exp() * area


def test_divergence_is_the_trace_of_the_jacobian():
    model, x = field(), torch.randn(5, 2, dtype=DOUBLE)
    jacobian = torch.func.vmap(torch.func.jacrev(model.net))(x)
    trace, s = divergence(model.score, x)
    torch.testing.assert_close(trace, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(s, model.net(x))
    v = torch.randn(5, 2, dtype=DOUBLE)
    torch.testing.assert_close(directional(model.score, x, v)[0], torch.einsum("bi,bij,bj->b", v, jacobian, v))


def test_explicit_is_implicit_plus_a_constant():
    """½E‖s − ∇log p‖² = E[tr ∇s + ½‖s‖²] + ½E‖∇log p‖², by quadrature on the plane (integration by parts)."""
    p, model = mixture(), field()
    x, weight = grid(p)
    truth = on_points(p.score, x)
    explicit = by_quadrature(explicit_loss(model.score, x, truth).detach(), weight)
    implicit = by_quadrature(implicit_loss(model.score, x).detach(), weight)
    constant = by_quadrature(0.5 * truth.square().sum(1), weight)
    assert explicit == pytest.approx(implicit + constant, abs=1e-6)
    assert constant > 0.1
    best = by_quadrature(implicit_loss(p.score, x).detach(), weight)
    assert best == pytest.approx(-constant, abs=1e-6)  # at the truth, explicit is zero
    assert best < implicit


def test_the_gradients_agree_too():
    """The constant does not depend on θ, so both losses teach the same."""
    p, model = mixture(), field()
    x, weight = grid(p)
    truth = on_points(p.score, x)
    params = list(model.parameters())
    explicit = torch.autograd.grad((explicit_loss(model.score, x, truth) * weight).sum(), params)
    implicit = torch.autograd.grad((implicit_loss(model.score, x) * weight).sum(), params)
    for a, b in zip(explicit, implicit, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [sliced_loss, sliced_vr_loss])
def test_sliced_is_unbiased_over_all_signs(loss):
    model, x = field(), torch.randn(7, 2, dtype=DOUBLE)
    signs = [torch.tensor(v, dtype=DOUBLE).expand(7, 2) for v in itertools.product((-1, 1), repeat=2)]
    mean = torch.stack([loss(model.score, x, v) for v in signs]).mean(0)
    torch.testing.assert_close(mean, implicit_loss(model.score, x))


@pytest.mark.parametrize("loss", [sliced_loss, sliced_vr_loss])
def test_sliced_is_unbiased_over_gaussian_directions(loss):
    model = field()
    x = torch.tensor([[0.4, -1.1]], dtype=DOUBLE).expand(100_000, 2)
    v = torch.randn(x.shape, dtype=DOUBLE)
    assert_estimates(loss(model.score, x, v).detach(), float(implicit_loss(model.score, x[:1]).detach()))


def test_variance_reduction_reduces_the_variance():
    """At a linear isotropic score, −x/s², signs leave nothing to chance: vᵀ∇s v = −d/s² for each."""
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=DOUBLE).expand(1000, 3)
    linear, v = lambda points: -points / 0.7, rademacher(x)
    assert sliced_vr_loss(linear, x, v).var() < 1e-20
    assert sliced_loss(linear, x, v).var() > 1.0


def test_rademacher_directions():
    v = rademacher(torch.zeros(50_000, 3, dtype=DOUBLE))
    assert set(v.unique().tolist()) == {-1.0, 1.0}
    assert_estimates((v.unsqueeze(2) * v.unsqueeze(1)).flatten(1), torch.eye(3, dtype=DOUBLE).flatten(), slack=1e-12)


def test_denoising_is_explicit_matching_of_the_noised_density_plus_a_constant():
    """½E‖s + ε/σ‖² = ½E‖s − ∇log p_σ‖² + ½E‖ε/σ‖² − ½E‖∇log p_σ‖², for any s (Vincent 2011)."""
    p, net, sigma = mixture(), field(), 0.4
    score = lambda x: net.score(x) - 2 * x  # noqa: E731  (a field that converges, so that the cross term's sign matters)
    noised = p.noised(sigma)
    generator = torch.Generator().manual_seed(0)
    x, noise = p.sample(200_000, generator), torch.randn(200_000, 2, generator=generator, dtype=DOUBLE)
    values = denoising_loss(score, x, noise, sigma).detach()
    points, weight = grid(noised)
    truth = on_points(noised.score, points)
    explicit = by_quadrature(explicit_loss(score, points, truth).detach(), weight)
    constant = 2 / (2 * sigma**2) - by_quadrature(0.5 * truth.square().sum(1), weight)
    assert_estimates(values, explicit + constant)
    stderr = values.std() / len(values) ** 0.5
    cross = by_quadrature((score(points).detach() * truth).sum(1), weight)
    assert min(constant, abs(cross)) > 5 * STANDARD_ERRORS * stderr  # or the statement says nothing


def test_denoising_on_pictures_counts_every_pixel():
    x, noise = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    got = denoising_loss(torch.zeros_like, x, noise, 0.5)
    torch.testing.assert_close(got, noise.square().sum((1, 2, 3)) / (2 * 0.25))


def test_denoising_needs_noise():
    with pytest.raises(ValueError, match="needs noise"):
        denoising(0.0)


def fisher(model, truth: GaussianMixture, x: torch.Tensor) -> float:
    """½E‖s − ∇log p‖² relative to s = 0."""
    with torch.no_grad():
        error = explicit_loss(model.score, x, truth.score(x)).mean()
    return float(error / (0.5 * truth.score(x).square().sum(1).mean()))


@pytest.mark.parametrize(
    ("objective", "noise", "bound"), [(implicit_loss, 0.0, 0.05), (sliced, 0.0, 0.1), (denoising(0.4), 0.4, 0.05)]
)
def test_training_finds_the_exact_score(objective, noise, bound):
    """The minimizer of all three is the score: of p, or of p noised. The baseline, s = 0, has error 1."""
    p = GaussianMixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.5)
    torch.manual_seed(0)
    model = mlp_score(objective, 2, 64)
    decay = lambda step: 1 - step / 600  # noqa: E731
    fit(Player.of(model, 3e-3), stream(p.sample, 256), 600, options=FitOptions(schedule=decay))
    target = p.noised(noise)
    assert fisher(model, target, target.sample(4000, torch.Generator().manual_seed(5))) < bound


def test_langevin_on_the_learnt_score_samples_the_data():
    p = GaussianMixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.5)
    torch.manual_seed(0)
    model = mlp_score(denoising(0.2), 2, 64)
    fit(Player.of(model, 3e-3), stream(p.sample, 256), 500)
    x = model.sample(1000, generator=torch.Generator().manual_seed(1))
    noised = p.noised(0.2)
    start = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)) * 6 - 3
    entropy = noised.log_prob(noised.sample(4000)).mean()
    assert noised.log_prob(start).mean() < entropy - 3  # the chains begin far off
    assert abs(noised.log_prob(x).mean() - entropy) < 0.3
    assert x.mean(0).sub(p.means.mean(0)).abs().max() < 0.2


def test_the_ring_has_a_score_that_points_back():
    """A sanity check of sign on data of the course: one small step along the score raises the log-density."""
    ring = toy2d.density("ring8").noised(0.3)
    x = ring.sample(500, torch.Generator().manual_seed(0))
    assert (ring.log_prob(x + 0.01 * ring.score(x)) > ring.log_prob(x)).double().mean() > 0.95
