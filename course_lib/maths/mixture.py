r"""Mixtures of Gaussians, whose density, score and samples are all exact.

.. math:: p(x) = \sum_k w_k\, N(x; μ_k, Σ_k), \qquad
          ∇\log p(x) = \sum_k p(k \mid x)\, Σ_k^{-1} (μ_k - x)

The work horse of this course: the truth that models are compared with. Expectation–maximization: Dempster, Laird &
Rubin 1977.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture:
    """K Gaussians in d dimensions.

    Attributes:
        weights: w_k, positive, summing to 1.
        means: μ_k.
        covariances: Σ_k, symmetric positive definite.
    """

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]

    def __post_init__(self) -> None:
        k, d = self.means.shape
        if self.weights.shape != (k,) or self.covariances.shape != (k, d, d):
            raise ValueError(
                f"{k} means in {d} dimensions need weights ({k},) and covariances ({k}, {d}, {d}), got "
                f"{tuple(self.weights.shape)} and {tuple(self.covariances.shape)}"
            )
        if (
            not torch.isclose(self.weights.sum(), torch.ones_like(self.weights[0]), atol=1e-4)
            or (self.weights < 0).any()
        ):
            raise ValueError(f"weights must be ≥ 0 and sum to 1, got sum {self.weights.sum().item():.6f}")

    @classmethod
    def isotropic(cls, means: Float[Tensor, "k d"], std: float) -> GaussianMixture:
        """Equal weights, covariance std² I."""
        k, d = means.shape
        eye = torch.eye(d, dtype=means.dtype, device=means.device)
        return cls(means.new_full((k,), 1 / k), means, (std**2 * eye).expand(k, d, d).contiguous())

    @property
    def modes(self) -> int:
        return len(self.weights)

    def double(self) -> GaussianMixture:
        """The same in float64, for integrals and identities."""
        return GaussianMixture(self.weights.double(), self.means.double(), self.covariances.double())

    def log_joint(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """log p(x, k) = log w_k + log N(x; μ_k, Σ_k), in nats."""
        chol = torch.linalg.cholesky(self.covariances)  # (k, d, d)
        centred = (x - self.means.unsqueeze(1)).mT  # (k, d, b): one solve per component, not per point
        whitened = torch.linalg.solve_triangular(chol, centred, upper=False)
        half_logdet = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_norm = half_logdet + 0.5 * x.shape[-1] * math.log(2 * math.pi)
        return self.weights.log() - log_norm - 0.5 * whitened.square().sum(1).T

    def log_prob(self, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """log p(x) in nats."""
        return self.log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """p(k | x)."""
        return self.log_joint(x).softmax(-1)

    def score(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """∇ log p(x)."""
        pull = torch.linalg.solve(self.covariances, (self.means - x.unsqueeze(1)).unsqueeze(-1)).squeeze(-1)
        return (self.responsibilities(x).unsqueeze(-1) * pull).sum(1)

    def sample_labelled(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """Points and the component each came from."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        chol = torch.linalg.cholesky(self.covariances)
        noise = torch.randn(n, self.means.shape[1], 1, generator=generator, device=chol.device, dtype=chol.dtype)
        return self.means[component] + (chol[component] @ noise).squeeze(-1), component

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """n points."""
        return self.sample_labelled(n, generator)[0]

    def noised(self, std: float) -> GaussianMixture:
        """The law of x + std·ε: convolution with a Gaussian adds std² I to every covariance."""
        eye = torch.eye(self.means.shape[1], dtype=self.means.dtype, device=self.means.device)
        return GaussianMixture(self.weights, self.means, self.covariances + std**2 * eye)


def expectation_maximization(
    x: Float[Tensor, "b d"], modes: int, steps: int = 100, ridge: float = 1e-6, seed: int = 0
) -> tuple[GaussianMixture, Float[Tensor, " steps"]]:
    """Fit a mixture by EM; returns it and the mean log-likelihood before every step, which never falls.

    Args:
        x: data.
        modes: number of components; their means start at k-means++ seeds.
        steps: EM iterations.
        ridge: added to the covariances' diagonal, against a component that shrinks onto one point.
        seed: of the initialization.
    """
    if not 1 <= modes <= len(x):
        raise ValueError(f"cannot fit {modes} modes to {len(x)} points")
    b, d = x.shape
    generator = torch.Generator(x.device).manual_seed(seed)
    means = x[torch.randint(b, (1,), generator=generator, device=x.device)]
    while len(means) < modes:  # k-means++: far points are likelier seeds
        far = torch.cdist(x, means).amin(1).square()
        means = torch.cat([means, x[torch.multinomial(far, 1, generator=generator)]])
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    mixture = GaussianMixture(x.new_full((modes,), 1 / modes), means, (x.var(0).mean() * eye).expand(modes, d, d))
    history = x.new_zeros(steps)
    for step in range(steps):
        log_joint = mixture.log_joint(x)
        history[step] = log_joint.logsumexp(-1).mean()
        r = log_joint.softmax(-1)  # E-step: (b, k)
        mass = r.sum(0).clamp_min(torch.finfo(x.dtype).tiny)
        means = (r.T @ x) / mass.unsqueeze(-1)  # M-step
        centred = x.unsqueeze(1) - means  # (b, k, d)
        covariances = torch.einsum("bk,bki,bkj->kij", r, centred, centred) / mass[:, None, None] + ridge * eye
        mixture = GaussianMixture(mass / mass.sum(), means, covariances)
    return mixture, history
