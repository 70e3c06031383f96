r"""Convolutions that look only at pixels before their own, in raster order (left to right, top to bottom).

Van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks", section 3.4: mask A hides the centre
too (first layer), mask B shows it (later layers, whose centre already knows only earlier pixels).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedConv2d(nn.Module):
    """k × k convolution over the half plane above and the pixels to the left; output has the size of the input.

    Only the taps that the mask shows are parameters: the kernel is stored as the rows above (k//2, k) and the left
    part of the middle row, which is all that a step of cached sampling multiplies.

    Args:
        fan_in, fan_out: channels.
        kernel: odd side k.
        centre: see the pixel itself (mask B) or not (mask A).
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int, centre: bool) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a masked kernel needs an odd side, got {kernel}")
        if kernel == 1 and not centre:
            raise ValueError("a 1×1 kernel without its centre shows nothing")
        self.radius, self.kernel = kernel // 2, kernel
        reach = self.radius * kernel + self.radius + centre
        self.taps = nn.Parameter(torch.empty(fan_out, fan_in, reach))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        nn.init.normal_(self.taps, std=(fan_in * reach) ** -0.5)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        r, k = self.radius, self.kernel
        weight = F.pad(self.taps, (0, (r + 1) * k - self.taps.shape[-1])).unflatten(-1, (r + 1, k))
        return F.conv2d(F.pad(x, (r, r, r, 0)), weight, self.bias)

    def at(self, padded: Float[Tensor, "b c hp wp"], row: int, column: int) -> Float[Tensor, "b d"]:
        """Output at one pixel, from the input padded by ``radius`` on top, left and right."""
        r, k = self.radius, self.kernel
        window = padded[:, :, row : row + r + 1, column : column + k].flatten(2)  # (b, c, (r + 1) k)
        taps = self.taps.shape[-1]
        return F.linear(window[:, :, :taps].flatten(1), self.taps.flatten(1), self.bias)
