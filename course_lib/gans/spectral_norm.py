r"""Spectral normalization: every layer of the discriminator is made 1-Lipschitz.

.. math::
    \bar W = W / σ(W), \qquad σ(W) = \max_{\|h\| = 1} \|W h\| \approx u^\top W v, \qquad
    v \leftarrow \frac{W^\top u}{\|W^\top u\|},\; u \leftarrow \frac{W v}{\|W v\|}

One power iteration per forward pass suffices: W moves little between two steps, and u is kept. With 1-Lipschitz
activations, a network of linear layers is then 1-Lipschitz as a whole, everywhere, and not just where a gradient
penalty looked. A convolution's kernel (out, in, k, k) is normalized as the matrix (out, in·k·k), as in the paper; the
operator norm of the convolution itself can be up to k times larger.

Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral normalization for generative adversarial networks", eq. (8) and
algorithm 1; trained with the hinge loss, eq. (16)-(17).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from course_lib.gans.gan import GAN
from course_lib.gans.players import Game
from course_lib.maths.adversarial import hinge_discriminator_loss, wasserstein_generator_loss

HINGE = Game(hinge_discriminator_loss, wasserstein_generator_loss)


class SpectralNorm(nn.Module):
    """W → W / σ(W); a parametrization for ``torch.nn.utils.parametrize``.

    In training mode every use of the weight improves the singular vectors by one power iteration; in evaluation mode
    they stay.

    Args:
        weight: the weight to be normalized; its first axis are the rows, the rest is flattened into columns.
        start: power iterations before training begins.
    """

    def __init__(self, weight: Float[Tensor, "out *rest"], start: int = 15) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn_like(matrix[0]), dim=0))
        for _ in range(start):
            self.power_iteration(matrix)

    @torch.no_grad()
    def power_iteration(self, matrix: Float[Tensor, "out cols"]) -> None:
        """One step towards the largest singular value's vectors u and v, in place."""
        self.v.copy_(F.normalize(matrix.mT @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "out *rest"]:
        matrix = weight.flatten(1)
        if self.training:
            self.power_iteration(matrix)
        # copies: the next pass moves u and v in place while this one's graph still needs them; no gradient goes through
        # them (the paper's too: at the maximum their derivative contributes nothing)
        u, v = self.u.clone(), self.v.clone()
        return weight / (u @ (matrix @ v))


def spectrally_normalized(network: nn.Module, norm: Callable[[Tensor], nn.Module] = SpectralNorm) -> nn.Module:
    """Normalize the weight of every linear layer and convolution, in place; returns the network."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            parametrize.register_parametrization(layer, "weight", norm(layer.weight))
    return network


def sngan(generator: nn.Module, discriminator: nn.Module, latent: int) -> GAN:
    """SN-GAN: hinge loss, spectral normalization in the discriminator (done here, in place)."""
    return GAN(generator, spectrally_normalized(discriminator), latent, HINGE)
