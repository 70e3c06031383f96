"""What all adversarial systems share: a game, two players, noise.

An adversarial system is a module with ``generator``, ``discriminator``, ``discriminator_loss(batch, step)`` and
``generator_loss(batch, step)``; ``duel`` makes its players for ``fit``. The discriminator's loss draws its fakes
without gradient, so it cannot reach the generator, and ``fit`` takes each gradient with respect to the player's own
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.core.player import Batch, Player

Critic = Callable[[Tensor], Tensor]
Regularizer = Callable[[Critic, Tensor, Tensor, int], Tensor]  # (critic, real, fake, step) to a scalar


@dataclass(frozen=True)
class Game:
    """Two losses on the discriminator's outputs; see the table in ``maths/adversarial.py``.

    Attributes:
        discriminator: (outputs on data, outputs on fakes) to a scalar that the discriminator minimizes.
        generator: outputs on fakes to a scalar that the generator minimizes.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def duel(
    model: nn.Module,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    repeats: int = 1,
    discriminator_lr: float | None = None,
) -> list[Player]:
    """[discriminator, generator], in the order in which they move.

    Args:
        model: an adversarial system (see the module's text).
        lr: Adam's learning rate, of both unless ``discriminator_lr`` is given.
        betas: of both; Radford et al. 2016 lowered β₁ to 0.5 because 0.9 oscillated.
        repeats: discriminator updates per generator update.
        discriminator_lr: the discriminator's own learning rate (two time scales: Heusel et al. 2017).
    """
    d_lr = lr if discriminator_lr is None else discriminator_lr
    return [
        Player("discriminator", model.discriminator, model.discriminator_loss, d_lr, betas, repeats),
        Player("generator", model.generator, model.generator_loss, lr, betas),
    ]


def noise(
    module: nn.Module, n: int, latent: int, generator: torch.Generator | None = None
) -> Float[Tensor, "n latent"]:
    """n codes z ~ N(0, I) where the module's parameters are."""
    weight = next(module.parameters())
    return torch.randn(n, latent, generator=generator, device=weight.device, dtype=weight.dtype)


def split_batch(batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """(data, conditions) of a batch that is a tensor, or a tuple (data, *conditions)."""
    x, *conditions = batch if isinstance(batch, (tuple, list)) else (batch,)
    return x, conditions


def lazily(regularizer: Regularizer, every: int) -> Regularizer:
    """The regularizer at every k-th step only, k times as strong: the same pull on average, for less work.

    Karras et al. 2020 (StyleGAN2), section 3.2.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")

    def lazy(critic: Critic, real: Tensor, fake: Tensor, step: int) -> Tensor:
        return every * regularizer(critic, real, fake, step) if step % every == 0 else real.new_zeros(())

    return lazy
