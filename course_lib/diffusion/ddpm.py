r"""Denoising diffusion probabilistic models.

.. math::
    q(x_t | x_0) &= N(\sqrt{\bar α_t}\, x_0, (1 - \bar α_t) I) \\
    q(x_{t-1} | x_t, x_0) &= N(\tildeμ_t(x_t, x_0), \tildeβ_t I) \\
    -\log p_θ(x_0) &≤ L_T + \sum_{t > 1} L_{t-1} + L_0, \qquad
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) ‖ p_θ(x_{t-1} | x_t)) \\
    L_{simple} &= E_{t, x_0, ε} ‖ε - ε_θ(x_t, t)‖^2

t = 1 … T, ᾱ_0 = 1. Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models"; Sohl-Dickstein et al. 2015.
Pictures are in [−1, 1]; bounds in nats per picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.diffusion.parametrization import EPSILON, Parametrization
from course_lib.maths.schedules import Schedule, spread

Weight = Callable[[Schedule], Tensor]  # λ_0 … λ_T, multiplying the squared error
Variance = Callable[[Schedule], Tensor]  # σ_0² … σ_T² of the reverse steps


def q_sample(
    schedule: Schedule, x0: Float[Tensor, "b *s"], t: Int[Tensor, " b"], eps: Float[Tensor, "b *s"]
) -> Float[Tensor, "b *s"]:
    r"""x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε: t steps of noise at once.  Ho 2020 eq. (4)."""
    _, _, alpha_bar, _ = schedule.at(t, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def q_posterior(
    schedule: Schedule, x0: Float[Tensor, "b *s"], xt: Float[Tensor, "b *s"], t: Int[Tensor, " b"]
) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *#s"]]:
    r"""Mean and variance of q(x_{t-1} | x_t, x_0).  Ho 2020 eqs. (6)-(7)."""
    beta, alpha, alpha_bar, alpha_bar_prev = schedule.at64(t)
    # the coefficients in float64: at small t, 1 − ᾱ has lost half its digits in float32
    of_x0 = alpha_bar_prev.sqrt() * beta / (1 - alpha_bar)
    of_xt = alpha.sqrt() * (1 - alpha_bar_prev) / (1 - alpha_bar)
    variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    return spread(of_x0, x0) * x0 + spread(of_xt, xt) * xt, spread(variance, xt)


class DDPM(nn.Module):
    """A network, a schedule, and what the network predicts.

    Args:
        network: ``network(x_t, t)``, or ``network(x_t, t, labels)`` where labels are used; t is float, 1 … T.
        schedule: β_1 … β_T.
        shape: of one example, (c, h, w) for pictures or (d,) for points.
        parametrization: of the network's output.
        weight: λ_t as a function of the schedule, multiplying the squared error of the prediction; None = 1
            (``L_simple`` where the network predicts ε).
        clip: clamp predicted pictures to [−1, 1] while sampling. Off for points in the plane.
        variance: σ_t² of p(x_{t-1} | x_t); None = β̃_t, right for data that is one point. ``lambda s: s.beta`` is right
            for data that is N(0, I) (Ho 2020 section 3.2).
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, ...],
        parametrization: Parametrization = EPSILON,
        weight: Weight | None = None,
        clip: bool = True,
        variance: Variance | None = None,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.shape = network, schedule, shape
        self.parametrization, self.weight, self.clip = parametrization, weight, clip
        self.variance = variance or (lambda schedule: schedule.posterior_variance)

    def predict(
        self, xt: Float[Tensor, "b *s"], t: Float[Tensor, " b"] | Int[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b *out"]:
        """The network's output, in the units of the parametrization."""
        t = t.to(xt.dtype)
        return self.network(xt, t) if y is None else self.network(xt, t, y)

    def x0_and_eps(
        self, xt: Float[Tensor, "b *s"], t: Int[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *s"]]:
        """What the network thinks x_0 and ε were (not clipped)."""
        out, (_, _, alpha_bar, _) = self.predict(xt, t, y).to(xt.dtype), self.schedule.at(t, xt)
        return self.parametrization.x0(out, xt, alpha_bar), self.parametrization.eps(out, xt, alpha_bar)

    def errors(
        self, x0: Float[Tensor, "b *s"], t: Int[Tensor, " b"], eps: Float[Tensor, "b *s"], y: Tensor | None = None
    ) -> Float[Tensor, " b"]:
        """Squared error of the prediction at times t, averaged over the pixels of each example."""
        xt = q_sample(self.schedule, x0, t, eps)
        _, _, alpha_bar, _ = self.schedule.at(t, x0)
        target = self.parametrization.target(x0, eps, alpha_bar)
        return (self.predict(xt, t, y) - target).square().flatten(1).mean(1)

    def loss(self, batch: Tensor | tuple[Tensor, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Algorithm 1: a time for each example, noise, squared error; ``batch`` is x, or (x, labels)."""
        x0, y = batch if isinstance(batch, (tuple, list)) else (batch, None)
        t = torch.randint(1, self.schedule.steps + 1, (len(x0),), generator=generator, device=x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        error = self.errors(x0, t, eps, y)
        if self.weight is not None:
            error = self.weight(self.schedule)[t].to(error.dtype) * error
        return error.mean()

    def p_mean(
        self, xt: Float[Tensor, "b *s"], t: Int[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b *s"]:
        """μ_θ(x_t, t): the posterior's mean with the predicted x_0 in place of x_0."""
        x0, _ = self.x0_and_eps(xt, t, y)
        return q_posterior(self.schedule, x0.clamp(-1, 1) if self.clip else x0, xt, t)[0]

    @torch.no_grad()
    def p_sample(
        self,
        xt: Float[Tensor, "b *s"],
        t: Int[Tensor, " b"],
        y: Int[Tensor, " b"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b *s"]:
        """One step of Algorithm 2; the last one, at t = 1, adds no noise."""
        z = torch.randn(xt.shape, generator=generator, device=xt.device, dtype=xt.dtype)
        sigma = torch.where(t > 1, self.variance(self.schedule)[t], 0.0).sqrt()
        return self.p_mean(xt, t, y) + spread(sigma, xt) * z

    @torch.no_grad()
    def sample(
        self, n: int, labels: Int[Tensor, " n"] | None = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n *s"]:
        """Algorithm 2: T steps from noise. ``course_lib.diffusion.ddim`` needs far fewer."""
        x = self.noise(n, generator)
        for t in range(self.schedule.steps, 0, -1):
            x = self.p_sample(x, torch.full((n,), t, device=x.device), labels, generator)
        return x

    def noise(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *s"]:
        """x_T ~ N(0, I) where the parameters are."""
        weight = next(self.network.parameters())
        return torch.randn(n, *self.shape, generator=generator, device=weight.device, dtype=weight.dtype)

    def prior_term(self, x0: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """L_T = KL(q(x_T | x_0) ‖ N(0, I)) in nats: no parameters, and almost nothing."""
        a = self.schedule.alpha_bar[-1]
        # in float64: −log(1 − ᾱ) − ᾱ cancels
        kl = 0.5 * (a * x0.double().square() - a - torch.log1p(-a))
        return kl.flatten(1).sum(1).to(x0.dtype)

    @torch.no_grad()
    def bound_term(
        self,
        x0: Float[Tensor, "b *s"],
        t: Int[Tensor, " b"],
        bins: int = 256,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """One-sample estimate of L_{t−1} in nats, at t = 1 of L_0 = −log p(x_0 | x_1), for pictures of ``bins`` greys.

        KL of two Gaussians with variances β̃_t and σ_t²; at t = 1, where σ² is β_1, Ho 2020 eq. (13) integrates the
        Gaussian over each grey's bin. The prediction of x_0 is clipped as in sampling.
        """
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        xt = q_sample(self.schedule, x0, t, eps)
        mean, gap = self.p_mean(xt, t), q_posterior(self.schedule, x0, xt, t)[0]
        gap = (gap - mean).flatten(1).double()
        true, chosen = self.schedule.posterior_variance[t], self.variance(self.schedule)[t]
        ratio = torch.where(t > 1, true / chosen, 1.0)
        kl = 0.5 * (gap.shape[1] * (ratio - 1 - ratio.log()) + gap.square().sum(1) / chosen)
        first = -discretized_normal(x0.flatten(1), mean.flatten(1), self.schedule.beta[1].sqrt().item(), bins)
        return torch.where(t == 1, first, kl.to(x0.dtype))


def discretized_normal(
    x: Float[Tensor, "b d"], mean: Float[Tensor, "b d"], std: float, bins: int
) -> Float[Tensor, " b"]:
    """log-probability of greys −1 … 1 in ``bins`` steps: the Gaussian's mass on each grey's bin.  Ho 2020 eq. (13).

    The outermost bins reach to ±∞.
    """
    half = 1 / (bins - 1)
    normal = torch.distributions.Normal(0.0, 1.0)
    upper = torch.where(x > 1 - half, math.inf, (x + half - mean) / std)
    lower = torch.where(x < -1 + half, -math.inf, (x - half - mean) / std)
    # by symmetry in the lower tail, where differences of the cumulative distribution keep their digits
    flip = lower > 0
    lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    mass = normal.cdf(upper.double()) - normal.cdf(lower.double())
    return mass.clamp_min(1e-30).log().sum(1).to(x.dtype)
