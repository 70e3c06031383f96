r"""Perception-prioritized (P2) weighting: less weight where almost no noise is left to remove.

.. math:: λ'_t = \frac{λ_t}{(k + SNR(t))^γ}, \qquad SNR(t) = \frac{\bar α_t}{1 - \bar α_t}

with λ_t = 1 on the squared error of ε (``L_simple``). Choi et al. 2022, "Perception prioritized training of diffusion
models", eq. (8).
"""

from __future__ import annotations

from torch import Tensor

from course_lib.diffusion.ddpm import Weight
from course_lib.maths.schedules import Schedule


def p2_weight(k: float = 1.0, gamma: float = 1.0) -> Weight:
    """λ'_t for ``DDPM(weight=…)`` with the ε parametrization; γ = 0 gives back ``L_simple``."""

    def weight(schedule: Schedule) -> Tensor:
        return (k + schedule.snr()).pow(-gamma)  # at t = 0, which is never drawn, SNR = ∞ and the weight 0

    return weight


def vlb_weight(schedule: Schedule) -> Tensor:
    r"""β² / (2 σ² α (1 − ᾱ)) with σ² = β̃: makes the squared error of ε, summed over pixels, equal L_{t−1}.

    Ho 2020 eq. (12). At t = 1, where β̃ = 0, the entry for t = 2 stands in.
    """
    beta, variance = schedule.beta, schedule.posterior_variance
    weight = beta[2:].square() / (2 * variance[2:] * schedule.alpha[2:] * (1 - schedule.alpha_bar[2:]))
    return weight[[0, 0, *range(len(weight))]]
