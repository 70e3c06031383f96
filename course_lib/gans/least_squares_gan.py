r"""Least-squares GAN (not the loss-sensitive GAN, which is also called "LSGAN").

.. math:: \min_D \tfrac12 E_x[(D(x) - 1)^2] + \tfrac12 E_z[D(G(z))^2], \qquad \min_G \tfrac12 E_z[(D(G(z)) - 1)^2]

Regression to 1 on data and 0 on fakes. A fake that D already takes for real, but far from the boundary (D ≫ 1), is
pulled back, where the cross-entropy's gradient has died. With other targets (b − c = 1, b − a = 2) the generator
minimizes Pearson's χ²(p + q ‖ 2q).

Mao, Li, Xie, Lau, Wang & Smolley 2017, "Least squares generative adversarial networks", eq. (9); theorem: eq. (7).
"""

from __future__ import annotations

from torch import nn

from course_lib.gans.gan import GAN
from course_lib.gans.players import Game
from course_lib.maths.adversarial import least_squares_discriminator_loss, least_squares_generator_loss

LEAST_SQUARES = Game(least_squares_discriminator_loss, least_squares_generator_loss)


def least_squares_gan(generator: nn.Module, discriminator: nn.Module, latent: int) -> GAN:
    """A GAN whose discriminator regresses to 1 and 0 (no sigmoid)."""
    return GAN(generator, discriminator, latent, LEAST_SQUARES)
