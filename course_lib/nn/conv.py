"""Convolutional pyramids: halve the side and double the channels, and back."""

from __future__ import annotations

from torch import nn


def conv_encoder(channels: int, size: int, out_features: int, width: int = 32) -> nn.Sequential:
    """Pictures (b, channels, size, size) to vectors (b, out_features); two stride-2 convolutions, then linear.

    Raises:
        ValueError: the size is not a multiple of 4.
    """
    side = _quarter(size)
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),  # (b, width, size/2, size/2)
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),  # (b, 2 width, size/4, size/4)
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(2 * width * side**2, 8 * width),
        nn.SiLU(),
        nn.Linear(8 * width, out_features),
    )


def conv_decoder(in_features: int, channels: int, size: int, width: int = 32) -> nn.Sequential:
    """Vectors (b, in_features) to pictures (b, channels, size, size), unbounded; the mirror of ``conv_encoder``.

    Raises:
        ValueError: the size is not a multiple of 4.
    """
    side = _quarter(size)
    return nn.Sequential(
        nn.Linear(in_features, 8 * width),
        nn.SiLU(),
        nn.Linear(8 * width, 2 * width * side**2),
        nn.SiLU(),
        nn.Unflatten(1, (2 * width, side, side)),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
    )


def _quarter(size: int) -> int:
    if size % 4:
        raise ValueError(f"the picture's side must be a multiple of 4, got {size}")
    return size // 4
