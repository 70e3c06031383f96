r"""VQ-VAE: an autoencoder whose code is a map of symbols.

.. math::
    z_q = e_k, \quad k = \arg\min_j \|z_e - e_j\|, \qquad
    L = \|x - f(z_q)\|^2 + \|\mathrm{sg}[z_e] - e\|^2 + β \|z_e - \mathrm{sg}[e]\|^2

The argmin has no gradient: the decoder's gradient at z_q is copied to z_e (straight-through). The second term moves the
code words, the third keeps the encoder close to them; as functions of (z_e, e) their gradients are −1 : β.

Van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning", eqs. (1)–(3).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class Codebook(nn.Module):
    """K code words of d numbers.

    Args:
        words: K.
        dim: d.
        beta: weight of the commitment term.
    """

    def __init__(self, words: int, dim: int, beta: float = 0.25) -> None:
        super().__init__()
        self.beta = beta
        self.table = nn.Parameter(torch.randn(words, dim) * dim**-0.5)

    def nearest(self, z: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        """Index of the closest code word at every place."""
        flat = z.movedim(1, -1).flatten(0, -2)
        return torch.cdist(flat, self.table).argmin(1).unflatten(0, (z.shape[0], *z.shape[2:]))

    def lookup(self, code: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        """Code words of a map of indices."""
        return F.embedding(code, self.table).movedim(-1, 1)

    def forward(
        self, z: Float[Tensor, "b d h w"]
    ) -> tuple[Float[Tensor, "b d h w"], Int[Tensor, "b h w"], Float[Tensor, ""]]:
        """Quantized z with z's gradient, the indices, and the codebook and commitment terms (mean over places)."""
        code = self.nearest(z)
        e = self.lookup(code)
        terms = (z.detach() - e).square() + self.beta * (z - e.detach()).square()
        return z + (e - z).detach(), code, terms.sum(1).mean()

    @torch.no_grad()
    def revive(self, z: Float[Tensor, "b d h w"], generator: torch.Generator | None = None) -> int:
        """Move words that no place of ``z`` uses onto random places; returns how many moved.

        A word that is never nearest gets no gradient and would stay dead (Williams et al. 2020, "Hierarchical quantized
        autoencoders", restarts in the same way).
        """
        used = torch.bincount(self.nearest(z).flatten(), minlength=len(self.table))
        dead = (used == 0).nonzero().flatten()
        flat = z.movedim(1, -1).flatten(0, -2)
        chosen = torch.randint(len(flat), (len(dead),), generator=generator, device=z.device)
        self.table[dead] = flat[chosen].to(self.table.dtype)
        return len(dead)


def perplexity(code: Int[Tensor, "*s"], words: int) -> Float[Tensor, ""]:
    """exp of the entropy of the used indices: how many code words are in use, from 1 to K."""
    p = torch.bincount(code.flatten(), minlength=words).double() / code.numel()
    return torch.special.entr(p).sum().exp()


def code_encoder(channels: int, dim: int, width: int = 64) -> nn.Sequential:
    """Pictures to (b, dim, h/4, w/4)."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.SiLU(),
        nn.Conv2d(width, width, 4, 2, 1),
        ResidualUnit(width),
        ResidualUnit(width),
        nn.SiLU(),
        nn.Conv2d(width, dim, 1),
    )


def code_decoder(dim: int, channels: int, width: int = 64) -> nn.Sequential:
    """(b, dim, h/4, w/4) to pictures; the mirror of ``code_encoder``."""
    return nn.Sequential(
        nn.Conv2d(dim, width, 3, 1, 1),
        ResidualUnit(width),
        ResidualUnit(width),
        nn.SiLU(),
        nn.ConvTranspose2d(width, width, 4, 2, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
    )


class ResidualUnit(nn.Module):
    """x + 1×1 (silu (3×3 (silu x))), as in the paper's section 4.1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width // 2, 3, 1, 1), nn.SiLU(), nn.Conv2d(width // 2, width, 1)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


class VQVAE(nn.Module):
    """Convolutional encoder and decoder around one codebook; a 28×28 digit becomes 7×7 symbols.

    Args:
        channels: of the pictures.
        words, dim: size of the codebook.
        width: of the convolutions.
        beta: commitment weight.
    """

    def __init__(self, channels: int, words: int = 64, dim: int = 16, width: int = 64, beta: float = 0.25) -> None:
        super().__init__()
        self.encoder, self.decoder = code_encoder(channels, dim, width), code_decoder(dim, channels, width)
        self.codebook = Codebook(words, dim, beta)

    def encode(self, x: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h4 w4"]:
        """The map of symbols."""
        return self.codebook.nearest(self.encoder(x))

    def decode(self, code: Int[Tensor, "b h4 w4"]) -> Float[Tensor, "b c h w"]:
        """Pictures of a map of symbols, in [−1, 1]."""
        return self.decoder(self.codebook.lookup(code)).clamp(-1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Reconstruction in [−1, 1]."""
        return self.decode(self.encode(x))

    def loss(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
        """Squared error per picture / number of places, plus the codebook and commitment terms, eq. (3)."""
        z, code, terms = self.codebook(self.encoder(x))
        places = code[0].numel()
        return (self.decoder(z) - x).square().flatten(1).sum(1).mean() / places + terms
