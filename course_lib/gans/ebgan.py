r"""Energy-based GAN: the discriminator is an autoencoder, its error the energy.

.. math::
    E(x) &= \| Dec(Enc(x)) - x \|^2 / d \\
    L_D &= E_x[E(x)] + E_z[\max(0,\; m - E(G(z)))], \qquad
    L_G = E_z[E(G(z))] + w\, f_{PT}(Enc(G(z))) \\
    f_{PT}(S) &= \frac{1}{N(N-1)} \sum_i \sum_{j \ne i} \Big( \frac{S_i^\top S_j}{\|S_i\| \|S_j\|} \Big)^2

Zhao, Mathieu & LeCun 2017, "Energy-based generative adversarial networks", eq. (1), (2) and (4). The pulling-away term
keeps a batch of fakes from collapsing onto one point. What the slides praise: the autoencoder can be trained on data
alone before any generator exists (``pretraining``); it then starts the game knowing where the data are.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.core.player import Player
from course_lib.gans.networks import conv_generator, leaky, mlp_generator
from course_lib.gans.players import duel, noise
from course_lib.maths.adversarial import energy_margin_loss, pulling_away
from course_lib.nn.conv import conv_decoder, conv_encoder
from course_lib.nn.mlp import mlp


class Energy(nn.Module):
    """Mean squared reconstruction error of an autoencoder.

    Args:
        encoder: data (b, …) to codes (b, d).
        decoder: codes (b, d) to data (b, …).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Float[Tensor, "b *shape"]) -> tuple[Float[Tensor, " b"], Float[Tensor, "b d"]]:
        """Energies, and the codes S that the pulling-away term compares."""
        codes = self.encoder(x)
        return (self.decoder(codes) - x).square().flatten(1).mean(1), codes


class EBGAN(nn.Module):
    """Generator and energy.

    Args:
        generator: codes (b, latent) to data (b, …).
        energy: data (b, …) to energies (b,) and codes (b, d).
        latent: dimension of z.
        margin: m, the energy above which a fake is bad enough. Well above the energy that the data have when the game
            starts: fakes of energy about m can stay where they are.
        weight: w of the pulling-away term; 0 = the plain EBGAN.
    """

    def __init__(
        self, generator: nn.Module, energy: nn.Module, latent: int, margin: float = 1.0, weight: float = 0.1
    ) -> None:
        super().__init__()
        if margin <= 0:
            raise ValueError(f"the margin must be positive, got {margin}")
        self.generator, self.discriminator, self.latent = generator, energy, latent
        self.margin, self.weight = margin, weight

    def energy(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
        """E(x) ≥ 0, mean squared error per dimension."""
        return self.discriminator(x)[0]

    def pretraining(self, lr: float = 1e-3) -> Player:
        """The autoencoder alone on data: ``fit(model.pretraining(), …)`` before ``fit(model.players(), …)``."""
        return Player("autoencoder", self.discriminator, lambda batch, step: self.energy(batch).mean(), lr)

    def discriminator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """E(x) + max(0, m − E(G(z)))."""
        with torch.no_grad():
            fake = self.sample(len(batch))
        return energy_margin_loss(self.energy(batch), self.energy(fake), self.margin)

    def generator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """E(G(z)) + w f_PT."""
        energy, codes = self.discriminator(self.sample(len(batch)))
        return energy.mean() + self.weight * pulling_away(codes)

    def players(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        repeats: int = 1,
        discriminator_lr: float | None = None,
    ) -> list[Player]:
        """[discriminator, generator] for ``fit``; see ``duel``."""
        return duel(self, lr, betas, repeats, discriminator_lr)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *shape"]:
        """G(z) for n codes."""
        return self.generator(noise(self, n, self.latent, generator))


def mlp_ebgan(
    dims: int = 2, latent: int = 2, hidden: int = 128, code: int = 8, margin: float = 0.5, weight: float = 3.0
) -> EBGAN:
    """For points. The pulling-away term compares directions of codes, so it needs several numbers per code (one number
    has cosine ±1 with any other); that such an autoencoder could copy everything is what the margin prevents."""
    energy = Energy(mlp([dims, hidden, hidden, code], leaky), mlp([code, hidden, hidden, dims], leaky))
    return EBGAN(mlp_generator(latent, dims, hidden), energy, latent, margin, weight)


def conv_ebgan(
    channels: int,
    size: int,
    latent: int = 64,
    width: int = 32,
    code: int = 32,
    margin: float = 0.5,
    weight: float = 0.1,
) -> EBGAN:
    """For pictures (side a multiple of 4) with values in [−1, 1]: the margin has the unit of their squares."""
    energy = Energy(conv_encoder(channels, size, code, width), conv_decoder(code, channels, size, width))
    return EBGAN(conv_generator(latent, channels, size, width), energy, latent, margin, weight)
