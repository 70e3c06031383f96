r"""Conditional GAN: both players are told the label.

.. math:: \min_G \max_D\; E_{x,y}[\log D(x, y)] + E_{z,y}[\log(1 - D(G(z, y), y))]

D must see y: a discriminator that only asks "is x real?" is content with a picture of any class, and nothing ties G's
output to its label. D(x, y) asks "is x real *and* a y?".

Mirza & Osindero 2014, "Conditional generative adversarial nets", eq. (2).
"""

from __future__ import annotations

from torch import nn

from course_lib.gans.gan import GAN
from course_lib.gans.networks import (
    Labelled,
    Norm,
    conv_discriminator,
    conv_generator,
    mlp_discriminator,
    mlp_generator,
)


def cgan(
    channels: int,
    size: int,
    classes: int,
    latent: int = 64,
    width: int = 32,
    norm: Norm | None = nn.BatchNorm2d,
    hidden: int = 0,
) -> GAN:
    """Convolutional; batches are (pictures, labels), and ``sample(len(y), y)`` draws one picture per label.

    Args:
        channels, size: of the pictures.
        classes: number of labels.
        latent: dimension of z.
        width: channels of the finest feature maps.
        norm: the discriminator's normalization; None with R1 or a gradient penalty.
        hidden: units of the discriminator's fully connected layer; 0 = none.
    """
    generator = conv_generator(latent + classes, channels, size, width)
    discriminator = conv_discriminator(channels + classes, size, width, norm, hidden)
    return GAN(Labelled(generator, classes), Labelled(discriminator, classes), latent)


def mlp_cgan(dims: int, classes: int, latent: int = 2, hidden: int = 128) -> GAN:
    """The same for labelled points."""
    generator, discriminator = mlp_generator(latent + classes, dims, hidden), mlp_discriminator(dims + classes, hidden)
    return GAN(Labelled(generator, classes), Labelled(discriminator, classes), latent)
