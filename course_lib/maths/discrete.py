r"""Grey values as symbols: quantization, and the units in which densities of pictures are compared.

A picture of d pixels with K levels has log-probability log P(v) in nats; bits per dimension is −log P(v) / (d log 2).
A density p of v + u, u uniform in [0, 1)^d, bounds it: E_u[log p(v + u)] ≤ log P(v) (Theis, van den Oord & Bethge
2016).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def quantize(x: Float[Tensor, "b 1 h w"], levels: int) -> Int[Tensor, "b h w"]:
    """Pictures in [−1, 1] to the nearest of ``levels`` evenly spaced grey values, as 0 … levels − 1."""
    return ((x.squeeze(1).clamp(-1, 1) + 1) * ((levels - 1) / 2)).round().long()


def dequantize(v: Int[Tensor, "b h w"], levels: int) -> Float[Tensor, "b 1 h w"]:
    """Symbols back to pictures in [−1, 1]: the inverse of ``quantize`` on its grid."""
    return (v.unsqueeze(1) * (2 / (levels - 1)) - 1).float()


def with_cell_noise(
    v: Int[Tensor, "b h w"], levels: int, generator: torch.Generator | None = None
) -> Float[Tensor, "b 1 h w"]:
    """x = 2 (v + u) / K − 1 in [−1, 1), u uniform in [0, 1)^d: pictures of K grey values for a density.

    log P(v) ≥ E_u[log p(x)] + d log(2 / K), the last term from the change of scale.
    """
    u = torch.rand(v.shape, generator=generator, device=v.device)
    return ((v + u) * (2 / levels) - 1).unsqueeze(1)


def bits_per_dim(nats: float | Tensor, dims: int) -> float | Tensor:
    """−log-likelihood in nats of a whole picture, as bits per pixel and channel."""
    return nats / (dims * math.log(2))


def sample_categorical(logits: Float[Tensor, "b k"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The symbol at which the cumulative distribution passes ``uniform`` (in [0, 1), as ``torch.rand`` draws it).

    Unlike ``torch.multinomial`` the random numbers come in from outside, so two ways of computing the same logits
    (naive and cached sampling) draw the same symbols.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    return (cumulative <= uniform.double().unsqueeze(-1)).sum(-1).clamp(max=logits.shape[-1] - 1)


def prefix_length(prefix: Int[Tensor, "n s"] | None, n: int, length: int) -> int:
    """How many symbols of each of n sequences are given before the rest is drawn: s, or 0 without a prefix.

    Raises:
        ValueError: the prefix is not n sequences of at most ``length`` symbols.
    """
    if prefix is None:
        return 0
    if prefix.ndim != 2 or len(prefix) != n or prefix.shape[1] > length:
        raise ValueError(f"a prefix of {n} sequences of at most {length} symbols, got shape {tuple(prefix.shape)}")
    return prefix.shape[1]
