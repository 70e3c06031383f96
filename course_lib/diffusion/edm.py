r"""Sampling in the noise level σ itself: x = x_0 + σ n, a denoiser D(x, σ) ≈ E[x_0 | x], and

.. math:: \frac{dx}{dσ} = \frac{x - D(x, σ)}{σ}

which Euler's method follows in the steps of DDIM, and Heun's in steps of second order. Any trained DDPM is such a
denoiser: x_t / √ᾱ_t = x_0 + σ_t ε with σ_t = √((1 − ᾱ_t) / ᾱ_t).

Karras, Aittala, Aila & Laine 2022, "Elucidating the design space of diffusion-based generative models" (EDM), eq. (1)
with σ(t) = t, eq. (5), Algorithms 1 and 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.diffusion.ddpm import DDPM
from course_lib.maths.schedules import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x, σ of shape (b,)) ↦ E[x_0 | x]


def karras_sigmas(
    steps: int, lowest: float = 0.006, highest: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " steps1"]:
    """σ_0 = highest > … > σ_{S−1} = lowest > σ_S = 0, even in σ^{1/ρ}: most steps where there is little noise.

    Karras 2022 eq. (5). The default ``lowest`` is the least noise that a cosine schedule of 1,000 steps trains on.
    """
    if steps < 2:
        raise ValueError(f"the first and the last noise level differ, so there are at least 2 steps, got {steps}")
    ramp = torch.linspace(highest ** (1 / rho), lowest ** (1 / rho), steps, dtype=torch.float64) ** rho
    return torch.cat([ramp, torch.zeros(1, dtype=torch.float64)])


def time_of(schedule: Schedule, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The t, between 1 and T and rarely whole, whose noise level is σ: linear in log σ between the table's entries."""
    table = schedule.sigma()[1:].log()
    wanted = sigma.to(table).log().clamp(table[0], table[-1])
    right = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    share = (wanted - table[right - 1]) / (table[right] - table[right - 1])
    return (right + share).to(sigma.dtype)  # entry i of the table is t = i + 1


def denoiser(model: DDPM) -> Callable[..., Tensor]:
    """A trained DDPM as ``denoise(x, sigma, labels=None)``, for any σ within its schedule (not clipped)."""

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        s = sigma.view(-1, *[1] * (x.ndim - 1))
        a = 1 / (1 + s.square())
        xt = x * a.sqrt()
        out = model.predict(xt, time_of(model.schedule, sigma), labels).to(x.dtype)
        return model.parametrization.x0(out, xt, a)

    return denoise


def clipped(denoise: Denoise) -> Denoise:
    """The same, with its pictures clamped to [−1, 1]: a guided denoiser leaves the range otherwise."""
    return lambda x, sigma: denoise(x, sigma).clamp(-1, 1)


def slope(denoise: Denoise, x: Float[Tensor, "b *s"], sigma: float) -> Float[Tensor, "b *s"]:
    """dx/dσ = (x − D(x, σ)) / σ.  Karras 2022 eq. (3) with eq. (1)."""
    return (x - denoise(x, x.new_full((len(x),), sigma))) / sigma


@torch.no_grad()
def euler(denoise: Denoise, x: Float[Tensor, "b *s"], sigmas: Float[Tensor, " steps1"]) -> Float[Tensor, "b *s"]:
    """First order, one call a step. x must have noise ``sigmas[0]``."""
    for here, there in itertools.pairwise(sigmas.tolist()):
        x = x + (there - here) * slope(denoise, x, here)
    return x


@torch.no_grad()
def heun(denoise: Denoise, x: Float[Tensor, "b *s"], sigmas: Float[Tensor, " steps1"]) -> Float[Tensor, "b *s"]:
    """Second order, two calls a step but for a last one to σ = 0: Karras 2022 Algorithm 1."""
    for here, there in itertools.pairwise(sigmas.tolist()):
        d = slope(denoise, x, here)
        ahead = x + (there - here) * d
        if there > 0:
            ahead = x + (there - here) * (d + slope(denoise, ahead, there)) / 2
        x = ahead
    return x


@torch.no_grad()
def stochastic_heun(
    denoise: Denoise,
    x: Float[Tensor, "b *s"],
    sigmas: Float[Tensor, " steps1"],
    churn: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *s"]:
    """Heun's steps, each after a little fresh noise: Karras 2022 Algorithm 2 with S_min = 0, S_max = ∞, S_noise = 1.

    Args:
        denoise: see above.
        x: has noise ``sigmas[0]``.
        sigmas: falling, the last may be 0.
        churn: S_churn; each step's noise level rises by the factor 1 + min(churn / steps, √2 − 1) first.
        generator: of that noise.
    """
    rise = 1 + min(churn / (len(sigmas) - 1), 2**0.5 - 1)
    for here, there in itertools.pairwise(sigmas.tolist()):
        higher = here * rise
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = x + (higher**2 - here**2) ** 0.5 * noise
        x = heun(denoise, x, torch.tensor([higher, there], dtype=torch.float64))
    return x
