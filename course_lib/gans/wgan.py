r"""Wasserstein GAN with weight clipping.

.. math::
    W_1(p, q) = \sup_{\|f\|_L \le 1} E_p[f(x)] - E_q[f(x)]

(Kantorovich–Rubinstein). The critic maximizes the right side over networks whose weights all lie in [−c, c]: those are
K-Lipschitz for some K that depends on c alone, so the loss estimates K·W₁ from below, and its gradient does not vanish
where data and fakes do not overlap.

Arjovsky, Chintala & Bottou 2017, "Wasserstein generative adversarial networks", eq. (2)-(3), algorithm 1: c = 0.01,
learning rate 5e-5, 5 critic updates, RMSProp (``fit``'s Adam with β₁ = 0 is RMSProp with bias correction).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.core.player import Batch, Player
from course_lib.gans.gan import GAN
from course_lib.gans.players import Game, duel
from course_lib.maths.adversarial import wasserstein_critic_loss, wasserstein_generator_loss

WASSERSTEIN = Game(wasserstein_critic_loss, wasserstein_generator_loss)


@torch.no_grad()
def clip_weights(module: nn.Module, bound: float) -> None:
    """Project every parameter onto [−bound, bound], in place."""
    for parameter in module.parameters():
        parameter.clamp_(-bound, bound)


class WGAN(nn.Module):
    """Generator and critic with clipped weights.

    The clip comes at the start of both losses: the first moment after a critic update at which anyone uses the critic,
    so no loss ever sees weights beyond the bound, and none is left beyond it when ``fit`` ends with the generator's
    move.

    Args:
        generator: codes (b, latent) to data (b, …).
        critic: data (b, …) to critic values (b,).
        latent: dimension of z.
        bound: c, the largest absolute weight.
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, latent: int, bound: float = 0.01) -> None:
        super().__init__()
        if bound <= 0:
            raise ValueError(f"the bound on weights must be positive, got {bound}")
        self.gan, self.bound = GAN(generator, critic, latent, WASSERSTEIN), bound

    @property
    def generator(self) -> nn.Module:
        return self.gan.generator

    @property
    def discriminator(self) -> nn.Module:
        """The critic."""
        return self.gan.discriminator

    def discriminator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """E D(fake) − E D(real), with weights in bounds."""
        clip_weights(self.discriminator, self.bound)
        return self.gan.discriminator_loss(batch, step)

    def generator_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """−E D(fake), with weights in bounds."""
        clip_weights(self.discriminator, self.bound)
        return self.gan.generator_loss(batch, step)

    def players(
        self,
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.0, 0.99),
        repeats: int = 5,
        discriminator_lr: float | None = None,
    ) -> list[Player]:
        """[critic, generator] for ``fit``, with the paper's settings."""
        return duel(self, lr, betas, repeats, discriminator_lr)

    def sample(self, n: int, *conditions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """G(z) for n codes."""
        return self.gan.sample(n, *conditions, generator=generator)
