r"""Noise-conditional score network: one network for the scores of the data under every noise level of a ladder.

.. math::
    p_σ &= p_{data} * N(0, σ^2 I), \qquad s_θ(x, σ) ≈ ∇_x \log p_σ(x), \qquad σ_1 > … > σ_L \text{ geometric} \\
    L(θ) &= \frac1L \sum_i λ(σ_i)\, \tfrac12 E_{x, ε} ‖s_θ(x + σ_i ε, σ_i) + ε / σ_i‖^2, \qquad λ(σ) = σ^2

Denoising score matching at every level; λ = σ² makes all terms of one order, because ‖s‖ ∝ 1/σ. Samples come from
annealed Langevin dynamics, then one step of Tweedie's formula to remove the last noise.

Song & Ermon 2019, "Generative modeling by estimating gradients of the data distribution", eqs. (5), (6), Algorithm 1.
Taken from Song & Ermon 2020, "Improved techniques for training score-based generative models": σ_1 about as large as
the largest distance between data (technique 1), a network output divided by σ (technique 3), the step by ``best_step``
(technique 4), an average of the weights for sampling (technique 5: ``fit(…, ema=…)``). Not theirs: the level enters as
sinusoidal features of log σ, and what the score of N(0, I) under noise is, the network need not learn:

.. math:: s_θ(x, σ) = -\frac{x}{1 + σ^2} + \frac{1}{σ \sqrt{1 + σ^2}}\, F_θ\Big(\frac{x}{\sqrt{1 + σ^2}}, \log σ\Big)

with inputs and outputs of F of order 1 at every level (Karras et al. 2022, table 1, with σ_data = 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.maths.langevin import annealed_langevin, geometric_ladder, tweedie
from course_lib.nn.embed import SinusoidalFeatures
from course_lib.nn.mlp import mlp
from course_lib.nn.unet import UNet, UNetConfig


class NCSN(nn.Module):
    """A score for every noise level, and the annealed chain that samples it.

    Args:
        net: ``net(x, t)``, the shape of x, t from 0 at the finest level to 1000 at the coarsest.
        shape: of one example.
        sigmas: σ_1 > … > σ_L.
        step: ε, the Langevin step at the finest level, in units of σ_L² (technique 4's α/σ_L²).
        steps: T, Langevin steps per level.
        bound: samples are clipped to [−bound, bound] at the very end; 1 for pictures.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, ...],
        sigmas: Sequence[float],
        step: float = 0.5,
        steps: int = 5,
        bound: float = math.inf,
    ) -> None:
        super().__init__()
        self.net, self.shape, self.sigmas = net, tuple(shape), tuple(sigmas)
        self.step, self.steps, self.bound = step, steps, bound
        self.register_buffer("log_ladder", torch.tensor(self.sigmas).log())

    def score(self, x: Float[Tensor, "b *shape"], sigma: float | Float[Tensor, " b"]) -> Float[Tensor, "b *shape"]:
        """s_θ(x, σ) ≈ ∇ log p_σ(x), for one noise level or one per example (between the ladder's rungs, too)."""
        sigma = sigma if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)
        finest, coarsest = self.log_ladder[-1], self.log_ladder[0]
        t = 1000 * (sigma.log() - finest) / (coarsest - finest)
        wide = sigma.view(-1, *[1] * (x.ndim - 1))
        scale = (1 + wide.square()).sqrt()
        return self.net(x / scale, t.to(x.dtype)).to(x.dtype) / (wide * scale) - x / scale.square()

    def loss(self, x: Float[Tensor, "b *shape"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """σ²-weighted denoising score matching at a random rung per example; mean over examples, per dimension."""
        rung = torch.randint(len(self.sigmas), (len(x),), generator=generator, device=x.device)
        sigma = self.log_ladder.exp()[rung].to(x.dtype)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return self.weighted_loss(x, noise, sigma).mean() / math.prod(self.shape)

    def weighted_loss(
        self, x: Float[Tensor, "b *shape"], noise: Float[Tensor, "b *shape"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """σ² · ½ ‖s(x + σε, σ) + ε/σ‖² = ½ ‖σ s + ε‖², one value per example."""
        wide = sigma.view(-1, *[1] * (x.ndim - 1))
        residual = wide * self.score(x + wide * noise, sigma) + noise
        return 0.5 * residual.square().flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, denoise: bool = True) -> Tensor:
        """n examples by annealed Langevin dynamics from N(0, σ_1² I).

        Args:
            n: how many.
            generator: of all noise, on the network's device.
            denoise: end with one step of Tweedie's formula; without it, noise of about σ_L stays.
        """
        x = torch.randn(n, *self.shape, generator=generator, device=self.log_ladder.device, dtype=self.log_ladder.dtype)
        last = self.sigmas[-1]
        x = annealed_langevin(self.score, self.sigmas[0] * x, self.sigmas, self.step * last**2, self.steps, generator)
        if denoise:
            x = tweedie(x, self.score(x, last), last)
        return x.clamp(-self.bound, self.bound)


def best_step(sigmas: Sequence[float], steps: int) -> float:
    r"""The η = ε/σ_L² for which a level's T steps best turn noise of the level above into noise of this level.

    Suppose the data are one point, so that the score is −x/σ_i². A step multiplies by a = 1 − η/2 and adds variance
    η σ_i²; from variance γ² σ_i², γ = σ_{i−1}/σ_i, T steps lead to σ_i² [a^{2T} γ² + c (1 − a^{2T})] with
    c = η / (1 − a²). The bracket is above 1 for every η; the η that brings it closest is returned, to 3 decimals.
    Song & Ermon 2020, proposition 3 and technique 4 (their step is half of ours).
    """
    gamma = sigmas[0] / sigmas[1]

    def variance(eta: float) -> float:
        a = 1 - eta / 2
        kept = a ** (2 * steps)
        return kept * gamma**2 + (1 - kept) * eta / (1 - a * a)

    return min((i / 1000 for i in range(1, 2000)), key=variance)


class PointNet(nn.Module):
    """An MLP on points and waves of t."""

    def __init__(self, dims: int, hidden: int, waves: int = 16) -> None:
        super().__init__()
        self.waves = SinusoidalFeatures(waves)
        self.net = mlp([dims + waves, hidden, hidden, hidden, dims])

    def forward(self, x: Float[Tensor, "b d"], t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        return self.net(torch.cat([x, self.waves(t)], 1))


def mlp_ncsn(dims: int = 2, hidden: int = 128, sigmas: Sequence[float] | None = None) -> NCSN:
    """Points; ten levels from 3 to 0.05 unless told otherwise, 20 Langevin steps each."""
    sigmas = sigmas or geometric_ladder(3.0, 0.05, 10)
    return NCSN(PointNet(dims, hidden), (dims,), sigmas, best_step(sigmas, 20), 20)


def unet_ncsn(
    channels: int, size: int, config: UNetConfig | None = None, sigmas: Sequence[float] | None = None
) -> NCSN:
    """Pictures in [−1, 1]."""
    sigmas = sigmas or geometric_ladder(20.0, 0.02, 40)
    net = UNet(channels, channels, config)
    return NCSN(net, (channels, size, size), sigmas, best_step(sigmas, 3), 3, bound=1.0)
