"""Independent ways to a number: quadrature, Monte Carlo with its standard error, finite differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STANDARD_ERRORS = 5.0


def plane(extent: float, cells: int) -> tuple[Tensor, float]:
    """Midpoints of cells × cells squares over [−extent, extent]² in float64, and the area of one."""
    step = 2 * extent / cells
    axis = -extent + step * (torch.arange(cells, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(axis, axis), step**2


def on_points(function: Callable[[Tensor], Tensor], points: Tensor, chunk: int = 8192) -> Tensor:
    """``function(points)`` in pieces that fit in memory."""
    return torch.cat([function(piece) for piece in points.split(chunk)])


def integral(log_prob: Callable[[Tensor], Tensor], extent: float, cells: int = 256) -> float:
    """∫ exp(log_prob) over the square."""
    points, area = plane(extent, cells)
    return on_points(log_prob, points).exp().sum().item() * area


def assert_estimates(samples: Tensor, want: float | Tensor, slack: float = 0.0) -> None:
    """The mean of ``samples`` over the first axis is ``want`` within 5 standard errors."""
    mean, stderr = samples.mean(0), samples.std(0) / len(samples) ** 0.5
    worst = ((mean - want).abs() / (STANDARD_ERRORS * stderr + slack)).max().item()
    assert worst <= 1, f"{worst * STANDARD_ERRORS:.1f} standard errors off: {mean} for {want}"


def slope(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function of a vector."""
    nudges = step * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(function(x + e) - function(x - e)) / (2 * step) for e in nudges])


def assert_frequencies(symbols: Tensor, p: Tensor) -> None:
    """Symbols 0 … K − 1 occur as often as ``p`` says, within 5 standard errors (plus 5 counts if few are expected)."""
    n = symbols.numel()
    counts = torch.bincount(symbols.flatten(), minlength=len(p)).double()
    allowed = STANDARD_ERRORS * (n * p * (1 - p)).sqrt() + 5 * (n * p < 25)
    assert counts.numel() == len(p) and ((counts - n * p).abs() <= allowed).all(), f"{counts / n} for {p}"
