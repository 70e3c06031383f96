r"""Mean and covariance of a stream, merged from parts.

For parts A and B with n samples, mean μ and scatter S = Σ (x − μ)(x − μ)ᵀ, and δ = μ_B − μ_A:

.. math::
    n = n_A + n_B, \qquad μ = μ_A + δ \frac{n_B}{n}, \qquad S = S_A + S_B + δ δ^T \frac{n_A n_B}{n}

(Chan, Golub & LeVeque 1983). Nothing cancels as in E[xxᵀ] − μμᵀ, and 50,000 pictures cost the memory of one d × d
matrix. Parts may come from different processes: a ``Moments`` pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import feature_matrix


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter Σ (x − μ)(x − μ)ᵀ in float64; ``a + b`` are the moments of both parts together."""

    n: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Moments:
        """Of samples that are all here.

        Raises:
            ValueError: not a finite matrix with at least one row.
        """
        x = feature_matrix("features", features)
        mean = x.mean(0)
        centred = x - mean
        return cls(len(x), mean, centred.T @ centred)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased one, divided by n − 1, as FID uses it.

        Raises:
            ValueError: there are fewer than two samples.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.scatter / (self.n - 1)

    def __add__(self, other: Moments) -> Moments:
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge moments of {len(self.mean)} and {len(other.mean)} features")
        n = self.n + other.n
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) * (self.n * other.n / n)
        return Moments(n, self.mean + delta * (other.n / n), self.scatter + other.scatter + between)


@torch.no_grad()
def of_batches(features: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Moments:
    """Moments of ``features(batch)`` over all batches, holding one batch of features at a time.

    Args:
        features: a network from pictures to (b, d); any callable does, ``lambda x: x.flatten(1)`` for raw pixels.
        batches: pictures, as ``x.split(256)`` gives them.

    Raises:
        ValueError: no batches, or features that are not finite (b, d).
    """
    total = None
    for batch in batches:
        part = Moments.of(features(batch))
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there were no batches")
    return total
