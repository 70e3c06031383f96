r"""PixelCNN: all conditionals of a picture at once, by masked convolutions.

.. math:: p(v) = \prod_i p(v_i \mid v_{<i}), \qquad \text{logits} = \text{CNN}_{\text{masked}}(v)

Van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks", section 3 (PixelCNN, figure 5:
residual block). Its stack of masks never sees a wedge to the right above the pixel: the blind spot that the gated model
removes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.raster import LogitsAt, naive, raster_log_prob, sample_raster
from course_lib.nn.masked import MaskedConv2d


class MaskedResidual(nn.Module):
    """h + W₂ relu(masked 3×3 (relu(W₁ relu h))): 1×1 down to half the width, masked 3×3, 1×1 up again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width // 2, 1)
        self.masked = MaskedConv2d(width // 2, width // 2, 3, centre=True)
        self.up = nn.Conv2d(width // 2, width, 1)

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return h + self.up(self.masked(self.down(h.relu()).relu()).relu())


class PixelCNN(nn.Module):
    """Pictures of ``levels`` symbols.

    Args:
        embed: symbols (b, h, w) to (b, embed.channels, h, w), pointwise; see ``raster.ScaledPixels`` and
            ``EmbeddedCodes``.
        width: channels inside.
        layers: masked 3×3 residual blocks after the 7×7 first layer.
    """

    def __init__(self, embed: nn.Module, width: int = 64, layers: int = 7) -> None:
        super().__init__()
        self.embed, self.levels = embed, embed.levels
        self.first = MaskedConv2d(embed.channels, width, 7, centre=False)
        self.blocks = nn.ModuleList(MaskedResidual(width) for _ in range(layers))
        self.head = nn.ModuleList([nn.Conv2d(width, width, 1), nn.Conv2d(width, self.levels, 1)])

    def logits(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of p(v_i | v_<i) at every position."""
        h = self.first(self.embed(v))
        for block in self.blocks:
            h = block(h)
        return self.head[1](self.head[0](h.relu()).relu())

    def log_prob(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, " b"]:
        """Exact log-probability of each picture, in nats."""
        return raster_log_prob(self.logits(v), v)

    def loss(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """−log p in nats per picture, averaged over the batch."""
        return -self.log_prob(v).mean()

    def incremental(self, v: Int[Tensor, "b h w"]) -> LogitsAt:
        """Logits of one position from features that earlier positions left in every layer's cache.

        Each position costs one small matrix product a layer instead of a pass over the whole picture.
        """
        pads = [self.first.radius, *(block.masked.radius for block in self.blocks)]
        widths = [self.embed.channels, *(block.down.out_channels for block in self.blocks)]
        b, height, width = v.shape
        zeros = self.first.bias.new_zeros
        caches = [zeros(b, c, height + r, width + 2 * r) for c, r in zip(widths, pads, strict=True)]

        def logits_at(v: Tensor, row: int, column: int) -> Tensor:
            r = pads[0]
            before = (row, column - 1) if column else (row - 1, v.shape[2] - 1)
            if before[0] >= 0:
                new = self.embed(v[:, before[0] : before[0] + 1, before[1] : before[1] + 1])
                caches[0][:, :, before[0] + r, before[1] + r] = new[:, :, 0, 0]
            h = self.first.at(caches[0], row, column)
            for block, cache, r in zip(self.blocks, caches[1:], pads[1:], strict=True):
                cache[:, :, row + r, column + r] = pointwise(block.down, h.relu()).relu()
                h = h + pointwise(block.up, block.masked.at(cache, row, column).relu())
            return pointwise(self.head[1], pointwise(self.head[0], h.relu()).relu())

        return logits_at

    @torch.no_grad()
    def sample(
        self,
        n: int,
        shape: tuple[int, int],
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Int[Tensor, "n h w"]:
        """n pictures of the given (h, w); ``cached=False`` recomputes everything for every pixel (to compare)."""
        v = torch.zeros(n, *shape, dtype=torch.long, device=self.first.bias.device)
        return self.complete(v, torch.zeros(shape, dtype=torch.bool), generator, cached)

    @torch.no_grad()
    def complete(
        self,
        v: Int[Tensor, "b h w"],
        known: Tensor,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Int[Tensor, "b h w"]:
        """Draw the pixels where ``known`` (h, w) is False, given those before them."""
        logits_at: Callable = self.incremental(v) if cached else naive(self.logits)
        return sample_raster(logits_at, v, known, generator)


def pointwise(conv: nn.Conv2d, x: Float[Tensor, "b c"]) -> Float[Tensor, "b d"]:
    """A 1×1 convolution at one position."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)
