r"""Langevin dynamics: samples from a density of which only the score is known.

.. math:: x_{k+1} = x_k + \tfrac{α}{2}\, ∇\log p(x_k) + \sqrt{α}\, z_k, \qquad z_k \sim N(0, I)

the Euler–Maruyama step of dx = ½ ∇log p dt + dw, whose stationary law is p. **Convention:** α is the step, ½ goes with
the score and √α with the noise (others write x + η ∇log p + √(2η) z: their η is α/2). The discrete chain is
"unadjusted": its stationary law is p only as α → 0. On N(0, s²) it is a Gaussian of variance s² / (1 − α / 4s²), and it
explodes for α ≥ 4s².

Annealed Langevin dynamics: Song & Ermon 2019, Algorithm 1, with α_i = ε σ_i² / σ_L². Tweedie's formula: Robbins 1956
(who credits Tweedie); Efron 2011. The last denoising step: Jolicoeur-Martineau et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[Tensor], Tensor]
NoisyScore = Callable[[Tensor, float], Tensor]  # score(x, σ) = ∇ log p_σ(x), the score of the data plus noise of std σ


def langevin(
    score: Score, x: Float[Tensor, "b *shape"], step: float, steps: int, generator: torch.Generator | None = None
) -> Float[Tensor, "b *shape"]:
    """``steps`` unadjusted Langevin steps from ``x``: x + (step/2) score(x) + √step · noise.

    Args:
        score: ∇ log p, shape for shape.
        x: where the chains start, one per example.
        step: α > 0, in squared units of x.
        steps: how many; 0 returns x.
        generator: of the noise, on x's device.

    Raises:
        ValueError: the step is not positive.
    """
    if step <= 0:
        raise ValueError(f"a Langevin step must be positive, got {step}")
    for _ in range(steps):
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = x + 0.5 * step * score(x) + math.sqrt(step) * noise
    return x


def annealed_langevin(
    score: NoisyScore,
    x: Float[Tensor, "b *shape"],
    sigmas: Sequence[float],
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *shape"]:
    """Langevin at every noise level, from the coarsest to the finest, each starting where the last one ended.

    Args:
        score: ``score(x, sigma)``, the score of the data plus noise of standard deviation sigma.
        x: where the chains start; a sample of N(0, σ_1² I) where σ_1 exceeds the data's extent.
        sigmas: σ_1 > … > σ_L > 0.
        step: ε, the step at the finest level; level i takes α_i = ε σ_i² / σ_L², so that signal-to-noise stays equal.
        steps: T, per level.
        generator: of the noise, on x's device.

    Raises:
        ValueError: the levels do not fall, or are not positive.
    """
    sigmas = list(sigmas)
    if not sigmas or sigmas != sorted(set(sigmas), reverse=True) or sigmas[-1] <= 0:
        raise ValueError(f"noise levels must be positive and fall strictly, got {sigmas}")
    for sigma in sigmas:
        alpha = step * (sigma / sigmas[-1]) ** 2
        x = langevin(lambda points, sigma=sigma: score(points, sigma), x, alpha, steps, generator)
    return x


def tweedie(x: Float[Tensor, "b *shape"], score: Float[Tensor, "b *shape"], sigma: float) -> Float[Tensor, "b *shape"]:
    """E[x_0 | x] = x + σ² ∇log p_σ(x) where x = x_0 + σ ε: the mean of the clean points behind a noisy one.

    Args:
        x: noisy points.
        score: the score of the noised density at x (values, not a function).
        sigma: σ.
    """
    return x + sigma**2 * score


def geometric_ladder(largest: float, smallest: float, levels: int) -> tuple[float, ...]:
    """σ_1 > … > σ_L with a constant ratio.

    Raises:
        ValueError: fewer than two levels, or not 0 < smallest < largest.
    """
    if levels < 2 or not 0 < smallest < largest:
        raise ValueError(f"need at least 2 levels and 0 < smallest < largest, got {levels}, {smallest}, {largest}")
    return tuple(largest * (smallest / largest) ** (i / (levels - 1)) for i in range(levels))
