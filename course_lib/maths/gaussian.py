r"""Gaussians: log-densities and closed-form KL divergences.

Diagonal Gaussians are given by mean and log-variance, as a VAE's encoder returns them:

.. math:: KL(N(μ, σ^2) ‖ N(0, 1)) = -\tfrac12 \sum_j (1 + \log σ_j^2 - μ_j^2 - σ_j^2)

(Kingma & Welling 2014, appendix B; two of the slide decks behind this course lost the ½).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def normal_log_prob(
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "*b d"] | Float[Tensor, " d"], log_var: Float[Tensor, "*#b #d"]
) -> Float[Tensor, "*b"]:
    """log N(x; mean, diag exp(log_var)) in nats, summed over the last axis."""
    return -0.5 * (LOG_2PI + log_var + (x - mean).square() * (-log_var).exp()).sum(-1)


def standard_normal_log_prob(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """log N(x; 0, I) in nats."""
    return -0.5 * (LOG_2PI + x.square()).sum(-1)


def kl_to_standard_normal(mean: Float[Tensor, "*b d"], log_var: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """KL(N(mean, diag exp(log_var)) ‖ N(0, I)) in nats."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)


def kl_diagonal(
    mean_p: Float[Tensor, "*b d"],
    log_var_p: Float[Tensor, "*b d"],
    mean_q: Float[Tensor, "*b d"],
    log_var_q: Float[Tensor, "*b d"],
) -> Float[Tensor, "*b"]:
    """KL(p ‖ q) of two diagonal Gaussians in nats."""
    ratio = (log_var_p - log_var_q).exp()
    return 0.5 * (ratio - 1 + log_var_q - log_var_p + (mean_p - mean_q).square() * (-log_var_q).exp()).sum(-1)


def multivariate_log_prob(
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "*#b d"], covariance: Float[Tensor, "*#b d d"]
) -> Float[Tensor, "*b"]:
    """log N(x; mean, covariance) in nats, through the Cholesky factor."""
    chol = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(chol, (x - mean).unsqueeze(-1), upper=False).squeeze(-1)
    half_logdet = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (x.shape[-1] * LOG_2PI + whitened.square().sum(-1)) - half_logdet


def kl_multivariate(
    mean_p: Float[Tensor, " d"], cov_p: Float[Tensor, "d d"], mean_q: Float[Tensor, " d"], cov_q: Float[Tensor, "d d"]
) -> Float[Tensor, ""]:
    """KL(p ‖ q) of two Gaussians with full covariance, in nats.

    ½ [tr(Σ_q⁻¹ Σ_p) − d + (μ_q − μ_p)ᵀ Σ_q⁻¹ (μ_q − μ_p) + log det Σ_q − log det Σ_p].
    """
    gap = mean_q - mean_p
    trace = torch.linalg.solve(cov_q, cov_p).diagonal().sum()
    mahalanobis = gap @ torch.linalg.solve(cov_q, gap)
    return 0.5 * (trace - len(gap) + mahalanobis + torch.logdet(cov_q) - torch.logdet(cov_p))


def fit_gaussian(x: Float[Tensor, "b d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Maximum-likelihood mean and covariance (divided by b, not b − 1)."""
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / len(x)
