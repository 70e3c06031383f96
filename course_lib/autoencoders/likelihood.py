"""What a decoder's output means: p(x | z) as Bernoulli or Gaussian, for pictures in [−1, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Bernoulli:
    """Binary pictures: pixels are ±1, the decoder's output is the logit of P(x = +1)."""

    def log_prob(self, out: Float[Tensor, "*b c h w"], x: Float[Tensor, "*#b c h w"]) -> Float[Tensor, "*b"]:
        """log p(x | z) in nats, summed over pixels. Grey values in between give the expected log-probability."""
        # log σ(a) for x = +1, log σ(−a) for x = −1, without forming σ
        return -F.binary_cross_entropy_with_logits(out, ((x + 1) / 2).expand_as(out), reduction="none").sum(
            (-3, -2, -1)
        )

    def mean(self, out: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """E[x | z] in [−1, 1]."""
        return torch.tanh(out / 2)

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x ~ p(x | z)."""
        uniform = torch.rand(out.shape, generator=generator, device=out.device, dtype=out.dtype)
        return torch.where(uniform < out.sigmoid(), 1.0, -1.0).to(out.dtype)


@dataclass(frozen=True)
class Gaussian:
    """Grey or coloured pictures: independent Gaussian pixels around the decoder's output, with a fixed deviation.

    Attributes:
        sigma: standard deviation of a pixel, in units of the picture's range [−1, 1]. It weighs reconstruction
            against KL: halving it makes an error of the same size four times as expensive.
    """

    sigma: float = 0.1

    def log_prob(self, out: Float[Tensor, "*b c h w"], x: Float[Tensor, "*#b c h w"]) -> Float[Tensor, "*b"]:
        """log-density in nats, summed over pixels."""
        constant = 0.5 * math.log(2 * math.pi) + math.log(self.sigma)
        return -(0.5 * ((x - out) / self.sigma).square() + constant).sum((-3, -2, -1))

    def mean(self, out: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        return out.clamp(-1, 1)

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x ~ p(x | z)."""
        return out + self.sigma * torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)
