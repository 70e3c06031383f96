r"""Perceptual path length: how fast pictures change along a straight walk in latent space (Karras et al. 2019).

.. math:: PPL = \mathbb E\Big[\frac1{ε^2}\, d\big(G(\mathrm{lerp}(a, b; t)),\; G(\mathrm{lerp}(a, b; t + ε))\big)\Big],
          \qquad t ∼ U(0, 1)

d is quadratic in small changes, hence ε²: the value does not depend on ε while ε is small. Walks go straight in W and
along the great circle in Z, where Gaussian latents have all but constant norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import require_finite

Walk = Callable[[Tensor, Tensor, Tensor], Tensor]


class PathLength(NamedTuple):
    """Mean over the pairs that were kept, and its standard error."""

    value: float
    stderr: float


def lerp(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The straight line (1 − t) a + t b."""
    return torch.lerp(a, b, t.unsqueeze(1))


def slerp(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The arc [sin((1 − t) ω) a + sin(t ω) b] / sin ω, ω the angle between a and b (Shoemake 1985).

    Vectors of equal norm keep it. (Nearly) parallel ones have no arc and take the straight line.
    """
    cosine = torch.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    omega = cosine.acos()
    sine = omega.sin()
    straight = sine < 1e-4
    safe = torch.where(straight, 1.0, sine)
    arc = (((1 - t) * omega).sin() / safe).unsqueeze(1) * a + ((t * omega).sin() / safe).unsqueeze(1) * b
    return torch.where(straight.unsqueeze(1), lerp(a, b, t), arc)


def path_speeds(
    generate: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    ends: tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]],
    t: Float[Tensor, " b"],
    epsilon: float = 1e-4,
    walk: Walk = lerp,
) -> Float[Tensor, " b"]:
    """d(G(t), G(t + ε))/ε² on each walk, in float64.

    Args:
        generate: latents (b, d) to pictures.
        distance: pairs of pictures to one number each, quadratic in small differences.
        ends: latents a and b of each walk.
        t: where on each walk; zeros give the paper's "end" variant.
        epsilon: step. A float32 generator resolves no steps much below 1e-4.
        walk: ``lerp`` in W, ``slerp`` in Z.

    Raises:
        ValueError: ε ≤ 0, shapes do not fit, NaN or infinity.
    """
    a, b = ends
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if a.shape != b.shape or a.ndim != 2 or t.shape != a.shape[:1]:
        raise ValueError(f"need ends (b, d) twice and t (b,), got {a.shape}, {b.shape} and {t.shape}")
    # in float64, so that the only rounding is that of the latents themselves, where the generator is float32
    here, there = (walk(a.double(), b.double(), s.double()).to(a.dtype) for s in (t.double(), t.double() + epsilon))
    speeds = distance(generate(here), generate(there)).double() / epsilon**2
    if speeds.shape != t.shape:
        raise ValueError(f"distance must give one number per pair, ({len(t)},), got {tuple(speeds.shape)}")
    require_finite("path speeds", speeds)
    return speeds


@torch.no_grad()
def perceptual_path_length(
    generate: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    ends: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]],
    *,
    epsilon: float = 1e-4,
    walk: Walk = lerp,
    trim: float = 0.01,
    chunk: int = 256,
    generator: torch.Generator | None = None,
) -> PathLength:
    """Mean speed over random places of all walks.

    Args:
        generate, distance, ends, epsilon, walk: as for ``path_speeds``.
        trim: share of the slowest and of the fastest walks left out (the authors' code: 1 % each).
        chunk: walks at a time.
        generator: of t.

    Raises:
        ValueError: fewer than two walks, trim outside [0, ½), and as ``path_speeds``.
    """
    a, b = ends
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim must be in [0, 0.5), got {trim}")
    if len(a) < 2:
        raise ValueError(f"need at least 2 walks, got {len(a)}")
    device = generator.device if generator is not None else a.device
    t = torch.rand(len(a), generator=generator, device=device, dtype=torch.float64).to(a.device)
    parts = zip(a.split(chunk), b.split(chunk), t.split(chunk), strict=True)
    speeds = torch.cat([path_speeds(generate, distance, (p, q), s, epsilon, walk) for p, q, s in parts])
    dropped = int(trim * len(speeds))
    kept = speeds.sort().values[dropped : len(speeds) - dropped]
    return PathLength(kept.mean().item(), kept.std().item() / len(kept) ** 0.5)
