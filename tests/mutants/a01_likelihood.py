"""Plausible wrong answers to assignment 01, and a second right one for every function."""

from __future__ import annotations

import math

import torch

from course_lib.maths import gaussian
from course_lib.maths.mixture import GaussianMixture
from tests.mutants.registry import Answers

answers = Answers("a01_likelihood")
LOG_2PI = math.log(2 * math.pi)


def quadratic_form(x, mean, covariance):
    return ((x - mean) @ torch.linalg.inv(covariance) * (x - mean)).sum(-1)


# ---- gaussian_log_prob


@answers.second
def gaussian_log_prob(x, mean, covariance):
    values, vectors = torch.linalg.eigh(covariance)
    standardized = (x - mean) @ vectors / values.sqrt()
    return (-0.5 * LOG_2PI - 0.5 * values.log() - 0.5 * standardized**2).sum(-1)


@answers.mutant("one half missing before the quadratic form")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (len(mean) * LOG_2PI + torch.logdet(covariance)) - quadratic_form(x, mean, covariance)


@answers.mutant("log det missing")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (len(mean) * LOG_2PI + quadratic_form(x, mean, covariance))


@answers.mutant("2π missing")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (torch.logdet(covariance) + quadratic_form(x, mean, covariance))


@answers.mutant("2π once in place of once a dimension")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (LOG_2PI + torch.logdet(covariance) + quadratic_form(x, mean, covariance))


@answers.mutant("covariance taken for a standard deviation in the log det")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (len(mean) * LOG_2PI + 2 * torch.logdet(covariance) + quadratic_form(x, mean, covariance))


@answers.mutant("log det of the Cholesky factor not doubled")
def gaussian_log_prob(x, mean, covariance):
    log_det = torch.linalg.cholesky(covariance).diagonal().log().sum()
    return -0.5 * (len(mean) * LOG_2PI + log_det + quadratic_form(x, mean, covariance))


@answers.mutant("sign of the log det")
def gaussian_log_prob(x, mean, covariance):
    return -0.5 * (len(mean) * LOG_2PI - torch.logdet(covariance) + quadratic_form(x, mean, covariance))


@answers.mutant("logarithm of a determinant that underflows")
def gaussian_log_prob(x, mean, covariance):
    log_det = torch.linalg.det(covariance).log()
    return -0.5 * (len(mean) * LOG_2PI + log_det + quadratic_form(x, mean, covariance))


@answers.mutant("covariance not inverted")
def gaussian_log_prob(x, mean, covariance):
    quadratic = ((x - mean) @ covariance * (x - mean)).sum(-1)
    return -0.5 * (len(mean) * LOG_2PI + torch.logdet(covariance) + quadratic)


@answers.mutant("only the diagonal of the covariance")
def gaussian_log_prob(x, mean, covariance):
    variance = covariance.diagonal()
    return -0.5 * (LOG_2PI + variance.log() + (x - mean) ** 2 / variance).sum(-1)


# ---- fit_gaussian


@answers.second
def fit_gaussian(x):
    mean = torch.einsum("nd->d", x) / x.shape[0]
    covariance = torch.stack([torch.outer(row, row) for row in x - mean]).mean(0)
    return mean, covariance


@answers.mutant("divided by n - 1")
def fit_gaussian(x):
    return x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


@answers.mutant("mean not subtracted")
def fit_gaussian(x):
    return x.mean(0), x.T @ x / len(x)


@answers.mutant("diagonal covariance")
def fit_gaussian(x):
    return x.mean(0), torch.diag(x.var(0, correction=0))


@answers.mutant("correlations in place of covariances")
def fit_gaussian(x):
    standardized = (x - x.mean(0)) / x.std(0, correction=0)
    return x.mean(0), standardized.T @ standardized / len(x)


@answers.mutant("cancellation in float32")
def fit_gaussian(x):
    mean = x.mean(0)
    return mean, x.T @ x / len(x) - torch.outer(mean, mean)


# ---- kl_gaussians


@answers.second
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    root_p, root_q = torch.linalg.cholesky(covariance_p), torch.linalg.cholesky(covariance_q)
    whitened_root = torch.linalg.solve_triangular(root_q, root_p, upper=False)
    whitened_gap = torch.linalg.solve_triangular(root_q, (mean_p - mean_q).unsqueeze(1), upper=False)
    half_log_det = whitened_root.diagonal().log().sum()
    return 0.5 * (whitened_root.square().sum() + whitened_gap.square().sum() - len(mean_p)) - half_log_det


def kl_terms(mean_p, covariance_p, mean_q, covariance_q):
    """trace, d, Mahalanobis distance², log det Σ_q - log det Σ_p."""
    precision, gap = torch.linalg.inv(covariance_q), mean_q - mean_p
    log_dets = torch.logdet(covariance_q) - torch.logdet(covariance_p)
    return torch.trace(precision @ covariance_p), len(gap), gap @ precision @ gap, log_dets


@answers.mutant("one half missing")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, d, distance, log_dets = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    return trace - d + distance + log_dets


@answers.mutant("log dets missing")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, d, distance, _ = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    return 0.5 * (trace - d + distance)


@answers.mutant("sign of the log dets")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, d, distance, log_dets = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    return 0.5 * (trace - d + distance - log_dets)


@answers.mutant("arguments swapped")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, d, distance, log_dets = kl_terms(mean_q, covariance_q, mean_p, covariance_p)
    return 0.5 * (trace - d + distance + log_dets)


@answers.mutant("d missing")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, _, distance, log_dets = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    return 0.5 * (trace + distance + log_dets)


@answers.mutant("means compared under p's covariance")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    trace, d, _, log_dets = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    gap = mean_q - mean_p
    return 0.5 * (trace - d + gap @ torch.linalg.solve(covariance_p, gap) + log_dets)


@answers.mutant("trace of the elementwise quotient")
def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    _, d, distance, log_dets = kl_terms(mean_p, covariance_p, mean_q, covariance_q)
    return 0.5 * ((covariance_p.diagonal() / covariance_q.diagonal()).sum() - d + distance + log_dets)


# ---- jsd


def entropy(p):
    return torch.special.entr(p).sum(-1)


def kl_of(p, q):
    return torch.special.xlogy(p, p).sum(-1) - torch.special.xlogy(p, q).sum(-1)


@answers.second
def jsd(p, q):
    return entropy((p + q) / 2) - 0.5 * (entropy(p) + entropy(q))


@answers.mutant("NaN where a probability is zero")
def jsd(p, q):
    m = (p + q) / 2
    return 0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))


@answers.mutant("base 2")
def jsd(p, q):
    m = (p + q) / 2
    return 0.5 * (kl_of(p, m) + kl_of(q, m)) / math.log(2)


@answers.mutant("the slide's KL(p/2 ‖ ...)")
def jsd(p, q):
    m = (p + q) / 2
    return 0.5 * (kl_of(p / 2, m) + kl_of(q / 2, m))


@answers.mutant("halves missing")
def jsd(p, q):
    m = (p + q) / 2
    return kl_of(p, m) + kl_of(q, m)


@answers.mutant("compared with each other in place of the mixture")
def jsd(p, q):
    return 0.5 * (kl_of(p, q) + kl_of(q, p))


@answers.mutant("mixture not halved")
def jsd(p, q):
    return 0.5 * (kl_of(p, p + q) + kl_of(q, p + q))


@answers.mutant("square root: the Jensen-Shannon distance")
def jsd(p, q):
    m = (p + q) / 2
    return (0.5 * (kl_of(p, m) + kl_of(q, m))).clamp_min(0).sqrt()


@answers.mutant("summed over the batch as well")
def jsd(p, q):
    m = (p + q) / 2
    return 0.5 * (kl_of(p, m) + kl_of(q, m)).sum()


@answers.mutant("a small constant inside the logarithm")
def jsd(p, q):
    m = (p + q) / 2 + 1e-3
    return 0.5 * ((p * ((p + 1e-3) / m).log()).sum(-1) + (q * ((q + 1e-3) / m).log()).sum(-1))


# ---- wasserstein1


@answers.second
def wasserstein1(x, y):
    # by quantile functions: both are steps of width 1 / lcm(n, m) once every point is repeated often enough
    common = math.lcm(len(x), len(y))
    upper = x.sort().values.repeat_interleave(common // len(x))
    lower = y.sort().values.repeat_interleave(common // len(y))
    return (upper - lower).abs().mean()


@answers.mutant("not sorted")
def wasserstein1(x, y):
    n = min(len(x), len(y))
    return (x[:n] - y[:n]).abs().mean()


@answers.mutant("sum in place of the mean")
def wasserstein1(x, y):
    n = min(len(x), len(y))
    return (x.sort().values[:n] - y.sort().values[:n]).abs().sum()


@answers.mutant("squared distances")
def wasserstein1(x, y):
    n = min(len(x), len(y))
    return (x.sort().values[:n] - y.sort().values[:n]).square().mean()


@answers.mutant("root mean square: W2")
def wasserstein1(x, y):
    common = math.lcm(len(x), len(y))
    upper = x.sort().values.repeat_interleave(common // len(x))
    lower = y.sort().values.repeat_interleave(common // len(y))
    return (upper - lower).square().mean().sqrt()


@answers.mutant("the longer sample cut after sorting")
def wasserstein1(x, y):
    n = min(len(x), len(y))
    return (x.sort().values[:n] - y.sort().values[:n]).abs().mean()


@answers.mutant("equal sizes only")
def wasserstein1(x, y):
    return (x.sort().values - y.sort().values).abs().mean()


@answers.mutant("signed areas cancel")
def wasserstein1(x, y):
    points = torch.cat([x, y]).sort().values
    below = [(s <= points[:-1, None]).double().mean(1) for s in (x, y)]
    return ((below[0] - below[1]) * points.diff()).sum().abs()


@answers.mutant("cut off from the gradient")
def wasserstein1(x, y):
    common = math.lcm(len(x), len(y))
    upper = x.detach().sort().values.repeat_interleave(common // len(x))
    lower = y.detach().sort().values.repeat_interleave(common // len(y))
    return (upper - lower).abs().mean()


# ---- mixture_log_prob


@answers.second
def mixture_log_prob(x, weights, means, covariances):
    # log-add-exp, one component after the other
    total = weights[0].log() + gaussian.multivariate_log_prob(x, means[0], covariances[0])
    for k in range(1, len(weights)):
        total = torch.logaddexp(total, weights[k].log() + gaussian.multivariate_log_prob(x, means[k], covariances[k]))
    return total


def component_log_probs(x, means, covariances):
    return torch.stack([gaussian.multivariate_log_prob(x, m, c) for m, c in zip(means, covariances, strict=True)], -1)


@answers.mutant("log of the sum of densities: underflows")
def mixture_log_prob(x, weights, means, covariances):
    return (weights * component_log_probs(x, means, covariances).exp()).sum(-1).log()


@answers.mutant("a small constant against the underflow")
def mixture_log_prob(x, weights, means, covariances):
    return ((weights * component_log_probs(x, means, covariances).exp()).sum(-1) + 1e-300).log()


@answers.mutant("weighted mean of the logarithms")
def mixture_log_prob(x, weights, means, covariances):
    return (weights * component_log_probs(x, means, covariances)).sum(-1)


@answers.mutant("weights forgotten")
def mixture_log_prob(x, weights, means, covariances):
    return component_log_probs(x, means, covariances).logsumexp(-1)


@answers.mutant("equal weights")
def mixture_log_prob(x, weights, means, covariances):
    return component_log_probs(x, means, covariances).logsumexp(-1) - math.log(len(weights))


@answers.mutant("weights taken for logits")
def mixture_log_prob(x, weights, means, covariances):
    return (weights.log_softmax(0) + component_log_probs(x, means, covariances)).logsumexp(-1)


@answers.mutant("largest component only")
def mixture_log_prob(x, weights, means, covariances):
    return (weights.log() + component_log_probs(x, means, covariances)).amax(-1)


@answers.mutant("summed over the points in place of the components")
def mixture_log_prob(x, weights, means, covariances):
    return (weights.log() + component_log_probs(x, means, covariances)).logsumexp(0)


# ---- em_step


@answers.second
def em_step(x, weights, means, covariances):
    log_joint = weights.log() + component_log_probs(x, means, covariances)
    posterior = (log_joint - log_joint.logsumexp(1, keepdim=True)).exp()
    new_means, new_covariances = [], []
    for share in (posterior / posterior.sum(0)).T:  # each component's points, weighted to sum 1
        new_means.append(share @ x)
        gap = x - new_means[-1]
        new_covariances.append((share.unsqueeze(1) * gap).T @ gap)
    return posterior.mean(0), torch.stack(new_means), torch.stack(new_covariances)


def m_step(x, r, around=None, divide=None):
    """The right M-step, unless told what to do otherwise."""
    mass = r.sum(0)
    means = (r.T @ x) / mass[:, None]
    centred = x[:, None] - (means if around is None else around)
    scatter = torch.einsum("nk,nki,nkj->kij", r, centred, centred)
    return mass / len(x), means, scatter / (mass if divide is None else divide)[:, None, None]


def posterior_of(x, weights, means, covariances):
    return GaussianMixture(weights, means, covariances).responsibilities(x)


@answers.mutant("covariances around the old means")
def em_step(x, weights, means, covariances):
    return m_step(x, posterior_of(x, weights, means, covariances), around=means)


@answers.mutant("covariances divided by n")
def em_step(x, weights, means, covariances):
    r = posterior_of(x, weights, means, covariances)
    return m_step(x, r, divide=torch.full_like(weights, len(x)))


@answers.mutant("covariances divided by the mass minus 1")
def em_step(x, weights, means, covariances):
    r = posterior_of(x, weights, means, covariances)
    return m_step(x, r, divide=r.sum(0) - 1)


@answers.mutant("hard assignments: k-means")
def em_step(x, weights, means, covariances):
    r = posterior_of(x, weights, means, covariances)
    return m_step(x, (r == r.amax(1, keepdim=True)).to(x.dtype))


@answers.mutant("old weights left out of the E-step")
def em_step(x, weights, means, covariances):
    return m_step(x, posterior_of(x, torch.full_like(weights, 1 / len(weights)), means, covariances))


@answers.mutant("responsibilities normalized over the points")
def em_step(x, weights, means, covariances):
    return m_step(x, (weights.log() + component_log_probs(x, means, covariances)).softmax(0))


@answers.mutant("weights not updated")
def em_step(x, weights, means, covariances):
    _, new_means, new_covariances = m_step(x, posterior_of(x, weights, means, covariances))
    return weights, new_means, new_covariances


@answers.mutant("diagonal covariances")
def em_step(x, weights, means, covariances):
    w, m, c = m_step(x, posterior_of(x, weights, means, covariances))
    return w, m, torch.diag_embed(c.diagonal(dim1=1, dim2=2))


@answers.mutant("a ridge that nobody asked for")
def em_step(x, weights, means, covariances):
    w, m, c = m_step(x, posterior_of(x, weights, means, covariances))
    return w, m, c + 1e-2 * torch.eye(x.shape[1], dtype=x.dtype)


# ---- outlier_auroc


@answers.second
def outlier_auroc(scores_in, scores_out):
    # Mann & Whitney's U from sorted outliers: how many lie below, and how many not above, each inlier
    ordered = scores_out.sort().values
    below = torch.searchsorted(ordered, scores_in.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, scores_in.contiguous(), right=True)
    return (below + not_above).to(scores_in.dtype).mean() / (2 * len(scores_out))


@answers.mutant("inverted")
def outlier_auroc(scores_in, scores_out):
    pairs = scores_in[:, None] - scores_out
    return ((pairs < 0).double() + 0.5 * (pairs == 0).double()).mean()


@answers.mutant("ties count nothing")
def outlier_auroc(scores_in, scores_out):
    return (scores_in[:, None] > scores_out).double().mean()


@answers.mutant("ties count fully")
def outlier_auroc(scores_in, scores_out):
    return (scores_in[:, None] >= scores_out).double().mean()


@answers.mutant("pairs by index only")
def outlier_auroc(scores_in, scores_out):
    n = min(len(scores_in), len(scores_out))
    pairs = scores_in[:n] - scores_out[:n]
    return ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()


@answers.mutant("accuracy at the mean score")
def outlier_auroc(scores_in, scores_out):
    threshold = torch.cat([scores_in, scores_out]).mean()
    return ((scores_in > threshold).double().mean() + (scores_out <= threshold).double().mean()) / 2


@answers.mutant("trapezoids over five thresholds")
def outlier_auroc(scores_in, scores_out):
    both = torch.cat([scores_in, scores_out])
    cuts = torch.linspace(float(both.max()) + 1, float(both.min()) - 1, 5).to(both)
    accepted_in = (scores_in[:, None] >= cuts).double().mean(0)
    accepted_out = (scores_out[:, None] >= cuts).double().mean(0)
    return torch.trapezoid(accepted_in, accepted_out)
