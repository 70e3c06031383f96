r"""R₁ regularization: the discriminator's gradient vanishes on data.

.. math:: R_1 = \tfrac γ2\, E_{x \sim p}\big[\|∇_x D(x)\|^2\big]

Mescheder, Geiger & Nowozin 2018, "Which training methods for GANs do actually converge?", eq. (9). At the equilibrium
the generator has no reason to move, and now neither pulls nor circles: training converges locally, where the plain GAN
and WGAN-GP orbit. γ carries the units of x²: double the data and the same strength needs 4γ. Here 0.1 serves the toys
of a few units across, 0.05 … 0.5 digits at 28×28; the paper's 10 is for pictures of 256×256.
"""

from __future__ import annotations

from torch import Tensor

from course_lib.gans.players import Critic, Regularizer
from course_lib.maths.adversarial import r1_penalty


def r1(gamma: float) -> Regularizer:
    """γ/2 E‖∇D‖² on data, as a term of the discriminator's loss; ``lazily(r1(γ), 16)`` does it on every 16th step."""

    def regularizer(critic: Critic, real: Tensor, fake: Tensor, step: int) -> Tensor:
        return gamma * r1_penalty(critic, real)

    return regularizer
