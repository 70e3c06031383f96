r"""Energy-based model, trained by maximum likelihood with Langevin samples from a replay buffer.

.. math::
    p_θ(x) &= e^{-E_θ(x) / T} / Z_θ, \qquad Z_θ = \int e^{-E_θ(x) / T} dx \\
    -T\, ∇_θ E_{data}[\log p_θ(x)] &= E_{x \sim data}[∇_θ E_θ(x)] - E_{\tilde x \sim p_θ}[∇_θ E_θ(\tilde x)] \\
    \tilde x &← \tilde x - \tfrac{λ}{2} ∇_x E_θ(\tilde x) + \sqrt{λ T}\, z \qquad
        \text{(Langevin on } -E_θ / T \text{ with step } λT\text{)} \\
    L(θ) &= E_{data}[E_θ(x)] - E_{\tilde x}[E_θ(\tilde x)] + w\, E[E_θ(x)^2 + E_θ(\tilde x)^2]

Chains go on where they ended the last time: they lie in a replay buffer, of which 5 % restart from noise. x̃ counts as a
constant in L. The energy lives on a box [−r, r]^d, so Z is finite whatever the network says; the chain is kept inside.

Du & Mordatch 2019, "Implicit generation and modeling with energy-based models", Algorithm 1. Customary for pictures is
λ/2 = 10 with noise of standard deviation 0.005: that is a temperature of T ≈ 10⁻⁶, not 1. The sampler is the same; a
network whose energies are a million times larger would have T = 1.
Persistent chains: Tieleman 2008 (persistent contrastive divergence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.maths.langevin import langevin
from course_lib.nn.conv import conv_encoder
from course_lib.nn.mlp import mlp


@dataclass(frozen=True)
class Chain:
    """How the model is sampled.

    Attributes:
        step: λ: x moves by −(λ/2) ∇E.
        temperature: T: the noise has standard deviation √(λT).
        steps: per training step.
        clip: largest move by the gradient, per coordinate and step; a guard against steep places (inf = none).
        extent: r, half the side of the box.
    """

    step: float = 0.02
    temperature: float = 1.0
    steps: int = 20
    clip: float = math.inf
    extent: float = 3.0

    def __post_init__(self) -> None:
        if min(self.step, self.temperature, self.clip, self.extent) <= 0 or self.steps < 1:
            raise ValueError(f"step, temperature, clip and extent must be positive and steps at least 1, got {self}")


class EBM(nn.Module):
    """An energy and the chains that sample it.

    Args:
        net: data (b, …) to energies (b,), unbounded.
        shape: of one example.
        chain: how it is sampled.
        buffer: chains that persist.
        restart: share of the chains that begin anew, at noise that fills the box, in every training step.
        weight: w of the squared energies, which ties down the constant that L does not see.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, ...],
        chain: Chain | None = None,
        buffer: int = 4096,
        restart: float = 0.05,
        weight: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 <= restart <= 1 or buffer < 1:
            raise ValueError(f"restart must be in [0, 1] and the buffer not empty, got {restart} and {buffer}")
        self.net, self.shape, self.chain = net, tuple(shape), chain or Chain()
        self.restart, self.weight = restart, weight
        self.register_buffer("replay", (torch.rand(buffer, *shape) * 2 - 1) * self.chain.extent)

    def energy(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
        """E_θ(x); p(x) ∝ exp(−E(x)/T) on the box."""
        return self.net(x)

    def score(self, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """∇_x log p(x) = −∇_x E(x) / T, without a graph."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(x).sum(), x)[0] / self.chain.temperature

    def run(
        self, x: Float[Tensor, "b *shape"], steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b *shape"]:
        """Continue chains from x, inside the box."""
        chain = self.chain
        alpha = chain.step * chain.temperature  # the step of Langevin on the score, −∇E/T
        steepest = 2 * chain.clip / alpha

        def drift(points: Tensor) -> Tensor:
            return self.score(points).clamp(-steepest, steepest)

        for _ in range(steps):
            x = langevin(drift, x, alpha, 1, generator).clamp(-chain.extent, chain.extent)
        return x

    def noise(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *shape"]:
        """Where chains begin: uniform in the box."""
        u = torch.rand(n, *self.shape, generator=generator, device=self.replay.device, dtype=self.replay.dtype)
        return (u * 2 - 1) * self.chain.extent

    def negatives(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *shape"]:
        """Continue n chains of the buffer (a share of them from fresh noise) and put them back."""
        at, dtype = self.replay.device, self.replay.dtype
        chosen = torch.randint(len(self.replay), (n,), generator=generator, device=at)
        fresh = torch.rand(n, generator=generator, device=at, dtype=dtype) < self.restart
        fresh = fresh.view(n, *[1] * len(self.shape))
        start = torch.where(fresh, self.noise(n, generator), self.replay[chosen])
        x = self.run(start, self.chain.steps, generator)
        self.replay[chosen] = x
        return x

    def loss(self, x: Float[Tensor, "b *shape"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Energy of data minus energy of samples, plus w · squared energies; moves the buffer on."""
        fake = self.negatives(len(x), generator)
        energy = self.energy(torch.cat([x, fake]))
        return self.contrast(energy) + self.weight * 2 * energy.square().mean()

    @staticmethod
    def contrast(energy: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Mean energy of the first half (data) minus that of the second (samples): its gradient is T times that of
        −log p; its value is no likelihood and need not fall."""
        real, fake = energy.chunk(2)
        return real.mean() - fake.mean()

    def sample(
        self, n: int, steps: int | None = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n *shape"]:
        """n chains from fresh noise, ``steps`` long (default: 5 times the training length)."""
        return self.run(self.noise(n, generator), 5 * self.chain.steps if steps is None else steps, generator)


def mlp_ebm(dims: int = 2, hidden: int = 128, chain: Chain | None = None, buffer: int = 4096) -> EBM:
    """Points in a box; temperature 1."""
    return EBM(nn.Sequential(mlp([dims, hidden, hidden, hidden, 1]), nn.Flatten(0)), (dims,), chain, buffer)


# small energies, a cold chain: see the module's note on the temperature
PICTURE_CHAIN = Chain(step=20.0, temperature=0.005**2 / 20, steps=30, clip=0.03, extent=1.0)


def conv_ebm(channels: int, size: int, width: int = 32, chain: Chain | None = None, buffer: int = 2048) -> EBM:
    """Pictures in [−1, 1] (side a multiple of 4); a smooth network without normalization."""
    net = nn.Sequential(conv_encoder(channels, size, 1, width), nn.Flatten(0))
    return EBM(net, (channels, size, size), chain or PICTURE_CHAIN, buffer, weight=0.1)
