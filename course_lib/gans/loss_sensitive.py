r"""Loss-sensitive GAN (not the least-squares GAN, which is also called "LSGAN").

.. math::
    \min_θ\; & E_x[L_θ(x)] + λ\, E_{x,z}\big[\max(0,\; Δ(x, G(z)) + L_θ(x) - L_θ(G(z)))\big] \\
    \min_φ\; & E_z[L_θ(G_φ(z))]

L is a loss that data should make small and fakes larger by a margin Δ(x, G(z)), their distance: a fake that has come
near a real picture is allowed nearly its loss, so the critic spends its capacity on bad fakes. (EBGAN's margin is a
constant; a Wasserstein critic knows none and widens every gap as far as its Lipschitz bound lets it.)

Qi 2017, "Loss-sensitive generative adversarial networks on Lipschitz densities", eq. (4)-(6): Δ is the L1 distance. The
theory takes L bounded below and Lipschitz; nothing in the losses makes it so. Here L is the network's raw output: a
constant that drifts downwards changes neither the hinge nor the generator, and a regularizer bounds its slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans.players import Regularizer, duel, noise


def mean_l1(x: Float[Tensor, "b *shape"], other: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
    """Mean absolute difference of each pair: L1 in units that do not grow with the number of pixels."""
    return (x - other).abs().flatten(1).mean(1)


def loss_sensitive_critic_loss(
    real: Float[Tensor, " b"], fake: Float[Tensor, " b"], margin: Float[Tensor, " b"], weight: float
) -> Float[Tensor, ""]:
    """E L(x) + λ E max(0, Δ + L(x) − L(G(z))).

    Args:
        real, fake: L on data and on the fakes they are paired with.
        margin: Δ of each pair.
        weight: λ.
    """
    return real.mean() + weight * F.relu(margin + real - fake).mean()


class LossSensitiveGAN(nn.Module):
    """Generator, and a critic that is a *loss*: low on data (the opposite sign of a discriminator's logit).

    Args:
        generator: codes (b, latent) to data (b, …).
        critic: data (b, …) to losses L(x), (b,).
        latent: dimension of z.
        weight: λ.
        margin: Δ: pairs (b, …), (b, …) to distances (b,).
        regularizers: terms added to the critic's loss. L must be kept from growing steep, e.g. by
            ``r1(0.1)``; the author uses weight decay.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent: int,
        weight: float = 10.0,
        margin: Callable[[Tensor, Tensor], Tensor] = mean_l1,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, critic, latent
        self.weight, self.margin, self.regularizers = weight, margin, tuple(regularizers)

    def discriminator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """Each example is paired with one fresh fake."""
        with torch.no_grad():
            fake = self.sample(len(batch))
        loss = loss_sensitive_critic_loss(
            self.discriminator(batch), self.discriminator(fake), self.margin(batch, fake), self.weight
        )
        for regularizer in self.regularizers:
            loss = loss + regularizer(self.discriminator, batch, fake, step)
        return loss

    def generator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """E L(G(z))."""
        return self.discriminator(self.sample(len(batch))).mean()

    players = duel  # [discriminator, generator] for ``fit``

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *shape"]:
        """G(z) for n codes."""
        return self.generator(noise(self, n, self.latent, generator))
