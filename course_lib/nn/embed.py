r"""Numbers as vectors of waves, so that a network can tell neighbouring times or noise levels apart.

.. math:: γ(t) = [\sin(ω_1 t), …, \sin(ω_{d/2} t), \cos(ω_1 t), …, \cos(ω_{d/2} t)]

Fixed frequencies between 1 and 1/10,000: Vaswani et al. 2017, section 3.5 (DDPM's time embedding). Random Gaussian
frequencies: Tancik et al. 2020, "Fourier features", as in Song et al. 2021, "Score-based generative modeling".
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SinusoidalFeatures(nn.Module):
    """Waves of geometric frequency 1 … 1/10,000, for t on the scale 0 … 1000.

    Args:
        dims: d, even.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("omega", _half(dims, torch.logspace(0, -4, dims // 2)), persistent=False)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        return _waves(t, self.omega)


class FourierFeatures(nn.Module):
    """Waves of random frequency 2π·scale·N(0, 1), for t on the scale of ±1 (a log noise level, say).

    Args:
        dims: d, even.
        scale: the larger, the finer are the differences of t that the features tell apart.
    """

    def __init__(self, dims: int, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("omega", _half(dims, 2 * math.pi * scale * torch.randn(dims // 2)))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        return _waves(t, self.omega)


def _half(dims: int, omega: Tensor) -> Tensor:
    if dims < 2 or dims % 2:
        raise ValueError(f"sines and cosines need an even number of dimensions, got {dims}")
    return omega


def _waves(t: Tensor, omega: Tensor) -> Tensor:
    angle = t.to(omega).unsqueeze(-1) * omega
    return torch.cat([angle.sin(), angle.cos()], -1)
