r"""What every autoregressive picture model shares: the product rule over pixels, and drawing them one by one.

.. math:: \log p(v) = \sum_i \log p(v_i \mid v_1, …, v_{i-1}), \qquad v_i \in \{0, …, K-1\}

in raster order. A model only has to supply ``logits(v) -> (b, K, h, w)`` in which position i sees positions before i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.maths.discrete import sample_categorical

LogitsAt = Callable[[Int[Tensor, "b h w"], int, int], Float[Tensor, "b k"]]


class ScaledPixels(nn.Module):
    """Grey values as one channel in [−1, 1]: neighbouring levels look alike."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels, self.channels = levels, 1
        # a buffer, so that it follows the model's device and dtype
        self.register_buffer("grey", torch.linspace(-1, 1, levels), persistent=False)

    def forward(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.grey[v].unsqueeze(1)


class EmbeddedCodes(nn.Module):
    """A learnt vector per symbol: codes of a codebook have no order."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.levels, self.channels = levels, channels
        self.table = nn.Embedding(levels, channels)

    def forward(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
        return self.table(v).movedim(-1, 1)


def raster_log_prob(logits: Float[Tensor, "b k h w"], v: Int[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Σ_i log p(v_i | v_<i) in nats."""
    return -F.cross_entropy(logits, v, reduction="none").flatten(1).sum(1)


@torch.no_grad()
def sample_raster(
    logits_at: LogitsAt,
    v: Int[Tensor, "b h w"],
    known: Bool[Tensor, "h w"] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b h w"]:
    """Fill ``v`` pixel by pixel from the model's conditionals.

    Args:
        logits_at: ``logits_at(v, row, column) -> (b, K)``; naive (see ``naive``) or a model's cached one. It is called
            at every position in raster order, known ones included, so that caches see them.
        v: symbols; values at unknown positions are ignored and overwritten in a copy.
        known: positions to keep (completion); none by default.
        generator: for the uniforms, one per position, drawn in raster order.
    """
    v = v.clone()
    b, h, w = v.shape
    uniforms = torch.rand(h, w, b, generator=generator, device=v.device)
    for row, column in raster(h, w):
        logits = logits_at(v, row, column)
        if known is None or not known[row, column]:
            v[:, row, column] = sample_categorical(logits, uniforms[row, column])
    return v


def naive(logits: Callable[[Int[Tensor, "b h w"]], Float[Tensor, "b k h w"]]) -> LogitsAt:
    """Recompute the whole picture for every pixel: h·w full passes."""
    return lambda v, row, column: logits(v)[:, :, row, column]


def raster(h: int, w: int) -> Iterator[tuple[int, int]]:
    """(row, column) in raster order."""
    return ((row, column) for row in range(h) for column in range(w))
