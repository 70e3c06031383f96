import itertools

import pytest
import torch
from torch import distributions as D

from course_lib.data import toy2d
from course_lib.maths.mixture import GaussianMixture, expectation_maximization
from tests.oracles import assert_estimates, integral, on_points, plane


def correlated() -> GaussianMixture:
    """Unequal weights and tilted ellipses: equal circles would hide a transposed factor."""
    roots = torch.tensor([[[0.6, 0.0], [0.4, 0.3]], [[0.3, -0.2], [0.0, 0.7]], [[0.5, 0.1], [0.1, 0.2]]])
    means = torch.tensor([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]])
    weights = torch.tensor([0.5, 0.3, 0.2])
    return GaussianMixture(weights, means, roots @ roots.mT + 0.02 * torch.eye(2)).double()


MIXTURES = {
    "correlated": correlated,
    **{name: lambda name=name: toy2d.density(name).double() for name in ("ring8", "grid25", "moons", "spirals")},
}
every_mixture = pytest.mark.parametrize("name", MIXTURES)


def by_torch(m: GaussianMixture) -> D.MixtureSameFamily:
    return D.MixtureSameFamily(D.Categorical(m.weights), D.MultivariateNormal(m.means, m.covariances))


@every_mixture
def test_integrates_to_one(name):
    assert integral(MIXTURES[name]().log_prob, 6, cells=360) == pytest.approx(1, abs=1e-6)


@every_mixture
def test_log_prob_is_that_of_torch(name):
    mixture = MIXTURES[name]()
    x = 2 * torch.randn(100, 2, dtype=torch.float64)
    torch.testing.assert_close(mixture.log_prob(x), by_torch(mixture).log_prob(x))
    joint = mixture.weights.log() + by_torch(mixture).component_distribution.log_prob(x.unsqueeze(1))
    torch.testing.assert_close(mixture.log_joint(x), joint)
    torch.testing.assert_close(mixture.responsibilities(x), (joint - mixture.log_prob(x).unsqueeze(1)).exp())


@every_mixture
def test_score_is_the_gradient_of_log_prob(name):
    mixture = MIXTURES[name]()
    x = (mixture.sample(200) + 0.2 * torch.randn(200, 2, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach()), gradient, rtol=1e-7, atol=1e-8)


def test_score_far_away_points_to_the_nearest_mode_without_overflow():
    far = torch.tensor([[80.0, -80.0]])
    score = toy2d.density("ring8").score(far)
    assert torch.isfinite(score).all() and score[0, 0] < 0 < score[0, 1]


@pytest.mark.parametrize("std", [0.1, 0.6])
def test_noised_is_the_convolution(std):
    mixture = correlated()
    points, area = plane(6, 300)
    density = on_points(mixture.log_prob, points).exp()
    x = mixture.noised(std).sample(40)
    kernel = D.MultivariateNormal(torch.zeros(2, dtype=torch.float64), std**2 * torch.eye(2, dtype=torch.float64))
    want = torch.stack([(density * kernel.log_prob(y - points).exp()).sum() * area for y in x])
    torch.testing.assert_close(mixture.noised(std).log_prob(x).exp(), want, rtol=1e-6, atol=1e-9)


def test_noised_samples_have_the_noised_moments():
    mixture = correlated()
    x = mixture.sample(20_000) + 0.7 * torch.randn(20_000, 2, dtype=torch.float64)
    m = mixture.noised(0.7)
    mean = m.weights @ m.means
    covariance = torch.einsum("k,kij->ij", m.weights, m.covariances + m.means[:, :, None] * m.means[:, None, :])
    assert_estimates(x, mean)
    assert_estimates(x[:, :, None] * x[:, None, :], covariance)


def test_samples_follow_the_law():
    mixture = correlated()
    x, component = mixture.sample_labelled(30_000)
    one_hot = torch.nn.functional.one_hot(component, 3).double()
    assert_estimates(one_hot, mixture.weights)
    for k in range(3):
        centred = x[component == k] - mixture.means[k]
        assert_estimates(centred, torch.zeros(2, dtype=torch.float64))
        assert_estimates(centred[:, :, None] * centred[:, None, :], mixture.covariances[k])
    # E[score] = 0 under the law itself
    assert_estimates(mixture.score(x), torch.zeros(2, dtype=torch.float64))


def test_the_same_generator_gives_the_same_sample():
    mixture = correlated()
    a, b, c = (mixture.sample(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.dtype == torch.float64 and mixture.modes == 3


@pytest.mark.parametrize("seed", range(3))
def test_em_never_lowers_the_likelihood(seed):
    x = correlated().sample(500)
    mixture, history = expectation_maximization(x, 4, steps=40, ridge=0.0, seed=seed)
    assert history.shape == (40,)
    assert history.diff().min() >= -1e-10
    assert mixture.log_prob(x).mean() >= history[-1] > history[0] + 0.05


def test_em_recovers_the_mixture_that_made_the_data():
    truth = correlated()
    n = 6000
    x = truth.sample(n)
    fitted, _ = expectation_maximization(x, 3, steps=60, seed=0)
    order = min(
        itertools.permutations(range(3)), key=lambda p: (fitted.means[list(p)] - truth.means).square().sum().item()
    )
    weights, means, covariances = (t[list(order)] for t in (fitted.weights, fitted.means, fitted.covariances))
    # the components barely overlap, so the standard errors are those of labelled data
    counts = n * truth.weights
    assert ((weights - truth.weights).abs() <= 5 * (truth.weights * (1 - truth.weights) / n).sqrt()).all()
    assert (
        (means - truth.means).abs() <= 5 * (truth.covariances.diagonal(dim1=1, dim2=2) / counts[:, None]).sqrt()
    ).all()
    variance = truth.covariances.diagonal(dim1=1, dim2=2)
    spread = (variance[:, :, None] * variance[:, None, :] + truth.covariances.square()) / counts[:, None, None]
    assert ((covariances - truth.covariances).abs() <= 5 * spread.sqrt()).all()


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="cannot fit 5 modes to 3 points"):
        expectation_maximization(torch.randn(3, 2), 5)
    with pytest.raises(ValueError, match=r"sum to 1, got sum 1\.5"):
        GaussianMixture(torch.tensor([1.0, 0.5]), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2))
    with pytest.raises(ValueError, match="weights must be ≥ 0"):
        GaussianMixture(torch.tensor([1.5, -0.5]), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2))
