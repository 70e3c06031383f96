r"""Auxiliary-classifier GAN: the discriminator names the class instead of being told it.

.. math::
    L_S &= E[\log D(x)] + E[\log(1 - D(G(z, c)))] \\
    L_C &= E[\log P(c_x \mid x)] + E[\log P(c \mid G(z, c))]

D maximizes L_S + L_C, G maximizes L_C − L_S (here with the non-saturating form of L_S). Both heads share a trunk.

Odena, Olah & Shlens 2017, "Conditional image synthesis with auxiliary classifier GANs", eq. (2)-(3). G is paid for
being easy to classify, so classes that overlap are pushed apart: samples keep off the borders that real data cross.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans.gan import NON_SATURATING
from course_lib.gans.networks import Heads, Labelled, Norm, conv_generator, conv_trunk, trunk_features
from course_lib.gans.players import Game, Regularizer, duel, noise

LabelledBatch = tuple[Float[Tensor, "b *shape"], Int[Tensor, " b"]]


class ACGAN(nn.Module):
    """Conditional generator, and a discriminator with a second head.

    Args:
        generator: codes (b, latent) and labels (b,) to data (b, …).
        discriminator: data (b, …) to (logit (b,), class logits (b, classes)).
        latent: dimension of z.
        weight: of −L_C in both losses.
        game: for L_S.
        regularizers: terms added to the discriminator's loss; their critic is the first head.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        weight: float = 1.0,
        game: Game = NON_SATURATING,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        self.weight, self.game, self.regularizers = weight, game, tuple(regularizers)

    def discriminator_loss(self, batch: LabelledBatch, step: int = 0) -> Float[Tensor, ""]:
        """−(L_S + L_C)."""
        x, y = batch
        with torch.no_grad():
            fake = self.sample(y)
        real_logit, real_class = self.discriminator(x)
        fake_logit, fake_class = self.discriminator(fake)
        loss = self.game.discriminator(real_logit, fake_logit)
        loss = loss + self.weight * (F.cross_entropy(real_class, y) + F.cross_entropy(fake_class, y))
        for regularizer in self.regularizers:
            loss = loss + regularizer(lambda x: self.discriminator(x)[0], x, fake, step)
        return loss

    def generator_loss(self, batch: LabelledBatch, step: int = 0) -> Float[Tensor, ""]:
        """L_S − L_C, on the batch's labels."""
        y = batch[1]
        logit, classes = self.discriminator(self.sample(y))
        return self.game.generator(logit) + self.weight * F.cross_entropy(classes, y)

    players = duel  # [discriminator, generator] for ``fit``

    def sample(self, y: Int[Tensor, " b"], generator: torch.Generator | None = None) -> Float[Tensor, "b *shape"]:
        """One example per label."""
        return self.generator(noise(self, len(y), self.latent, generator), y)


def conv_acgan(
    channels: int,
    size: int,
    classes: int,
    latent: int = 64,
    width: int = 32,
    norm: Norm | None = nn.BatchNorm2d,
    hidden: int = 0,
) -> ACGAN:
    """The DCGAN pair with a second head; ``hidden``: units of the fully connected layer before the heads, 0 = none."""
    generator = Labelled(conv_generator(latent + classes, channels, size, width), classes)
    trunk = conv_trunk(channels, size, width, norm, hidden)
    return ACGAN(generator, Heads(trunk, trunk_features(size, width, hidden), (1, classes)), latent)
