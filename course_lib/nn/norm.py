"""Group normalization, and layers that start at zero."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class PreciseGroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018) in the precision of its parameters, whatever autocast hands it.

    The statistics need the digits, and torch's CPU kernel for bfloat16 in channels-last layout is five times slower.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.to(self.weight.dtype))


def group_norm(channels: int) -> PreciseGroupNorm:
    """At most 8 groups, of at least 4 channels each."""
    return PreciseGroupNorm(min(8, channels // 4), channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with its weights and biases at zero: a residual branch that starts as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
