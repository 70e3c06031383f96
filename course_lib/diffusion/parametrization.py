r"""What the network predicts: the noise ε, the picture x₀, or the velocity v. Each gives the other two.

.. math:: x_t = \sqrt{\bar α_t}\, x_0 + \sqrt{1 - \bar α_t}\, ε, \qquad
          v = \sqrt{\bar α_t}\, ε - \sqrt{1 - \bar α_t}\, x_0

(x₀, ε) ↦ (x_t, v) is a rotation, hence x₀ = √ᾱ x_t − √(1−ᾱ) v and ε = √(1−ᾱ) x_t + √ᾱ v.

ε: Ho, Jain & Abbeel 2020, eq. (11). v: Salimans & Ho 2022, "Progressive distillation", section 4 and appendix D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Parametrization:
    """A target for the network, and the way back from it. ``a`` is ᾱ_t, shaped to multiply pictures.

    Attributes:
        name: for titles of figures.
        target: (x0, eps, a) ↦ what the network is trained towards.
        x0: (out, xt, a) ↦ the picture that the output stands for.
        eps: (out, xt, a) ↦ the noise that the output stands for.
        error: a ↦ how much ‖target error‖² is per ‖ε error‖², so that losses can be compared.
    """

    name: str
    target: Formula
    x0: Formula
    eps: Formula
    error: Callable[[Tensor], Tensor]


def x0_from_eps(eps: Tensor, xt: Tensor, a: Tensor) -> Tensor:
    """x₀ = (x_t − √(1−ᾱ) ε) / √ᾱ."""
    return (xt - (1 - a).sqrt() * eps) / a.sqrt()


def eps_from_x0(x0: Tensor, xt: Tensor, a: Tensor) -> Tensor:
    """ε = (x_t − √ᾱ x₀) / √(1−ᾱ)."""
    return (xt - a.sqrt() * x0) / (1 - a).sqrt()


EPSILON = Parametrization(
    "ε",
    target=lambda x0, eps, a: eps,
    x0=x0_from_eps,
    eps=lambda out, xt, a: out,
    error=lambda a: a**0,
)
X0 = Parametrization(
    "x₀",
    target=lambda x0, eps, a: x0,
    x0=lambda out, xt, a: out,
    eps=eps_from_x0,
    error=lambda a: (1 - a) / a,
)
VELOCITY = Parametrization(
    "v",
    target=lambda x0, eps, a: a.sqrt() * eps - (1 - a).sqrt() * x0,
    x0=lambda out, xt, a: a.sqrt() * xt - (1 - a).sqrt() * out,
    eps=lambda out, xt, a: (1 - a).sqrt() * xt + a.sqrt() * out,
    error=lambda a: 1 / a,
)
