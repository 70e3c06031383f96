r"""What every flow shares: change of variables.

.. math:: z = f(x), \qquad \log p(x) = \log p_z(f(x)) + \log\left|\det \frac{\partial f(x)}{\partial x^\top}\right|

A layer maps ``forward(x) -> (z, log-det)`` and ``inverse(z) -> (x, log-det)``, each with the log-determinant of its own
Jacobian, one number per example; log-dets of composed layers add. Dinh, Krueger & Bengio 2015; Dinh, Sohl-Dickstein
& Bengio 2017, eqs. (2)–(3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.maths.gaussian import standard_normal_log_prob


class Chain(nn.ModuleList):
    """Layers one after the other."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)

    def forward(self, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b *t"], Float[Tensor, " b"]]:
        total = x.new_zeros(len(x))
        for layer in self:
            x, logdet = layer(x)
            total = total + logdet
        return x, total

    def inverse(self, z: Float[Tensor, "b *t"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        total = z.new_zeros(len(z))
        for layer in reversed(self):
            z, logdet = layer.inverse(z)
            total = total + logdet
        return z, total


class Flow(nn.Module):
    """A density: layers that bring data to N(0, I).

    Args:
        layers: a layer (usually a ``Chain``) from data of the given shape to any shape with as many numbers.
        shape: of one example.
    """

    def __init__(self, layers: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers, self.shape = layers, shape
        self.dims = int(torch.Size(shape).numel())

    def encode(self, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
        """Latents, flattened, and log |det ∂z/∂x|."""
        z, logdet = self.layers(x)
        return z.flatten(1), logdet

    def decode(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b *s"]:
        """The point whose latents are z."""
        return self.layers.inverse(z)[0]

    def log_prob(self, x: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
        """Exact log-density in nats."""
        z, logdet = self.encode(x)
        return standard_normal_log_prob(z) + logdet

    def loss(self, x: Float[Tensor, "b *s"]) -> Float[Tensor, ""]:
        """−log p per number, in nats, averaged over the batch (per number, so that learning rates carry over)."""
        return -self.log_prob(x).mean() / self.dims

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Float[Tensor, "n *s"]:
        """n points; ``temperature`` < 1 shrinks the latents, as Glow's pictures do (section 5)."""
        weight = next(self.parameters())
        z = torch.randn(n, self.dims, generator=generator, device=weight.device, dtype=weight.dtype)
        return self.decode(z * temperature)


class Flatten(nn.Module):
    """Pictures to vectors; the last layer of a flow over pictures without splits."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, z: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        return z.unflatten(1, self.shape), z.new_zeros(len(z))


class Squeeze(nn.Module):
    """2 × 2 pixels become four channels: (c, h, w) to (4c, h/2, w/2) (Real NVP, section 3.6)."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c4 h2 w2"], Float[Tensor, " b"]]:
        return nn.functional.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Float[Tensor, "b c4 h2 w2"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        return nn.functional.pixel_shuffle(z, 2), z.new_zeros(len(z))


class MultiScale(nn.Module):
    """Half of the channels leave after each level; the rest goes on (Real NVP, section 3.6).

    Args:
        levels: chains, each from (c, h, w) to (c', h', w') with an even c'.
        shapes: (c', h', w') of each level's output, before half of it leaves (nothing leaves after the last).
    """

    def __init__(self, levels: Sequence[nn.Module], shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.levels, self.shapes = nn.ModuleList(levels), list(shapes)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
        total, left = x.new_zeros(len(x)), []
        for i, level in enumerate(self.levels):
            x, logdet = level(x)
            total = total + logdet
            if i + 1 < len(self.levels):
                out, x = x.chunk(2, 1)
                left.append(out.flatten(1))
        return torch.cat([*left, x.flatten(1)], 1), total

    def inverse(self, z: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        total = z.new_zeros(len(z))
        sizes = [(c // 2 if i + 1 < len(self.shapes) else c) * h * w for i, (c, h, w) in enumerate(self.shapes)]
        parts = list(z.split(sizes, 1))
        x = parts.pop().unflatten(1, self.shapes[-1])
        for i in reversed(range(len(self.levels))):
            if i + 1 < len(self.levels):
                c, h, w = self.shapes[i]
                x = torch.cat([parts.pop().unflatten(1, (c // 2, h, w)), x], 1)
            x, logdet = self.levels[i].inverse(x)
            total = total + logdet
        return x, total


class Logit(nn.Module):
    r"""Grey values in (−1, 1) to the whole line: logit(α + (1 − 2α) (x + 1)/2) (Real NVP, section 4.1; α = 0.05)."""

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        p = self.alpha + (1 - 2 * self.alpha) * (x + 1) / 2
        z = p.log() - (-p).log1p()
        # dz/dp = 1/(p(1 − p)), dp/dx = (1 − 2α)/2
        scale = x.new_tensor((1 - 2 * self.alpha) / 2).log()
        return z, (scale - p.log() - (-p).log1p()).flatten(1).sum(1)

    def inverse(self, z: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, "b *s"], Float[Tensor, " b"]]:
        p = z.sigmoid()
        x = 2 * (p - self.alpha) / (1 - 2 * self.alpha) - 1
        scale = z.new_tensor((1 - 2 * self.alpha) / 2).log()
        return x, -(scale - nn.functional.logsigmoid(z) - nn.functional.logsigmoid(-z)).flatten(1).sum(1)
