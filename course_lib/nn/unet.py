r"""The U-Net of diffusion models: pictures to pictures of the same side, told a time and, if wanted, a label.

Residual blocks at falling resolution, then back, each block on the way up reading what its twin on the way down wrote;
self-attention where the map is small. How the time enters a block is a part of its own:

.. math:: \text{added:}\; GN(h + W γ(t)) \qquad \text{adaptive group norm:}\; (1 + s(t)) ⊙ GN(h) + b(t)

Ronneberger, Fischer & Brox 2015 (U-Net); Ho, Jain & Abbeel 2020, appendix B (added); Dhariwal & Nichol 2021,
section 3.1 (adaptive group norm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.nn.attention import SelfAttention2d
from course_lib.nn.embed import SinusoidalFeatures
from course_lib.nn.norm import group_norm, zeroed


class Added(nn.Module):
    """GN(h + W γ): the embedding moves every channel before the normalization."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm, self.move = group_norm(channels), nn.Linear(embedding, channels)

    def forward(self, h: Float[Tensor, "b c h w"], gamma: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        return self.norm(h + self.move(gamma)[..., None, None])


class AdaptiveGroupNorm(nn.Module):
    """(1 + s) ⊙ GN(h) + b: the embedding scales and moves every channel after the normalization."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm, self.scale_shift = group_norm(channels), nn.Linear(embedding, 2 * channels)

    def forward(self, h: Float[Tensor, "b c h w"], gamma: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.scale_shift(gamma)[..., None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(h), 1 + scale)


@dataclass(frozen=True)
class UNetConfig:
    """Everything about a U-Net but its channels at both ends.

    Attributes:
        width: channels at the finest level, a multiple of 8.
        mults: channels of each level, in units of ``width``; every further level halves the side.
        blocks: residual blocks per level, on the way down and on the way up.
        attention: levels (0 = finest) with self-attention after each block; the middle always has it.
        classes: labels that can be told; 0 = none.
        patch: p × p pixels become channels first, which makes everything p² times cheaper at some loss of detail.
        dropout: inside the residual blocks.
        features: dimension to a module that turns times into vectors.
        modulation: how those enter a block: ``Added`` or ``AdaptiveGroupNorm``.
    """

    width: int = 32
    mults: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (2,)
    classes: int = 0
    patch: int = 1
    dropout: float = 0.0
    features: Callable[[int], nn.Module] = SinusoidalFeatures
    modulation: Callable[[int, int], nn.Module] = AdaptiveGroupNorm

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"the width of a U-Net must be a multiple of 8, got {self.width}")

    @property
    def multiple(self) -> int:
        """The side of a picture must be a multiple of this."""
        return self.patch * 2 ** (len(self.mults) - 1)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(modulated(conv(SiLU(GN(x)))))); starts as the identity (or a 1×1 convolution)."""

    def __init__(self, fan_in: int, fan_out: int, embedding: int, config: UNetConfig, attend: bool) -> None:
        super().__init__()
        self.norm, self.first = group_norm(fan_in), nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.modulated = config.modulation(fan_out, embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.second = zeroed(nn.Conv2d(fan_out, fan_out, 3, padding=1))
        self.skip = nn.Conv2d(fan_in, fan_out, 1) if fan_in != fan_out else nn.Identity()
        self.attention = SelfAttention2d(fan_out) if attend else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"], gamma: Float[Tensor, "b e"]) -> Float[Tensor, "b d h w"]:
        h = self.first(F.silu(self.norm(x)))
        h = self.second(self.dropout(F.silu(self.modulated(h, gamma))))
        return self.attention(self.skip(x) + h)


class UNet(nn.Module):
    """f(x, t, y) with the side of x.

    The last convolution starts at zero, so an untrained U-Net returns zero.

    Args:
        fan_in, fan_out: channels of what it reads and writes.
        config: see ``UNetConfig``.
    """

    def __init__(self, fan_in: int, fan_out: int, config: UNetConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or UNetConfig()
        area, embedding = config.patch**2, 4 * config.width
        widths = [config.width * m for m in config.mults]
        self.fan_in = fan_in
        self.time = nn.Sequential(
            config.features(2 * config.width), nn.Linear(2 * config.width, embedding), nn.SiLU(),
            nn.Linear(embedding, embedding),
        )  # fmt: skip
        # one row more than there are labels: "no label" (Ho & Salimans 2022)
        self.label = nn.Embedding(config.classes + 1, embedding) if config.classes else None
        self.stem = nn.Conv2d(area * fan_in, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            attend = level in config.attention
            self.shrink.append(nn.Conv2d(widths[level - 1], width, 3, 2, 1) if level else nn.Identity())
            self.grow.append(nn.Conv2d(width, widths[level - 1], 3, padding=1) if level else nn.Identity())
            block = lambda fan_in, width=width, attend=attend: ResidualBlock(  # noqa: E731
                fan_in, width, embedding, config, attend
            )
            self.down.append(nn.ModuleList(block(width) for _ in range(config.blocks)))
            self.up.append(nn.ModuleList(block(2 * width) for _ in range(config.blocks)))
        self.middle = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1], embedding, config, attend) for attend in (True, False)
        )
        self.norm, self.out = group_norm(widths[0]), zeroed(nn.Conv2d(widths[0], area * fan_out, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        """The output at times t (any real numbers), told labels y; label ``classes``, or no y, says "no label".

        Raises:
            ValueError: the side does not divide as often as the levels halve it, or labels were not expected.
        """
        self._check(x, y)
        gamma = self.time(t)
        if self.label is not None:
            y = t.new_full(t.shape, self.config.classes, dtype=torch.long) if y is None else y
            gamma = gamma + self.label(y)
        gamma = F.silu(gamma)
        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        twins = []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            h = shrink(h)
            for block in blocks:
                h = block(h, gamma)
                twins.append(h)
        for block in self.middle:
            h = block(h, gamma)
        for level in reversed(range(len(self.up))):
            for block in self.up[level]:
                h = block(torch.cat([h, twins.pop()], 1), gamma)
            if level:
                h = self.grow[level](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), self.config.patch)

    def _check(self, x: Tensor, y: Tensor | None) -> None:
        multiple = self.config.multiple
        if x.shape[1] != self.fan_in or x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"this U-Net reads pictures of {self.fan_in} channels whose sides are multiples of {multiple}, "
                f"got {tuple(x.shape)}"
            )
        if y is not None and self.label is None:
            raise ValueError("this U-Net was built without labels (UNetConfig(classes=…)), but labels were given")
