r"""Score matching: learn s_θ(x) ≈ ∇_x log p(x) from samples of p, without a normalizing constant.

.. math::
    \text{explicit:}  \quad & \tfrac12 ‖s(x) - ∇\log p(x)‖^2 && \text{needs the truth; for toys}\\
    \text{implicit:}  \quad & \operatorname{tr} ∇s(x) + \tfrac12 ‖s(x)‖^2 && = \text{explicit} - \tfrac12 E‖∇\log p‖^2
        \text{ in the mean}\\
    \text{sliced:}    \quad & v^\top ∇s(x)\, v + \tfrac12 (v^\top s(x))^2, && E[v v^\top] = I\\
    \text{sliced, variance-reduced:} \quad & v^\top ∇s(x)\, v + \tfrac12 ‖s(x)‖^2 && E_v = \text{implicit}\\
    \text{denoising:} \quad & \tfrac12 ‖s(x + σε) + ε/σ‖^2 && \text{minimized by } ∇\log(p * N(0, σ^2 I))

Every function returns one value per example; a loss is their mean. ``score`` maps (b, d) to (b, d), each row by itself.
Directions and noise are arguments, so expectations over them can be taken exactly.

Hyvärinen 2005, "Estimation of non-normalized statistical models by score matching", theorem 1 (the implicit form);
Vincent 2011, "A connection between score matching and denoising autoencoders" (denoising, and these names); Song, Garg,
Shi & Ermon 2019, "Sliced score matching" (SSM and SSM-VR).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.maths.langevin import Score, langevin
from course_lib.nn.mlp import mlp

Objective = Callable[[Score, Tensor], Tensor]  # (score, x) to one value per example


def divergence(score: Score, x: Float[Tensor, "b d"]) -> tuple[Float[Tensor, " b"], Float[Tensor, "b d"]]:
    """tr ∇s(x) = Σ_i ∂s_i/∂x_i exactly, by d backward passes; and s(x). Differentiable in the score's parameters."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = score(x)
        rows = [torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
        return torch.stack(rows).sum(0), s


def directional(
    score: Score, x: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b d"]]:
    """vᵀ ∇s(x) v by one backward pass, whatever d is; and s(x)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = score(x)
        (pulled,) = torch.autograd.grad((v * s).sum(), x, create_graph=True)  # ∇sᵀ v
        return (pulled * v).sum(1), s


def explicit_loss(score: Score, x: Float[Tensor, "b d"], truth: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """½ ‖s(x) − ∇log p(x)‖²; half the Fisher divergence in the mean over x ~ p."""
    return 0.5 * (score(x) - truth).square().sum(1)


def implicit_loss(score: Score, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """tr ∇s(x) + ½ ‖s(x)‖²."""
    trace, s = divergence(score, x)
    return trace + 0.5 * s.square().sum(1)


def sliced_loss(score: Score, x: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """vᵀ ∇s v + ½ (vᵀ s)²: along one direction per example."""
    slope, s = directional(score, x, v)
    return slope + 0.5 * (v * s).sum(1).square()


def sliced_vr_loss(score: Score, x: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """vᵀ ∇s v + ½ ‖s‖²: the second term's mean over v, E (vᵀs)² = ‖s‖², taken by hand."""
    slope, s = directional(score, x, v)
    return slope + 0.5 * s.square().sum(1)


def denoising_loss(
    score: Score, x: Float[Tensor, "b *shape"], noise: Float[Tensor, "b *shape"], sigma: float
) -> Float[Tensor, " b"]:
    """½ ‖s(x + σε) + ε/σ‖²; −ε/σ is the score of N(x̃; x, σ² I) at x̃ = x + σε."""
    return 0.5 * (score(x + sigma * noise) + noise / sigma).square().flatten(1).sum(1)


def rademacher(x: Float[Tensor, "b d"], generator: torch.Generator | None = None) -> Float[Tensor, "b d"]:
    """Independent entries ±1: E[v vᵀ] = I, and of all laws with independent entries the least variance of vᵀAv."""
    return torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype).round() * 2 - 1


def sliced(score: Score, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """``sliced_vr_loss`` along one random direction per example: an ``Objective``."""
    return sliced_vr_loss(score, x, rademacher(x))


def denoising(sigma: float) -> Objective:
    """``denoising_loss`` with fresh noise: an ``Objective``.

    Raises:
        ValueError: sigma is not positive.
    """
    if sigma <= 0:
        raise ValueError(f"denoising score matching needs noise, got sigma = {sigma}")
    return lambda score, x: denoising_loss(score, x, torch.randn_like(x), sigma)


class ScoreModel(nn.Module):
    """A score of points: a vector field, not necessarily the gradient of anything.

    Args:
        net: points (b, d) to scores (b, d).
        dims: d.
        objective: ``implicit_loss``, ``sliced`` or ``denoising(sigma)``.
        step: of the Langevin dynamics that samples it.
        extent: chains start uniformly in [−extent, extent]^d.
    """

    def __init__(
        self, net: nn.Module, dims: int, objective: Objective, step: float = 0.01, extent: float = 3.0
    ) -> None:
        super().__init__()
        self.net, self.dims, self.objective = net, dims, objective
        self.step, self.extent = step, extent

    def score(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """s_θ(x)."""
        return self.net(x)

    def loss(self, x: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """Mean of the objective; may be negative."""
        return self.objective(self.score, x).mean()

    @torch.no_grad()
    def sample(self, n: int, steps: int = 500, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Plain Langevin from a box; finds modes, but not their weights."""
        weight = next(self.parameters())
        u = torch.rand(n, self.dims, generator=generator, device=weight.device, dtype=weight.dtype)
        return langevin(self.score, (u * 2 - 1) * self.extent, self.step, steps, generator)


def mlp_score(objective: Objective, dims: int = 2, hidden: int = 128, step: float = 0.01) -> ScoreModel:
    """Three hidden layers; smooth activations, because implicit and sliced losses differentiate the network twice."""
    return ScoreModel(mlp([dims, hidden, hidden, hidden, dims]), dims, objective, step)
