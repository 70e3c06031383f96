r"""Kernel Inception Distance (Bińkowski et al. 2018): the squared maximum mean discrepancy of features.

.. math::
    KID = \frac{\sum_{i ≠ j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i ≠ j} k(y_i, y_j)}{m(m-1)}
          - \frac{2 \sum_{i, j} k(x_i, y_j)}{nm}, \qquad k(x, y) = \Big(\frac{x \cdot y}{d} + 1\Big)^3

Without the diagonals i = j it is unbiased at every sample size (and may be negative), which FID is not.

The paper averages over random subsets of 1,000; here the sum runs over all pairs, which has the same expectation and
less variance. The standard error is the jackknife's, which leaves out one sample at a time (Efron & Stein 1981): on
average it is not below the true one. Where p = q it is about √2 too large, because there the leading term of the
variance vanishes. The spread over subsets that papers print after "±" is not a standard error.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import feature_pair


class KID(NamedTuple):
    """The estimate and its standard error."""

    value: float
    stderr: float


def polynomial_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """(x·y/d + 1)³."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(real_features: Float[Tensor, "n d"], fake_features: Float[Tensor, "m d"], chunk: int = 1024) -> KID:
    """Unbiased squared MMD over all pairs, with its jackknife standard error.

    Args:
        real_features, fake_features: at least 3 rows each; n and m may differ.
        chunk: rows of the kernel matrix held at a time.

    Raises:
        ValueError: widths differ, too few samples, NaN or infinity.
    """
    x, y = feature_pair(real_features, fake_features, at_least=3)
    n, m = len(x), len(y)
    within_x, within_y = _row_sums(x, x, chunk) - _diagonal(x), _row_sums(y, y, chunk) - _diagonal(y)
    across_x, across_y = _row_sums(x, y, chunk), _row_sums(y, x, chunk)
    mean_xx, mean_yy = within_x.sum() / (n * (n - 1)), within_y.sum() / (m * (m - 1))
    mean_xy = across_x.sum() / (n * m)
    value = mean_xx + mean_yy - 2 * mean_xy
    without_x = _leave_one_out(within_x) + mean_yy - 2 * (across_x.sum() - across_x) / ((n - 1) * m)
    without_y = _leave_one_out(within_y) + mean_xx - 2 * (across_y.sum() - across_y) / ((m - 1) * n)
    variance = sum((len(v) - 1) / len(v) * (v - v.mean()).square().sum() for v in (without_x, without_y))
    return KID(value.item(), variance.sqrt().item())


def _row_sums(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], chunk: int) -> Float[Tensor, " n"]:
    return torch.cat([polynomial_kernel(rows, y).sum(1) for rows in x.split(chunk)])


def _diagonal(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """k(x_i, x_i)."""
    return (x.square().mean(1) + 1) ** 3


def _leave_one_out(row_sums: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Mean of k over i ≠ j among all but one sample, for each sample left out: it took part in a row and a column."""
    n = len(row_sums)
    return (row_sums.sum() - 2 * row_sums) / ((n - 1) * (n - 2))
