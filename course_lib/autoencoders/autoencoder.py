r"""Autoencoder: compress, restore, compare.

.. math:: L_{AE}(θ, φ) = \frac1n \sum_i \| x^{(i)} - f_θ(g_φ(x^{(i)})) \|^2

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks". With linear maps the optimum
spans the principal subspace (Baldi & Hornik 1989). There is no distribution over codes: nothing to sample from.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.nn.conv import conv_decoder, conv_encoder
from course_lib.nn.mlp import mlp


class Autoencoder(nn.Module):
    """Encoder g_φ and decoder f_θ.

    Args:
        encoder: pictures (b, c, h, w) to codes (b, z).
        decoder: codes (b, z) to pictures (b, c, h, w).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Float[Tensor, " b *shape"]) -> Float[Tensor, "b z"]:
        return self.encoder(x)

    def decode(self, z: Float[Tensor, "b z"]) -> Float[Tensor, " b *shape"]:
        return self.decoder(z)

    def forward(self, x: Float[Tensor, " b *shape"]) -> Float[Tensor, " b *shape"]:
        return self.decode(self.encode(x))

    def loss(self, x: Float[Tensor, " b *shape"]) -> Float[Tensor, ""]:
        """Squared error per picture (sum over pixels), averaged over the batch."""
        return (self(x) - x).square().flatten(1).sum(1).mean()


def linear_autoencoder(shape: tuple[int, ...], latent: int) -> Autoencoder:
    """One linear layer each way (with biases, so the data need not be centred): PCA by gradient descent."""
    n = math.prod(shape)
    return Autoencoder(
        nn.Sequential(nn.Flatten(), nn.Linear(n, latent)),
        nn.Sequential(nn.Linear(latent, n), nn.Unflatten(1, shape)),
    )


def mlp_autoencoder(shape: tuple[int, ...], latent: int, hidden: int = 256) -> Autoencoder:
    """Two hidden layers each way."""
    n = math.prod(shape)
    return Autoencoder(
        nn.Sequential(nn.Flatten(), mlp([n, hidden, hidden, latent])),
        nn.Sequential(mlp([latent, hidden, hidden, n]), nn.Unflatten(1, shape)),
    )


def conv_autoencoder(channels: int, size: int, latent: int, width: int = 32) -> Autoencoder:
    """Convolutional pyramid for square pictures whose side is a multiple of 4; outputs pass through tanh."""
    return Autoencoder(
        conv_encoder(channels, size, latent, width),
        nn.Sequential(conv_decoder(latent, channels, size, width), nn.Tanh()),
    )


def principal_subspace(x: Float[Tensor, "n d"], rank: int) -> tuple[Float[Tensor, "d rank"], Float[Tensor, " d"]]:
    """PCA: an orthonormal basis of the directions of largest variance, and the mean."""
    mean = x.mean(0)
    _, _, directions = torch.linalg.svd(x - mean, full_matrices=False)
    return directions[:rank].T, mean


def principal_angles(a: Float[Tensor, "d r"], b: Float[Tensor, "d r"]) -> Float[Tensor, " r"]:
    """Angles (radians, ascending) between the column spaces of a and b; all zero if they are the same subspace.

    From the sines, ‖(I − A Aᵀ) B‖'s singular values: the cosine loses half the digits near zero
    (Björck & Golub 1973).
    """
    qa, qb = torch.linalg.qr(a)[0], torch.linalg.qr(b)[0]
    sines = torch.linalg.svdvals(qb - qa @ (qa.T @ qb)).clamp(max=1.0)
    return sines.asin().flip(0)
