"""Self-attention between the places of a feature map."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.nn.norm import group_norm, zeroed


class SelfAttention2d(nn.Module):
    """Every place attends to every place; a residual branch that starts at zero.

    Wang et al. 2018, "Non-local neural networks", with the scaled dot product of Vaswani et al. 2017, eq. (1).

    Args:
        channels: of the map, a multiple of 8.
        heads: must divide the channels.
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide among {heads} heads")
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        places = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2)
        q, k, v = places.unbind(1)  # (b, heads, h w, c / heads)
        # written out: on the CPU the fused kernel's backward pass takes five times as long on maps this small
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # (b, heads, h w, h w)
        return x + self.out((weights @ v).transpose(-1, -2).reshape(b, c, h, w))
