"""A small convolutional classifier whose last hidden layer serves as features for metrics on digits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """Pictures to logits; ``features`` is what FID, KID and precision/recall on digits are computed on.

    Args:
        channels: of the pictures; their side must be a multiple of 4.
        classes: labels.
        width: channels at full resolution; 2 and 4 times as many below.
        dims: numbers of features.
        dropout: before the last layer.
    """

    def __init__(
        self, channels: int = 1, classes: int = 10, width: int = 24, dims: int = 64, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(channels, width, 1),
            *_block(width, 2 * width, 2),
            *_block(2 * width, 2 * width, 1),
            *_block(2 * width, 4 * width, 2),
            *_block(4 * width, 4 * width, 1),
            nn.AdaptiveAvgPool2d(3),  # keeps where things are: 3×3 places
            nn.Flatten(),
            nn.Linear(9 * 4 * width, dims),
        )
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(dims, classes))

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The last hidden layer, before its nonlinearity."""
        return self.body(x)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.head(self.features(x))

    @torch.no_grad()
    def probabilities(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """p(label | x), computed in parts of 500 pictures."""
        return torch.cat([self(part).softmax(1) for part in x.split(500)])


def _block(fan_in: int, fan_out: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(fan_in, fan_out, 3, stride, 1), nn.GroupNorm(8, fan_out), nn.SiLU()
