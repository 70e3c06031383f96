r"""VQ-VAE-2: a coarse and a fine map of symbols, and a learnt prior over both.

.. math:: p(x) = \sum_{t, b} p(t)\, p(b \mid t)\, p(x \mid t, b)

The top map carries layout, the bottom map detail given the top; each prior is a gated PixelCNN, the bottom one
seeing the top map through a convolutional conditioning stack.

Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with VQ-VAE-2", algorithms 1 and 2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.autoencoders.vqvae import Codebook, ResidualUnit, code_decoder, code_encoder
from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.raster import EmbeddedCodes


class VQVAE2(nn.Module):
    """Two levels: a picture of side s becomes a bottom map of side s/4 and a top map of side s/8 (s a multiple of 8).

    Args:
        channels: of the pictures.
        words, dim: size of each of the two codebooks.
        width: of the convolutions.
        beta: commitment weight.
    """

    def __init__(self, channels: int, words: int = 64, dim: int = 16, width: int = 64, beta: float = 0.25) -> None:
        super().__init__()
        self.encode_bottom = code_encoder(channels, width, width)
        self.encode_top = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 4, 2, 1), ResidualUnit(width), nn.SiLU(), nn.Conv2d(width, dim, 1)
        )
        self.decode_top = nn.Sequential(
            nn.Conv2d(dim, width, 3, 1, 1), ResidualUnit(width), nn.SiLU(), nn.ConvTranspose2d(width, dim, 4, 2, 1)
        )
        self.join = nn.Conv2d(width + dim, dim, 1)  # the bottom code is chosen given the decoded top
        self.up = nn.ConvTranspose2d(dim, dim, 4, 2, 1)
        self.top, self.bottom = Codebook(words, dim, beta), Codebook(words, dim, beta)
        self.decoder = code_decoder(2 * dim, channels, width)

    def features(self, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Encoder outputs: bottom features (b, width, h/4, w/4) and the top's z_e (b, dim, h/8, w/8)."""
        if x.shape[-1] % 8 or x.shape[-2] % 8:
            raise ValueError(f"two levels need sides that are multiples of 8, got {tuple(x.shape[-2:])}")
        below = self.encode_bottom(x)
        return below, self.encode_top(below)

    def encode(self, x: Float[Tensor, "b c h w"]) -> tuple[Int[Tensor, "b h8 w8"], Int[Tensor, "b h4 w4"]]:
        """Top and bottom maps of symbols."""
        below, z_top = self.features(x)
        top = self.top.nearest(z_top)
        z_bottom = self.join(torch.cat([below, self.decode_top(self.top.lookup(top))], 1))
        return top, self.bottom.nearest(z_bottom)

    def decode(self, top: Int[Tensor, "b h8 w8"], bottom: Int[Tensor, "b h4 w4"]) -> Float[Tensor, "b c h w"]:
        """Pictures of both maps, in [−1, 1]."""
        return self._decode(self.top.lookup(top), self.bottom.lookup(bottom)).clamp(-1, 1)

    def _decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.decoder(torch.cat([self.up(top), bottom], 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Reconstruction in [−1, 1]."""
        return self.decode(*self.encode(x))

    def loss(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
        """Squared error per picture / number of bottom places, plus both levels' codebook and commitment terms."""
        below, z_top = self.features(x)
        top, _, top_terms = self.top(z_top)
        bottom, code, bottom_terms = self.bottom(self.join(torch.cat([below, self.decode_top(top)], 1)))
        places = code[0].numel()
        error = (self._decode(top, bottom) - x).square().flatten(1).sum(1).mean()
        return error / places + top_terms + bottom_terms

    @torch.no_grad()
    def revive(self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> int:
        """``Codebook.revive`` on both levels."""
        below, z_top = self.features(x)
        moved = self.top.revive(z_top, generator)
        top = self.top.lookup(self.top.nearest(z_top))
        return moved + self.bottom.revive(self.join(torch.cat([below, self.decode_top(top)], 1)), generator)


class TwoLevelPrior(nn.Module):
    """p(t, b) = p(t) p(b | t) over the maps of a ``VQVAE2``, both factors gated PixelCNNs.

    The bottom prior sees the whole top map at every gate, brought to its size by a conditioning stack that is trained
    with it.

    Args:
        words: of each codebook.
        width, layers: of the two gated PixelCNNs.
        classes: labels to condition both on; 0 = none.
    """

    def __init__(self, words: int, width: int = 32, layers: int = 5, classes: int = 0) -> None:
        super().__init__()
        self.top = GatedPixelCNN(EmbeddedCodes(words, width), width, layers, classes)
        self.bottom = GatedPixelCNN(EmbeddedCodes(words, width), width, layers, classes, context=width)
        self.stack = nn.Sequential(
            EmbeddedCodes(words, width),
            nn.Conv2d(width, width, 3, 1, 1),
            ResidualUnit(width),
            ResidualUnit(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
        )

    def log_probs(
        self, top: Int[Tensor, "b h w"], bottom: Int[Tensor, "b h2 w2"], y: Int[Tensor, " b"] | None = None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """log p(t | y) and log p(b | t, y) in nats per map."""
        return self.top.log_prob(top, y), self.bottom.log_prob(bottom, y, self.stack(top))

    def log_prob(
        self, top: Int[Tensor, "b h w"], bottom: Int[Tensor, "b h2 w2"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b"]:
        """log p(t, b | y) in nats per picture."""
        return sum(self.log_probs(top, bottom, y))

    def loss(self, batch: tuple[Tensor, ...]) -> Float[Tensor, ""]:
        """−log p in nats per picture, averaged; the batch is ``(top, bottom)`` or ``(top, bottom, y)``."""
        return -self.log_prob(*batch).mean()

    @torch.no_grad()
    def sample(
        self,
        n: int,
        shape: tuple[int, int],
        y: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> tuple[Int[Tensor, "n h w"], Int[Tensor, "n h2 w2"]]:
        """n pairs of maps, the top one of the given (h, w): first the top map, then the bottom map given it."""
        top = self.top.sample(n, shape, y, generator, cached)
        size = (2 * shape[0], 2 * shape[1])
        return top, self.bottom.sample(n, size, y, generator, cached, context=self.stack(top))
