r"""From "which of the two is better?" to a strength for each system (Bradley & Terry 1952).

.. math:: P(i \text{ beats } j) = \frac{p_i}{p_i + p_j}, \qquad
          p_i ← \frac{W_i}{\sum_{j ≠ i} n_{ij} / (p_i + p_j)}, \qquad θ_i = \log p_i

W_i are i's wins, n_ij the comparisons of i with j. The update is a minorize–maximize step (Hunter 2004): the likelihood
rises at every step, to its only maximum if, however the systems are split in two groups, each group has won against
the other (Ford 1957). Strengths have no zero point; here the mean of θ is 0. A difference of log 3 is 3 : 1 odds, and
400/log 10 · θ is the Elo scale.

A tie counts as half a win for each. That keeps the estimate, and as a tie varies less than two wins would, the standard
errors of many ties are too large, not too small. A model with a probability of ties is Davidson's (1970).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Real
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from course_lib.metrics.inputs import require_finite

MAX_STEPS = 100_000


@dataclass(frozen=True)
class BradleyTerry:
    """Log-strengths θ (mean 0) in nats and the covariance of their estimates, from the Fisher information."""

    theta: Float[Tensor, " k"]
    covariance: Float[Tensor, "k k"]

    @property
    def stderr(self) -> Float[Tensor, " k"]:
        """Of θ, relative to the mean of all."""
        return self.covariance.diagonal().clamp_min(0).sqrt()

    def interval(self, level: float = 0.95) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Normal confidence interval θ ± z · stderr."""
        half = _quantile(level, self.theta) * self.stderr
        return self.theta - half, self.theta + half

    def difference(self, i: int, j: int, level: float = 0.95) -> tuple[float, float, float]:
        """θ_i − θ_j and its interval. Overlapping intervals of i and j do not settle whether they differ; this does."""
        gap = self.theta[i] - self.theta[j]
        c = self.covariance
        half = _quantile(level, gap) * (c[i, i] + c[j, j] - 2 * c[i, j]).clamp_min(0).sqrt()
        return gap.item(), (gap - half).item(), (gap + half).item()

    def probabilities(self) -> Float[Tensor, "k k"]:
        """P(i beats j)."""
        return (self.theta.unsqueeze(1) - self.theta).sigmoid()


def count_wins(winners: Int[Tensor, " n"], losers: Int[Tensor, " n"], k: int) -> Int[Tensor, "k k"]:
    """wins[i, j]: how often i was preferred to j, from a list of votes.

    Raises:
        ValueError: an index is outside 0 … k − 1, or a system was compared with itself.
    """
    if winners.shape != losers.shape:
        raise ValueError(f"{len(winners)} winners and {len(losers)} losers")
    both = torch.cat([winners, losers])
    if len(both) and (both.min() < 0 or both.max() >= k):
        raise ValueError(f"systems are numbered 0 … {k - 1}, got {both.min().item()} … {both.max().item()}")
    if (winners == losers).any():
        raise ValueError("a system was compared with itself")
    return (winners * k + losers).bincount(minlength=k * k).view(k, k)


def bradley_terry(wins: Real[Tensor, "k k"], ties: Real[Tensor, "k k"] | None = None) -> BradleyTerry:
    """Maximum-likelihood strengths.

    Args:
        wins: wins[i, j] = how often i was preferred to j; zero diagonal.
        ties: ties[i, j] = ties[j, i] = how often neither was preferred.

    Raises:
        ValueError: counts are negative or have the wrong shape; or the comparisons do not determine the strengths,
            because some systems were never compared with the others, or never lost (or never won) against them.
    """
    counts = _counts(wins, ties)
    _require_comparable(counts)
    played, won = counts + counts.T, counts.sum(1)
    theta = torch.zeros_like(won)
    for _ in range(MAX_STEPS):
        p = theta.exp()
        rates = played / (p.unsqueeze(1) + p)  # n_ij / (p_i + p_j)
        expected = p * rates.sum(1)
        if (expected - won).abs().max() <= 1e-10 * played.sum():  # the likelihood equations
            break
        theta = (won / rates.sum(1)).log()
        theta = theta - theta.mean()
    else:
        raise ValueError(f"no maximum after {MAX_STEPS} steps: the comparisons barely connect the systems")
    information = -played * _variance(theta)  # a graph Laplacian: its null space is the missing zero point
    information = information - information.sum(1).diag()
    return BradleyTerry(theta, torch.linalg.pinv(information, hermitian=True))


def _variance(theta: Float[Tensor, " k"]) -> Float[Tensor, "k k"]:
    """p_ij (1 − p_ij) of one comparison, off the diagonal."""
    p = (theta.unsqueeze(1) - theta).sigmoid()
    return (p * (1 - p)).fill_diagonal_(0)


def _quantile(level: float, like: Tensor) -> Tensor:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level is between 0 and 1, got {level}")
    return torch.special.ndtri(like.new_tensor((1 + level) / 2))


def _counts(wins: Tensor, ties: Tensor | None) -> Float[Tensor, "k k"]:
    """Wins plus half of the ties, in float64."""
    ties = torch.zeros_like(wins) if ties is None else ties
    for name, matrix in (("wins", wins), ("ties", ties)):
        if matrix.ndim != 2 or matrix.shape != (len(wins), len(wins)) or len(wins) < 2:
            raise ValueError(f"{name} must be a matrix (k, k) for k ≥ 2 systems, got {tuple(matrix.shape)}")
        require_finite(name, matrix)
        if (matrix < 0).any() or matrix.diagonal().any():
            raise ValueError(f"{name} must be counts ≥ 0 with a zero diagonal")
    if not torch.equal(ties, ties.T):
        raise ValueError("ties must be symmetric: ties[i, j] and ties[j, i] are the same comparisons")
    return wins.double() + ties.double() / 2


def _require_comparable(counts: Float[Tensor, "k k"]) -> None:
    graph = counts.cpu().numpy() > 0
    parts, part = connected_components(graph, directed=False)
    if parts > 1:
        groups = [(part == i).nonzero()[0].tolist() for i in range(parts)]
        raise ValueError(f"these groups of systems were never compared with each other: {groups}; compare across them")
    parts, part = connected_components(graph, directed=True, connection="strong")
    for i in range(parts if parts > 1 else 0):
        inside = part == i
        group = inside.nonzero()[0].tolist()
        for verb, against in (("lost", graph[~inside][:, inside]), ("won", graph[inside][:, ~inside])):
            if not against.any():
                raise ValueError(
                    f"systems {group} never {verb} against the others, so their strength has no finite estimate: "
                    "collect more votes, or add half a win for each side of every compared pair"
                )
