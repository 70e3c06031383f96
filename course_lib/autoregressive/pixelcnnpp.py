r"""PixelCNN++: a discretized mixture of logistics instead of a softmax over 256 levels.

.. math:: P(v) = \sum_m π_m \left[σ\!\left(\tfrac{v + ½ - μ_m}{s_m}\right) - σ\!\left(\tfrac{v - ½ -
μ_m}{s_m}\right)\right]

with −½ and +½ replaced by −∞ and +∞ at the darkest and brightest level. Levels that are close get similar probabilities
from the start, and the head has 3M outputs instead of K.

Salimans, Karpathy, Chen & Kingma 2017, "PixelCNN++", eq. (2). The body here is the gated PixelCNN's.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.gated_pixelcnn import GatedStacks
from course_lib.autoregressive.pixelcnn import pointwise
from course_lib.autoregressive.raster import LogitsAt, ScaledPixels, sample_raster


def logistic_mixture_log_prob(
    params: Float[Tensor, "b m3 *s"], v: Int[Tensor, "b *s"], levels: int
) -> Float[Tensor, "b *s"]:
    """log P(v) of each pixel under its mixture, in nats.

    Args:
        params: M logits of the weights, M means and M log-scales, the latter two in units of half the range (a
            picture's grey values are spread over [−1, 1]).
        v: levels 0 … levels − 1.
        levels: number of grey values K.
    """
    params = params.to(torch.promote_types(params.dtype, torch.float32))  # bfloat16 cannot tell 256 levels apart
    weight, mean, log_scale = params.chunk(3, 1)
    x = v.unsqueeze(1).to(params.dtype) * (2 / (levels - 1)) - 1
    half = 1 / (levels - 1)
    precision = (-log_scale.clamp(min=-7.0)).exp()
    upper = (x + half - mean) * precision
    lower = (x - half - mean) * precision
    # log [σ(u) − σ(l)] = log σ(u) + log σ(−l) + log(1 − e^{l − u}): exact, and no difference of nearly equal numbers
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    level = v.unsqueeze(1)
    log_p = torch.where(level == 0, F.logsigmoid(upper), torch.where(level == levels - 1, F.logsigmoid(-lower), inside))
    return (weight.log_softmax(1) + log_p).logsumexp(1)


class PixelCNNpp(nn.Module):
    """Gated stacks with a logistic-mixture head, for grey pictures.

    Args:
        levels: grey values K.
        mixtures: logistics M.
        width, layers, first: see ``GatedStacks``.
    """

    def __init__(self, levels: int = 256, mixtures: int = 5, width: int = 48, layers: int = 8, first: int = 7) -> None:
        super().__init__()
        self.levels, self.mixtures = levels, mixtures
        self.body = GatedStacks(ScaledPixels(levels), width, layers, first=first)
        self.head = nn.Conv2d(width, 3 * mixtures, 1)
        with torch.no_grad():  # means spread over the range, scales a tenth of it
            self.head.bias[mixtures : 2 * mixtures] = torch.linspace(-0.9, 0.9, mixtures)
            self.head.bias[2 * mixtures :] = math.log(0.2)

    def params(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, "b m3 h w"]:
        """Mixture parameters of every pixel."""
        return self.head(self.body(v).relu())

    def log_prob(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, " b"]:
        """Exact log-probability of each picture of levels, in nats."""
        return logistic_mixture_log_prob(self.params(v), v, self.levels).flatten(1).sum(1)

    def loss(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """−log p in nats per picture, averaged over the batch."""
        return -self.log_prob(v).mean()

    def level_logits(self, params: Float[Tensor, "b m3"]) -> Float[Tensor, "b k"]:
        """log P of each of the K levels, from one pixel's mixture."""
        every = torch.arange(self.levels, device=params.device).expand(len(params), -1)
        return logistic_mixture_log_prob(params.unsqueeze(-1).expand(-1, -1, self.levels), every, self.levels)

    def incremental(self, v: Int[Tensor, "b h w"]) -> LogitsAt:
        """Log-probabilities of the levels at one position; see ``GatedStacks.incremental``."""
        features_at = self.body.incremental(v)
        return lambda v, row, column: self.level_logits(pointwise(self.head, features_at(v, row, column).relu()))

    @torch.no_grad()
    def sample(
        self, n: int, shape: tuple[int, int], generator: torch.Generator | None = None, cached: bool = True
    ) -> Int[Tensor, "n h w"]:
        """n pictures of levels of the given (h, w)."""
        v = torch.zeros(n, *shape, dtype=torch.long, device=self.head.bias.device)
        return self.complete(v, torch.zeros(shape, dtype=torch.bool), generator, cached)

    @torch.no_grad()
    def complete(
        self, v: Int[Tensor, "b h w"], known: Tensor, generator: torch.Generator | None = None, cached: bool = True
    ) -> Int[Tensor, "b h w"]:
        """Draw the pixels where ``known`` (h, w) is False, given those before them."""
        recomputed = lambda u, row, column: self.level_logits(self.params(u)[:, :, row, column])  # noqa: E731
        return sample_raster(self.incremental(v) if cached else recomputed, v, known, generator)
