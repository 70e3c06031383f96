r"""Differentiable augmentation: the discriminator never sees an unaugmented picture, real or fake.

.. math::
    L_D = E_x[f(-D(T(x)))] + E_z[f(D(T(G(z))))], \qquad L_G = E_z[g(D(T(G(z))))]

With few data D memorizes them and its advice becomes worthless. Augmenting data alone teaches G the augmentation; the
same random T on both sides, differentiable so that G's gradient passes through it, leaves the target p = q where it
was.

Zhao, Liu, Lin, Zhu & Han 2020, "Differentiable augmentation for data-efficient GAN training", eq. (4)-(6). (Saturation,
the paper's third colour policy, does nothing to grey pictures and is left out.)

Policies take pictures (b, c, h, w) in [−1, 1] and draw anew for each of them. What moves in from outside is 0, as in
the paper: middle grey, so that a shift stays visible and cannot be mistaken for part of the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Pictures = Float[Tensor, "b c h w"]
Policy = Callable[[Tensor, torch.Generator | None], Tensor]


def brightness(x: Pictures, generator: torch.Generator | None = None) -> Pictures:
    """Add a number from U(−½, ½) to all of a picture."""
    return x + _uniform(x, generator) - 0.5


def contrast(x: Pictures, generator: torch.Generator | None = None) -> Pictures:
    """Multiply a picture's differences from its mean by a number from U(½, 3⁄2)."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (_uniform(x, generator) + 0.5) + mean


def translation(x: Pictures, generator: torch.Generator | None = None, ratio: float = 0.125) -> Pictures:
    """Shift by a whole number of pixels, up to ``ratio`` of the side in each direction; 0 moves in."""
    b, c, h, w = x.shape
    down, right = (_integers(x, round(side * ratio), generator) for side in (h, w))  # (b, 1, 1)
    row, column = (torch.arange(side, device=x.device) for side in (h, w))
    row, column = row.view(1, h, 1) - down, column.view(1, 1, w) - right  # where each pixel comes from
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    source = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).flatten(1).unsqueeze(1)  # (b, 1, h w)
    return x.flatten(2).gather(2, source.expand(b, c, h * w)).view_as(x) * inside.unsqueeze(1)


def cutout(x: Pictures, generator: torch.Generator | None = None, ratio: float = 0.5) -> Pictures:
    """Set a square of ``ratio`` of the side to 0; its centre is anywhere, so part of it may lie outside."""
    h, w = x.shape[-2:]
    offsets = []
    for side in (h, w):
        centre = torch.randint(side, (len(x), 1), generator=generator, device=x.device)
        start = centre - round(side * ratio) // 2
        position = torch.arange(side, device=x.device)
        offsets.append((position >= start) & (position < start + round(side * ratio)))  # (b, side)
    hole = offsets[0].unsqueeze(2) & offsets[1].unsqueeze(1)  # (b, h, w)
    return x * ~hole.unsqueeze(1)


def diffaugment(*policies: Policy, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
    """The policies one after the other, as ``GAN(..., augment=diffaugment(translation, cutout))``; none = identity.

    Args:
        policies: e.g. ``brightness``, ``contrast``, ``translation``, ``cutout``.
        generator: of the random numbers; default: the global one, which ``fit`` seeds.
    """

    def augment(x: Tensor) -> Tensor:
        for policy in policies:
            x = policy(x, generator)
        return x

    return augment


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)


def _integers(x: Tensor, largest: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(-largest, largest + 1, (len(x), 1, 1), generator=generator, device=x.device)
