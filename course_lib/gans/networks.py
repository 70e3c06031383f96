"""Generators and discriminators that the papers of this folder share.

Discriminators end in one number per example, (b,), unless told how many; none ends in a sigmoid. Picture generators end
in tanh, so pictures are in [−1, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.nn.mlp import mlp

Norm = Callable[[int], nn.Module]  # channels to a normalization layer
INIT_STD = 0.02  # Radford et al. 2016, section 4


def leaky() -> nn.Module:
    """LeakyReLU with slope 0.2, the discriminator's activation since Radford et al. 2016."""
    return nn.LeakyReLU(0.2)


def mlp_generator(latent: int, dims: int = 2, hidden: int = 128) -> nn.Sequential:
    """Codes (b, latent) to points (b, dims), unbounded; three hidden layers."""
    return mlp([latent, hidden, hidden, hidden, dims], nn.ReLU)


def mlp_discriminator(dims: int = 2, hidden: int = 128) -> nn.Sequential:
    """Points (b, dims) to one number each, (b,); three hidden layers."""
    return nn.Sequential(*mlp([dims, hidden, hidden, hidden, 1], leaky), nn.Flatten(0))


def sides(size: int) -> list[int]:
    """Sides of the feature maps from coarse to fine: halve while even and above 4 (28: 7, 14, 28; 32: 4, 8, 16, 32).

    Raises:
        ValueError: the coarsest side would be above 8.
    """
    found = [size]
    while found[-1] % 2 == 0 and found[-1] > 4:
        found.append(found[-1] // 2)
    if found[-1] > 8 or len(found) < 2:
        raise ValueError(f"the picture's side must be 5 … 8 or 4, times a power of 2 (8, 28, 32, 64 …), got {size}")
    return found[::-1]


def conv_generator(
    latent: int, channels: int, size: int, width: int = 32, norm: Norm | None = nn.BatchNorm2d
) -> nn.Sequential:
    """Codes (b, latent) to pictures (b, channels, size, size) in [−1, 1]: project, then double the side with 4×4
    transposed convolutions, ``width`` channels before the last. Radford et al. 2016, figure 1."""
    maps = sides(size)
    widths = [width * 2**i for i in reversed(range(len(maps) - 1))]
    layers: list[nn.Module] = [
        nn.Linear(latent, widths[0] * maps[0] ** 2),
        nn.Unflatten(1, (widths[0], maps[0], maps[0])),
        *_norm(norm, widths[0]),
        nn.ReLU(),
    ]
    for fan_in, fan_out in itertools.pairwise(widths):
        up = nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1, bias=norm is None)
        layers += [up, *_norm(norm, fan_out), nn.ReLU()]
    last = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
    return dcgan_init(nn.Sequential(*layers, last, nn.Tanh()))


def conv_trunk(
    channels: int, size: int, width: int = 32, norm: Norm | None = nn.BatchNorm2d, hidden: int = 0
) -> nn.Sequential:
    """Pictures (b, channels, size, size) to features (b, ``trunk_features(size, width, hidden)``): the generator's
    mirror, 4×4 convolutions of stride 2, no normalization after the first.

    Args:
        channels, size: of the pictures.
        width: channels after the first convolution; they double as the side halves.
        norm: None where examples must not see each other: under R1 or a gradient penalty, or with spectral
            normalization.
        hidden: units of a fully connected layer at the end; 0 = none. Without it a read-out is a sum of opinions on
            patches (10×10 pixels at size 28): it cannot notice that plausible strokes do not make one digit.
    """
    widths = [width * 2**i for i in range(len(sides(size)) - 1)]
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), leaky()]
    for fan_in, fan_out in itertools.pairwise(widths):
        down = nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1, bias=norm is None)
        layers += [down, *_norm(norm, fan_out), leaky()]
    layers.append(nn.Flatten())
    if hidden:
        layers += [nn.Linear(trunk_features(size, width), hidden), leaky()]
    return dcgan_init(nn.Sequential(*layers))


def _norm(norm: Norm | None, channels: int) -> list[nn.Module]:
    return [] if norm is None else [norm(channels)]


def trunk_features(size: int, width: int = 32, hidden: int = 0) -> int:
    """Length of the vectors that ``conv_trunk`` returns."""
    maps = sides(size)
    return hidden or width * 2 ** (len(maps) - 2) * maps[0] ** 2


def conv_discriminator(
    channels: int, size: int, width: int = 32, norm: Norm | None = nn.BatchNorm2d, hidden: int = 0
) -> nn.Sequential:
    """Pictures (b, channels, size, size) to one number each, (b,): ``conv_trunk`` and a linear layer."""
    head = dcgan_init(nn.Linear(trunk_features(size, width, hidden), 1))
    return nn.Sequential(*conv_trunk(channels, size, width, norm, hidden), head, nn.Flatten(0))


def dcgan_init(module: nn.Module) -> nn.Module:
    """Weights from N(0, 0.02²), batch-norm scales from N(1, 0.02²), biases 0; returns the module."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, INIT_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, INIT_STD)
    return module


class Labelled(nn.Module):
    """A network that is told a label: one-hot entries beside a vector, constant planes beside the channels of a map.

    Args:
        net: takes ``classes`` more inputs (channels) than the data have.
        classes: number of labels.
    """

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net, self.classes = net, classes

    def forward(self, x: Float[Tensor, "b c *shape"], y: Int[Tensor, " b"]) -> Tensor:
        one_hot = F.one_hot(y, self.classes).to(x.dtype)
        planes = one_hot.view(*one_hot.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
        return self.net(torch.cat([x, planes], 1))


class Heads(nn.Module):
    """Several linear read-outs of one trunk, each computed from the same features.

    Args:
        trunk: data to features (b, f).
        features: f.
        outputs: length of each read-out; a read-out of length 1 is returned as (b,).
    """

    def __init__(self, trunk: nn.Module, features: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(dcgan_init(nn.Linear(features, n)) for n in outputs)

    def forward(self, x: Float[Tensor, "b *shape"]) -> tuple[Tensor, ...]:
        features = self.trunk(x)
        return tuple(head(features).squeeze(1) if head.out_features == 1 else head(features) for head in self.heads)
