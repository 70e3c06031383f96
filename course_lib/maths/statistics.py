"""Numbers with their uncertainty."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def mean_stderr(values: Float[Tensor, "n *s"]) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Mean of independent values (first axis) and its standard error."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def auroc(inside: Float[Tensor, " n"], outside: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve of an outlier score: P(outlier's score > inlier's score), ties count half.

    1: every outlier scores above every inlier; ½: the score says nothing; 0: it is perfectly wrong. Computed from all
    pairs (the Mann–Whitney statistic).
    """
    ranked = inside.sort().values
    below = torch.searchsorted(ranked, outside, right=False)
    not_above = torch.searchsorted(ranked, outside, right=True)
    return float((below + not_above).double().mean() / (2 * len(inside)))
