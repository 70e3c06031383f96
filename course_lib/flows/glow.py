r"""Glow: actnorm, invertible 1×1 convolution, affine coupling.

.. math::
    y = s ⊙ x + b, \quad \log\det = h w \sum \log|s|; \qquad
    y_{ij} = W x_{ij}, \quad \log\det = h w \log|\det W|, \quad W = P L (U + \mathrm{diag}\, s)

With the LU form the determinant costs O(c) instead of O(c³): log |det W| = Σ log |s|.

Kingma & Dhariwal 2018, "Glow: generative flow with invertible 1×1 convolutions", table 1, eqs. (9)–(11).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.flows.flow import Chain, Flow, Logit, MultiScale, Squeeze


class ActNorm(nn.Module):
    """Scale and shift per channel, set by the first batch so that it leaves with mean 0 and variance 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("ready", torch.tensor(False))

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        ones = (1,) * (x.ndim - 2)
        places = x[0, 0].numel()
        return self.log_scale.view(-1, *ones), self.shift.view(-1, *ones), places

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        flat = x.transpose(0, 1).flatten(1)
        if flat.shape[1] < 2:
            raise ValueError("actnorm sets itself from its first batch: one number per channel has no variance")
        self.log_scale.copy_(-(flat.std(1) + 1e-6).log())
        self.shift.copy_(-flat.mean(1) * self.log_scale.exp())
        self.ready.fill_(True)

    def forward(self, x: Float[Tensor, "b c *s"]) -> tuple[Float[Tensor, "b c *s"], Float[Tensor, " b"]]:
        if self.training and not x.is_meta and not self.ready:
            self._start(x)
        log_scale, shift, places = self._shaped(x)
        return x * log_scale.exp() + shift, (places * self.log_scale.sum()).expand(len(x))

    def inverse(self, y: Float[Tensor, "b c *s"]) -> tuple[Float[Tensor, "b c *s"], Float[Tensor, " b"]]:
        log_scale, shift, places = self._shaped(y)
        return (y - shift) * (-log_scale).exp(), (-places * self.log_scale.sum()).expand(len(y))


class InvertibleConv1x1(nn.Module):
    """Mixes the channels of every place with one matrix, kept as P L (U + diag s); starts as a random rotation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        p, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        self.register_buffer("p", p)
        self.register_buffer("sign", s.sign())
        self.log_s = nn.Parameter(s.abs().log())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))

    def _factors(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(len(self.p), device=self.p.device, dtype=self.lower.dtype)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())

    def matrix(self) -> Float[Tensor, "c c"]:
        """W."""
        lower, upper = self._factors()
        return self.p @ lower @ upper

    def _logdet(self, x: Tensor) -> Tensor:
        return (x[0, 0].numel() * self.log_s.sum()).expand(len(x))

    def forward(self, x: Float[Tensor, "b c *s"]) -> tuple[Float[Tensor, "b c *s"], Float[Tensor, " b"]]:
        # einsum is one matrix product; W @ x would be one for each example, half as fast
        flat = x.reshape(*x.shape[:2], -1)
        return torch.einsum("ij,bjn->bin", self.matrix(), flat).view_as(x), self._logdet(x)

    def inverse(self, y: Float[Tensor, "b c *s"]) -> tuple[Float[Tensor, "b c *s"], Float[Tensor, " b"]]:
        lower, upper = self._factors()
        x = self.p.T @ y.reshape(*y.shape[:2], -1)
        x = torch.linalg.solve_triangular(lower, x, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, x, upper=True).view_as(y), -self._logdet(y)


class Coupling(nn.Module):
    """Affine coupling on halves of the channels: y_b = (x_b + t) ⊙ s, s = sigmoid(a + 2), as in the paper's code."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = channels // 2
        last = nn.Conv2d(width, 2 * (channels - half), 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.half = half
        self.net = nn.Sequential(
            nn.Conv2d(half, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        xa, xb = x[:, : self.half], x[:, self.half :]
        a, t = self.net(xa).chunk(2, 1)
        log_s = nn.functional.logsigmoid(a + 2)
        return torch.cat([xa, (xb + t) * log_s.exp()], 1), log_s.flatten(1).sum(1)

    def inverse(self, y: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        ya, yb = y[:, : self.half], y[:, self.half :]
        a, t = self.net(ya).chunk(2, 1)
        log_s = nn.functional.logsigmoid(a + 2)
        return torch.cat([ya, yb * (-log_s).exp() - t], 1), -log_s.flatten(1).sum(1)


def glow(shape: tuple[int, int, int], levels: int = 2, steps: int = 6, width: int = 64, alpha: float = 0.05) -> Flow:
    """Pictures in (−1, 1): logit, then per level squeeze, ``steps`` × (actnorm, 1×1, coupling), split.

    ``alpha`` is the logit's: small values leave the many pixels that are exactly 0 or 1 more room.

    Raises:
        ValueError: a side is not a multiple of 2^levels.
    """
    c, h, w = shape
    if h % 2**levels or w % 2**levels:
        raise ValueError(f"{levels} levels halve the sides {levels} times, but they are {h} × {w}")
    chains: list[nn.Module] = []
    shapes: list[tuple[int, int, int]] = []
    for level in range(levels):
        c, h, w = 4 * c, h // 2, w // 2
        chain: list[nn.Module] = [Logit(alpha), Squeeze()] if level == 0 else [Squeeze()]
        for _ in range(steps):
            chain += [ActNorm(c), InvertibleConv1x1(c), Coupling(c, width)]
        chains.append(Chain(chain))
        shapes.append((c, h, w))
        c //= 2
    return Flow(MultiScale(chains, shapes), shape)
