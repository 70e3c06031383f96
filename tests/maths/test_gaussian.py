import pytest
import torch
from torch import distributions as D

from course_lib.maths import gaussian
from tests.oracles import assert_estimates, integral

MEAN = torch.tensor([0.3, -0.8], dtype=torch.float64)
LOG_VAR = torch.tensor([-0.5, 0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.7, 0.3], [0.3, 0.4]], dtype=torch.float64)


def pairs(b=5, d=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(b, d, generator=generator, dtype=torch.float64) for _ in range(4)]


def normal(mean, log_var):
    return D.Independent(D.Normal(mean, (0.5 * log_var).exp()), 1)


def test_densities_integrate_to_one():
    assert integral(lambda x: gaussian.normal_log_prob(x, MEAN, LOG_VAR.unsqueeze(0)), 9) == pytest.approx(1, abs=1e-9)
    assert integral(gaussian.standard_normal_log_prob, 9) == pytest.approx(1, abs=1e-9)
    full = integral(lambda x: gaussian.multivariate_log_prob(x, MEAN.unsqueeze(0), COVARIANCE.unsqueeze(0)), 9)
    assert full == pytest.approx(1, abs=1e-9)


def test_log_densities_are_those_of_torch():
    x, mean, log_var, _ = pairs()
    torch.testing.assert_close(gaussian.normal_log_prob(x, mean, log_var), normal(mean, log_var).log_prob(x))
    torch.testing.assert_close(
        gaussian.standard_normal_log_prob(x), normal(torch.zeros_like(x), torch.zeros_like(x)).log_prob(x)
    )
    # one variance for all dimensions counts once per dimension
    shared = log_var[:, :1]
    torch.testing.assert_close(gaussian.normal_log_prob(x, mean, shared), normal(mean, shared.expand_as(x)).log_prob(x))
    covariances = torch.stack([COVARIANCE, torch.eye(2, dtype=torch.float64), 3 * COVARIANCE])
    points = x[:3, :2]
    want = D.MultivariateNormal(mean[:3, :2], covariances).log_prob(points)
    torch.testing.assert_close(gaussian.multivariate_log_prob(points, mean[:3, :2], covariances), want)


def test_kl_closed_forms_are_those_of_torch():
    mean_p, log_var_p, mean_q, log_var_q = pairs()
    p, q = normal(mean_p, log_var_p), normal(mean_q, log_var_q)
    torch.testing.assert_close(gaussian.kl_diagonal(mean_p, log_var_p, mean_q, log_var_q), D.kl_divergence(p, q))
    unit = normal(torch.zeros_like(mean_p), torch.zeros_like(mean_p))
    torch.testing.assert_close(gaussian.kl_to_standard_normal(mean_p, log_var_p), D.kl_divergence(p, unit))
    other = torch.tensor([[1.1, -0.2], [-0.2, 0.5]], dtype=torch.float64)
    want = D.kl_divergence(D.MultivariateNormal(MEAN, COVARIANCE), D.MultivariateNormal(LOG_VAR, other))
    torch.testing.assert_close(gaussian.kl_multivariate(MEAN, COVARIANCE, LOG_VAR, other), want)


def test_kl_closed_forms_are_their_monte_carlo_estimates():
    mean_p, log_var_p, mean_q, log_var_q = (t[:1] for t in pairs())
    p, q = normal(mean_p, log_var_p), normal(mean_q, log_var_q)
    x = p.sample((20_000,))
    assert_estimates(p.log_prob(x) - q.log_prob(x), gaussian.kl_diagonal(mean_p, log_var_p, mean_q, log_var_q))
    to_unit = p.log_prob(x) - gaussian.standard_normal_log_prob(x)
    assert_estimates(to_unit, gaussian.kl_to_standard_normal(mean_p, log_var_p))
    other = torch.tensor([[1.1, -0.2], [-0.2, 0.5]], dtype=torch.float64)
    a, b = D.MultivariateNormal(MEAN, COVARIANCE), D.MultivariateNormal(LOG_VAR, other)
    x = a.sample((20_000,))
    assert_estimates(a.log_prob(x) - b.log_prob(x), gaussian.kl_multivariate(MEAN, COVARIANCE, LOG_VAR, other))


def test_kl_forms_agree_with_each_other_and_vanish_at_equality():
    mean_p, log_var_p, *_ = pairs()
    zero = torch.zeros_like(mean_p)
    diagonal = gaussian.kl_diagonal(mean_p, log_var_p, zero, zero)
    torch.testing.assert_close(gaussian.kl_to_standard_normal(mean_p, log_var_p), diagonal)
    full = gaussian.kl_multivariate(mean_p[0], log_var_p[0].exp().diag(), zero[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(full, diagonal[0])
    torch.testing.assert_close(gaussian.kl_diagonal(mean_p, log_var_p, mean_p, log_var_p), zero[:, 0])
    assert (diagonal > 0).all()


def test_one_unit_of_mean_costs_half_a_nat():
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert gaussian.kl_to_standard_normal(one, zero).item() == 0.5  # two of the slide decks say 1


def test_maximum_likelihood_is_where_the_likelihood_is_flat_and_highest():
    x = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 1
    mean, covariance = gaussian.fit_gaussian(x)

    def nll(m, c):
        return -gaussian.multivariate_log_prob(x, m.unsqueeze(0), c.unsqueeze(0)).mean()

    m, c = mean.clone().requires_grad_(), covariance.clone().requires_grad_()
    by_mean, by_covariance = torch.autograd.grad(nll(m, c), (m, c))
    # 1/(b − 1) instead of 1/b would leave a slope of about 1/(2b) = 2.5e-3
    assert by_mean.abs().max() < 1e-9 and by_covariance.abs().max() < 1e-9
    best = nll(mean, covariance)
    for _ in range(20):
        push = 0.1 * torch.randn(3, 3, dtype=torch.float64)
        assert nll(mean + push[0], covariance) > best
        assert nll(mean, covariance + push @ push.T) > best


def test_maximum_likelihood_minimizes_kl_from_the_data_s_gaussian():
    """Over Gaussians, mean NLL under the data = KL(N(data's moments) ‖ q) + a constant: the same argmin."""
    x = torch.randn(100, 2, dtype=torch.float64) * 2 + 1
    mean, covariance = gaussian.fit_gaussian(x)
    differences = []
    for scale in (0.5, 1.0, 2.0):
        q_mean, q_cov = mean + scale - 1, scale * covariance + 0.1 * torch.eye(2, dtype=torch.float64)
        nll = -gaussian.multivariate_log_prob(x, q_mean.unsqueeze(0), q_cov.unsqueeze(0)).mean()
        differences.append(nll - gaussian.kl_multivariate(mean, covariance, q_mean, q_cov))
    torch.testing.assert_close(torch.stack(differences), differences[0].expand(3))
