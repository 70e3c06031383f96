r"""Noise schedules of discrete-time diffusion.

.. math:: q(x_t | x_{t-1}) = N(\sqrt{1 - β_t}\, x_{t-1}, β_t I), \quad α_t = 1 - β_t, \quad
          \bar α_t = \prod_{s ≤ t} α_s

Index convention: t = 1 … T, and ᾱ_0 = 1, so every table has T + 1 entries (β_0 = 0). Tables are float64: ᾱ_T is a
product of a thousand factors.

Linear: Ho, Jain & Abbeel 2020, section 4. Cosine: Nichol & Dhariwal 2021, eq. (17).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn


class Schedule(nn.Module):
    """Tables of β_t, α_t, ᾱ_t for t = 0 … T. A module only so that it moves with its model; nothing is learnt.

    Args:
        betas: β_1 … β_T, each in (0, 1).

    Raises:
        ValueError: a β outside (0, 1).
    """

    beta: Float64[Tensor, " T1"]
    alpha: Float64[Tensor, " T1"]
    alpha_bar: Float64[Tensor, " T1"]
    posterior_variance: Float64[Tensor, " T1"]

    def __init__(self, betas: Float[Tensor, " T"]) -> None:
        super().__init__()
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(f"every β must lie between 0 and 1, got {betas.min():.3g} … {betas.max():.3g}")
        beta = torch.cat([torch.zeros(1, dtype=torch.float64), betas.double()])
        alpha_bar = (1 - beta).cumprod(0)
        before = torch.cat([alpha_bar[:1], alpha_bar[:-1]])
        # β̃_t = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) β_t, Ho 2020 eq. (7); 0 at t = 1, and at t = 0 for want of anything better
        posterior = torch.where(beta > 0, beta * (1 - before) / (1 - alpha_bar).clamp_min(1e-300), 0.0)
        for name, table in (
            ("beta", beta), ("alpha", 1 - beta), ("alpha_bar", alpha_bar), ("posterior_variance", posterior),
        ):  # fmt: skip
            self.register_buffer(name, table, persistent=False)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta) - 1

    def at(self, t: Int[Tensor, " b"], like: Float[Tensor, "b *s"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """β_t, α_t, ᾱ_t and ᾱ_{t−1}, shaped (b, 1, …) and typed so that they multiply ``like``."""
        return tuple(spread(value, like) for value in self.at64(t))

    def at64(self, t: Int[Tensor, " b"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same four as float64 (b,): for formulas that subtract a ᾱ near 1 from 1."""
        return self.beta[t], self.alpha[t], self.alpha_bar[t], self.alpha_bar[t - 1]

    def snr(self) -> Float64[Tensor, " T1"]:
        """Signal-to-noise ratio ᾱ / (1 − ᾱ); +∞ at t = 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def sigma(self) -> Float64[Tensor, " T1"]:
        """σ_t = sqrt((1 − ᾱ_t) / ᾱ_t): the noise on x_t / √ᾱ_t, whose signal has its original size."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()


def spread(values: Float[Tensor, " b"], like: Float[Tensor, "b *s"]) -> Tensor:
    """One value per example, shaped (b, 1, …) and typed to multiply ``like``."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """β from ``first`` to ``last`` in equal steps, for T = 1000; both are scaled by 1000 / T for other T.

    Raises:
        ValueError: so few steps that β would leave (0, 1).
    """
    return Schedule(torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps)


def cosine_schedule(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Schedule:
    """ᾱ_t = f(t) / f(0), f(t) = cos²(π/2 · (t/T + s) / (1 + s)), with β_t ≤ ``largest``."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = (math.pi / 2 * (t + offset) / (1 + offset)).cos().square()
    return Schedule((1 - f[1:] / f[:-1]).clamp(max=largest))
