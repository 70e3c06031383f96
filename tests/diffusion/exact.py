"""A diffusion model whose network is the truth: data from a mixture of Gaussians, ε from its exact score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.diffusion.ddpm import DDPM, Variance
from course_lib.diffusion.parametrization import EPSILON, Parametrization
from course_lib.maths.mixture import GaussianMixture
from course_lib.maths.schedules import Schedule


def scaled(mixture: GaussianMixture, scale: float, std: float) -> GaussianMixture:
    """The law of scale · x + std · ε."""
    moved = GaussianMixture(mixture.weights, scale * mixture.means, scale**2 * mixture.covariances)
    return moved.noised(std)


class ExactNetwork(nn.Module):
    """The best possible prediction at whole t (all t of a batch must be equal)."""

    def __init__(self, mixture: GaussianMixture, schedule: Schedule, parametrization: Parametrization) -> None:
        super().__init__()
        self.mixture, self.schedule, self.parametrization = mixture, schedule, parametrization
        self.anchor = nn.Parameter(torch.zeros(1, dtype=mixture.means.dtype))  # says where, and how precise

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        assert (t == t[0]).all() and t[0] == t[0].round()
        a = self.schedule.alpha_bar[int(t[0])].to(xt)
        score = scaled(self.mixture, float(a.sqrt()), float((1 - a).sqrt())).score(xt)
        eps = -(1 - a).sqrt() * score
        return self.parametrization.target((xt - (1 - a).sqrt() * eps) / a.sqrt(), eps, a)


def exact_ddpm(
    mixture: GaussianMixture,
    schedule: Schedule,
    parametrization: Parametrization = EPSILON,
    variance: Variance | None = None,
) -> DDPM:
    network, shape = ExactNetwork(mixture, schedule, parametrization), (mixture.means.shape[1],)
    return DDPM(network, schedule, shape, parametrization, clip=False, variance=variance)


def lopsided() -> GaussianMixture:
    """Three unequal Gaussians in the plane, float64."""
    means = torch.tensor([[-1.2, 0.0], [0.8, 0.9], [0.8, -0.9]], dtype=torch.float64)
    covariances = torch.diag_embed(torch.tensor([[0.05, 0.2], [0.1, 0.1], [0.03, 0.03]], dtype=torch.float64))
    return GaussianMixture(torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), means, covariances)
