r"""Diffusion in continuous time: noising as a stochastic differential equation, its reversal, and the ODE between.

.. math::
    dx &= f(t)\, x\, dt + g(t)\, dw & &\text{noising} \\
    dx &= [f(t)\, x - g(t)^2\, ∇\log p_t(x)]\, dt + g(t)\, d\bar w & &\text{backwards in time} \\
    dx &= [f(t)\, x - \tfrac12 g(t)^2\, ∇\log p_t(x)]\, dt & &\text{the same } p_t \text{ without noise} \\
    \log p_0(x_0) &= \log p_1(x_1) + \int_0^1 ∇·(\text{the ODE's right side})\, dt

Times run from 0 (data) to 1 (noise). Variance preserving (VP): f = −β(t)/2, g² = β(t), DDPM in the limit of many steps.
Variance exploding (VE): f = 0, g² = d σ²/dt, NCSN's.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, "Score-based generative modeling through stochastic
differential equations", eqs. (5), (6), (13), (39) and appendix C; Anderson 1982. Divergence estimate: Hutchinson 1989.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]  # (x, t of shape (b,)) ↦ ∇ log p_t(x)
Field = Callable[[Tensor, float], Tensor]  # (x, t) ↦ dx/dt
Step = Callable[[Field, Tensor, float, float], Tensor]  # (field, x, here, there) ↦ x there


@dataclass(frozen=True)
class VP:
    """β(t) = lowest + t (highest − lowest).  Song 2021 eq. (32)–(33); the limits are DDPM's β times 1,000."""

    lowest: float = 0.1
    highest: float = 20.0

    def drift(self, t: float) -> float:
        """f(t)."""
        return -0.5 * self.squared_diffusion(t)

    def squared_diffusion(self, t: float) -> float:
        """g(t)² = β(t)."""
        return self.lowest + t * (self.highest - self.lowest)

    def marginal(self, t: float) -> tuple[float, float]:
        """(s, σ) of p(x_t | x_0) = N(s x_0, σ² I): s = exp(−½ ∫β), σ² = 1 − s²."""
        integral = self.lowest * t + 0.5 * t**2 * (self.highest - self.lowest)
        return math.exp(-0.5 * integral), math.sqrt(-math.expm1(-integral))


@dataclass(frozen=True)
class VE:
    """σ(t) = lowest (highest / lowest)^t.  Song 2021 eqs. (30)–(31)."""

    lowest: float = 0.01
    highest: float = 50.0

    def drift(self, t: float) -> float:
        """f(t) = 0: the signal keeps its size."""
        return 0.0

    def squared_diffusion(self, t: float) -> float:
        """g(t)² = dσ²/dt."""
        return 2 * math.log(self.highest / self.lowest) * self.lowest**2 * (self.highest / self.lowest) ** (2 * t)

    def marginal(self, t: float) -> tuple[float, float]:
        """(s, σ) = (1, sqrt(σ(t)² − σ(0)²)): at t = 0 there is no noise yet."""
        return 1.0, self.lowest * math.sqrt((self.highest / self.lowest) ** (2 * t) - 1)


SDE = VP | VE


@torch.no_grad()
def noising(
    sde: SDE, x: Float[Tensor, "b *s"], times: Float[Tensor, " n"], generator: torch.Generator | None = None
) -> list[Float[Tensor, "b *s"]]:
    """Euler–Maruyama along rising ``times``; all states, x itself first."""
    path = [x]
    for here, there in itertools.pairwise(times.tolist()):
        z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = x + sde.drift(here) * x * (there - here) + math.sqrt(sde.squared_diffusion(here) * (there - here)) * z
        path.append(x)
    return path


@torch.no_grad()
def reverse_sde(
    sde: SDE,
    score: Score,
    x: Float[Tensor, "b *s"],
    times: Float[Tensor, " n"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *s"]:
    """Euler–Maruyama along falling ``times``; the last step adds no noise."""
    pairs = list(itertools.pairwise(times.tolist()))
    for i, (here, there) in enumerate(pairs):
        g2 = sde.squared_diffusion(here)
        slope = sde.drift(here) * x - g2 * score(x, x.new_full((len(x),), here))
        x = x + slope * (there - here)
        if i + 1 < len(pairs):
            z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + math.sqrt(g2 * (here - there)) * z
    return x


def probability_flow(sde: SDE, score: Score) -> Field:
    """The ODE with the SDE's marginals: dx/dt = f x − ½ g² ∇ log p_t(x).  Song 2021 eq. (13)."""
    return lambda x, t: sde.drift(t) * x - 0.5 * sde.squared_diffusion(t) * score(x, x.new_full((len(x),), t))


def euler_step(field: Field, x: Float[Tensor, "b *s"], here: float, there: float) -> Float[Tensor, "b *s"]:
    """First order."""
    return x + (there - here) * field(x, here)


def heun_step(field: Field, x: Float[Tensor, "b *s"], here: float, there: float) -> Float[Tensor, "b *s"]:
    """Second order: the mean of the slopes at both ends."""
    h, d = there - here, field(x, here)
    return x + h * (d + field(x + h * d, there)) / 2


def rk4_step(field: Field, x: Float[Tensor, "b *s"], here: float, there: float) -> Float[Tensor, "b *s"]:
    """Fourth order: Runge and Kutta's."""
    h, middle = there - here, (here + there) / 2
    a = field(x, here)
    b = field(x + h / 2 * a, middle)
    c = field(x + h / 2 * b, middle)
    d = field(x + h * c, there)
    return x + h * (a + 2 * b + 2 * c + d) / 6


def solve(
    field: Field, x: Float[Tensor, "b *s"], times: Float[Tensor, " n"], step: Step = heun_step
) -> Float[Tensor, "b *s"]:
    """x at the last of ``times``, rising or falling."""
    for here, there in itertools.pairwise(times.tolist()):
        x = step(field, x, here, there)
    return x


@torch.no_grad()
def ode_log_prob(
    field: Field,
    x: Float[Tensor, "b *s"],
    times: Float[Tensor, " n"],
    log_prior: Callable[[Float[Tensor, "b d"]], Float[Tensor, " b"]],
    probes: Float[Tensor, "p b *s"],
    step: Step = heun_step,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """log p(x) in nats by the change of variables along the ODE, and the standard error of the divergence's estimate.

    ∇·F is estimated as the mean over ``probes`` of εᵀ (∂F/∂x) ε, one vector–Jacobian product each (Hutchinson 1989;
    Song 2021 eq. (40)). The unit vectors times √d as probes make it exact (and the stated error meaningless).

    Args:
        field: the probability flow.
        x: data, where the density is wanted.
        times: from the data's time to the prior's.
        log_prior: log-density of flat x at the last time.
        probes: ε with mean 0 and covariance I, e.g. random signs; the same along the whole path.
        step: solver of x and of the integral together.
    """
    b, d, n = len(x), x[0].numel(), len(probes)

    def together(state: Tensor, t: float) -> Tensor:
        with torch.enable_grad():
            at = state[:, :d].view_as(x).detach().requires_grad_()
            out = field(at, t)
            products = [torch.autograd.grad(out, at, e, retain_graph=i + 1 < n)[0] for i, e in enumerate(probes)]
        divergence = torch.stack([(v * e).flatten(1).sum(1) for v, e in zip(products, probes, strict=True)], 1)
        return torch.cat([out.detach().flatten(1), divergence], 1)  # (b, d + n)

    end = solve(together, torch.cat([x.flatten(1), x.new_zeros(b, n)], 1), times, step)
    log_p = log_prior(end[:, :d]).unsqueeze(1) + end[:, d:]  # (b, n)
    stderr = log_p.std(1) / math.sqrt(n) if n > 1 else torch.full_like(log_p[:, 0], math.nan)
    return log_p.mean(1), stderr
