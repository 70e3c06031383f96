r"""How far apart two distributions are.

.. math::
    KL(p ‖ q) = \sum p \log \frac pq, \qquad
    JSD(p, q) = \tfrac12 KL(p ‖ \tfrac{p+q}2) + \tfrac12 KL(q ‖ \tfrac{p+q}2), \qquad
    W_1(p, q) = \int |F_p - F_q|

KL and JSD take probabilities (of a discrete law, or density × cell on a grid) and are in nats; W₁ is in units of x.
(One slide behind this course writes KL(p/2 ‖ …) for the first half of the JSD; the formula above is right.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def kl(p: Float[Tensor, "*b n"], q: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """KL(p ‖ q) in nats; +∞ where q lacks mass that p has. 0 log 0 = 0."""
    present = p > 0  # elsewhere 0 log 0 = 0, whose gradient must not become 0 · ∞
    log_ratio = torch.where(present, p, 1.0).log() - torch.where(present, q, 1.0).log()
    return (p * log_ratio).sum(-1)


def jsd(p: Float[Tensor, "*b n"], q: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Jensen–Shannon divergence in nats: between 0 (equal) and log 2 (disjoint)."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def wasserstein1(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """W₁ between two samples on the line: the area between their empirical distribution functions.

    Differentiable in the positions. For n = m it is the mean distance of the sorted points.
    """
    points, _ = torch.cat([x, y]).sort()
    # counts of points ≤ each midpoint are constant in the positions, so no gradient is lost here
    below_x = torch.searchsorted(x.detach().sort().values, points.detach()[:-1], right=True).to(points) / len(x)
    below_y = torch.searchsorted(y.detach().sort().values, points.detach()[:-1], right=True).to(points) / len(y)
    return ((below_x - below_y).abs() * points.diff()).sum()


def wasserstein1_grid(p: Float[Tensor, "*b n"], q: Float[Tensor, "*b n"], step: float) -> Float[Tensor, "*b"]:
    """W₁ between probabilities on an even grid with spacing ``step``: Σ |F_p − F_q| · step."""
    return (p.cumsum(-1) - q.cumsum(-1)).abs().sum(-1) * step
