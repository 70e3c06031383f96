r"""Inception Score (Salimans et al. 2016): what a picture tells about its class, as a classifier sees it.

.. math::
    IS = \exp \mathbb E_x\, KL\big(p(y \mid x) ‖ p(y)\big) = \exp I(x; y)
       = \exp\big(H(y) - H(y \mid x)\big), \qquad p(y) = \mathbb E_x\, p(y \mid x)

From 1 (the classifier says the same of every picture) to the number of classes (sure of every picture, all classes
equally often). No real pictures enter, so memorized or collapsed classes go unseen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.maths.divergences import kl
from course_lib.metrics.inputs import feature_matrix


class InceptionScore(NamedTuple):
    """Mean over the splits and their standard deviation (NaN for one split)."""

    value: float
    std: float


def mutual_information(probs: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """I(x; y) in nats between a picture drawn from the n and its class: between 0 and log k.

    Raises:
        ValueError: rows are not probabilities.
    """
    p = feature_matrix("class probabilities", probs)
    if not p.is_meta and ((p < 0).any() or (p.sum(1) - 1).abs().max() > 1e-3):
        raise ValueError(
            "rows must be probabilities: ≥ 0 with sum 1; apply softmax to logits. "
            f"Got a smallest value of {p.min().item():.3g} and sums up to {p.sum(1).max().item():.3g}"
        )
    p = p / p.sum(1, keepdim=True)  # float32 softmax sums to 1 ± 1e-7
    return kl(p, p.mean(0).expand_as(p)).mean()


def inception_score(probs: Float[Tensor, "n k"], splits: int = 10) -> InceptionScore:
    """exp I(x; y), averaged over ``splits`` equal parts as in the paper (10 of 5,000 pictures).

    A part of few pictures has a noisy p(y), which lowers its score: compare at equal sizes, or use ``splits=1``.

    Args:
        probs: p(y | x), one row per picture, in random order.
        splits: number of parts.

    Raises:
        ValueError: rows are not probabilities, or there are fewer of them than splits.
    """
    if not 1 <= splits <= len(probs):
        raise ValueError(f"{len(probs)} pictures cannot be split into {splits} parts")
    scores = torch.stack([mutual_information(part).exp() for part in probs.tensor_split(splits)])
    return InceptionScore(scores.mean().item(), scores.std().item() if splits > 1 else float("nan"))
