r"""Generative adversarial network: minimax and non-saturating.

.. math:: \min_G \max_D\; E_x[\log D(x)] + E_z[\log(1 - D(G(z)))], \qquad z \sim N(0, I)

Goodfellow et al. 2014, "Generative adversarial nets", eq. (1) and algorithm 1; the non-saturating loss of section 3,
G minimizes −E log D(G(z)), is the default. Other games, penalties and augmentations are passed as functions; a
condition (label) is any further tensor of the batch and goes to both networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from course_lib.core.player import Batch
from course_lib.gans.networks import mlp_discriminator, mlp_generator
from course_lib.gans.players import Game, Regularizer, duel, noise, split_batch
from course_lib.maths.adversarial import (
    cross_entropy_discriminator_loss,
    non_saturating_generator_loss,
    saturating_generator_loss,
)

MINIMAX = Game(cross_entropy_discriminator_loss, saturating_generator_loss)
NON_SATURATING = Game(cross_entropy_discriminator_loss, non_saturating_generator_loss)


class GAN(nn.Module):
    """Generator, discriminator and the game they play.

    Args:
        generator: codes (b, latent) and conditions to data (b, …).
        discriminator: data (b, …) and conditions to logits or critic values.
        latent: dimension of z.
        game: ``NON_SATURATING``, ``MINIMAX``, or the ``Game`` of another paper file.
        regularizers: terms added to the discriminator's loss, e.g. ``r1(gamma)`` or ``gradient_penalty()``.
        augment: what data *and* fakes pass through before the discriminator sees them; must be differentiable.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        game: Game = NON_SATURATING,
        regularizers: Sequence[Regularizer] = (),
        augment: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        self.game, self.regularizers, self.augment = game, tuple(regularizers), augment

    def discriminator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """The game's loss on data and as many fresh fakes, plus the regularizers."""
        x, conditions = split_batch(batch)
        with torch.no_grad():
            fake = self.sample(len(x), *conditions)
        real, fake = self.augment(x), self.augment(fake)

        def critic(x: Tensor) -> Tensor:
            return self.discriminator(x, *conditions)

        loss = self.game.discriminator(critic(real), critic(fake))
        for regularizer in self.regularizers:
            loss = loss + regularizer(critic, real, fake, step)
        return loss

    def generator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """The game's loss on as many fresh fakes as the batch has examples."""
        x, conditions = split_batch(batch)
        fake = self.augment(self.sample(len(x), *conditions))
        return self.game.generator(self.discriminator(fake, *conditions))

    players = duel  # [discriminator, generator] for ``fit``

    def sample(self, n: int, *conditions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """G(z) for n codes, under one condition each if the generator takes any."""
        return self.generator(noise(self, n, self.latent, generator), *conditions)


def mlp_gan(
    dims: int = 2,
    latent: int = 2,
    hidden: int = 128,
    game: Game = NON_SATURATING,
    regularizers: Sequence[Regularizer] = (),
) -> GAN:
    """For points in the plane: three hidden layers in each network."""
    return GAN(mlp_generator(latent, dims, hidden), mlp_discriminator(dims, hidden), latent, game, regularizers)
