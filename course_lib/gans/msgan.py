r"""Mode-seeking GAN: two codes must not give the same picture.

.. math:: L_{ms} = \Big( \frac{d(G(y, z_1), G(y, z_2))}{d(z_1, z_2)} \Big)^{-1} \quad \text{(minimized by G)}

A term that any GAN's generator loss can carry, invented for conditional ones, where the condition drowns the noise and
G learns to ignore z. The discriminator does not change.

Mao, Lee, Tseng, Ma & Yang 2019, "Mode seeking generative adversarial networks for diverse image synthesis", eq.
(3)-(4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.core.player import Batch
from course_lib.gans.gan import GAN
from course_lib.gans.players import duel, noise, split_batch
from course_lib.maths.adversarial import mode_seeking_loss, mode_seeking_ratio


class MSGAN(nn.Module):
    """A GAN whose generator is also paid for diversity.

    Args:
        gan: conditional or not.
        weight: λ_ms, the paper's is 1.
    """

    def __init__(self, gan: GAN, weight: float = 1.0) -> None:
        super().__init__()
        self.gan, self.weight = gan, weight

    @property
    def generator(self) -> nn.Module:
        return self.gan.generator

    @property
    def discriminator(self) -> nn.Module:
        return self.gan.discriminator

    @property
    def latent(self) -> int:
        return self.gan.latent

    def discriminator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """The GAN's own."""
        return self.gan.discriminator_loss(batch, step)

    def generator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """The GAN's own + λ_ms L_ms, for pairs of fresh codes under the batch's conditions."""
        return self.gan.generator_loss(batch, step) + self.weight * mode_seeking_loss(self.ratio(batch))

    def ratio(self, batch: Batch) -> Tensor:
        """d(x₁, x₂) / d(z₁, z₂), (b,), for two fresh codes under each condition of the batch."""
        x, conditions = split_batch(batch)
        z1, z2 = (noise(self, len(x), self.latent) for _ in range(2))
        return mode_seeking_ratio(self.generator(z1, *conditions), self.generator(z2, *conditions), z1, z2)

    players = duel  # [discriminator, generator] for ``fit``

    def sample(self, n: int, *conditions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """G(z) for n codes, under one condition each if the generator takes any."""
        return self.gan.sample(n, *conditions, generator=generator)
