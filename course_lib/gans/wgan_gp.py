r"""Wasserstein GAN with gradient penalty.

.. math::
    L_D &= E[D(\tilde x)] - E[D(x)] + λ\, E_{\hat x}\big[(\|∇_{\hat x} D(\hat x)\|_2 - 1)^2\big] \\
    \hat x &= ε x + (1 - ε) \tilde x, \qquad ε \sim U[0, 1]

Gulrajani et al. 2017, "Improved training of Wasserstein GANs", eq. (3), algorithm 1: λ = 10, 5 critic updates, Adam
with β = (0, 0.9), no batch normalization in the critic (the penalty is per example). The slide's penalty is
max(0, ‖∇D‖ − 1): pass ``one_sided``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from course_lib.gans.gan import GAN
from course_lib.gans.players import Critic, Regularizer
from course_lib.gans.wgan import WASSERSTEIN
from course_lib.maths.adversarial import between, gradient_norms, two_sided

BETAS = (0.0, 0.9)
CRITIC_UPDATES = 5


def gradient_penalty(weight: float = 10.0, penalty: Callable[[Tensor], Tensor] = two_sided) -> Regularizer:
    """λ times ``penalty`` of the gradient norms at random points between data and fakes."""

    def regularizer(critic: Critic, real: Tensor, fake: Tensor, step: int) -> Tensor:
        return weight * penalty(gradient_norms(critic, between(real, fake)))

    return regularizer


def wgan_gp(
    generator: nn.Module,
    critic: nn.Module,
    latent: int,
    weight: float = 10.0,
    penalty: Callable[[Tensor], Tensor] = two_sided,
) -> GAN:
    """Train it with ``players(lr, betas=BETAS, repeats=CRITIC_UPDATES)``."""
    return GAN(generator, critic, latent, WASSERSTEIN, [gradient_penalty(weight, penalty)])
