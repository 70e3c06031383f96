r"""Gated PixelCNN: two stacks without a blind spot, gated units, and a class label or a map at every gate.

.. math:: y = \tanh(W_f * x + V_f^\top c) ⊙ σ(W_g * x + V_g^\top c)

With a spatial map s in place of the label, V * s is a 1×1 convolution (section 2.3). The vertical stack sees all rows
above, the horizontal stack the pixels to the left and, through a 1×1 link, the vertical stack; together they see
everything before a pixel.

Van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, "Conditional image generation with PixelCNN
decoders", eqs. (2) and (4), figure 2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.pixelcnn import pointwise
from course_lib.autoregressive.raster import LogitsAt, naive, raster_log_prob, sample_raster


def gate(x: Float[Tensor, "b c2 *s"]) -> Float[Tensor, "b c *s"]:
    """tanh of the first half of the channels times sigmoid of the second."""
    f, g = x.chunk(2, 1)
    return f.tanh() * g.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2). The first layer hides the present row and pixel, and has no residual."""

    def __init__(self, fan_in: int, width: int, kernel: int, first: bool, classes: int, context: int) -> None:
        super().__init__()
        self.radius, self.kernel, self.first = kernel // 2, kernel, first
        rows = self.radius + (not first)  # the first layer must not see its own row …
        left = self.radius + (not first)  # … nor its own pixel
        self.vertical = nn.Conv2d(fan_in, 2 * width, (rows, kernel))
        self.horizontal = nn.Conv2d(fan_in, 2 * width, (1, left))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        # zero: the network starts as its unconditional self
        self.condition = nn.Parameter(torch.zeros(classes, 4 * width)) if classes else None
        self.see = nn.Conv2d(context, 4 * width, 1, bias=False) if context else None

    def biases(
        self, y: Int[Tensor, " b"] | None, context: Float[Tensor, "b s h w"] | None
    ) -> tuple[Float[Tensor, "#b d2 #h #w"], Float[Tensor, "#b d2 #h #w"]]:
        """What label and map add before the gates of the two stacks."""
        added = self.out.bias.new_zeros(1, 4 * len(self.out.bias), 1, 1)
        if self.condition is not None:
            added = added + self.condition[y][..., None, None]
        if self.see is not None:
            added = added + self.see(context)
        return added.chunk(2, 1)

    def forward(
        self,
        v: Float[Tensor, "b c h w"],
        h: Float[Tensor, "b c h w"],
        y: Int[Tensor, " b"] | None,
        context: Float[Tensor, "b s h w"] | None,
    ) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"]]:
        r, shift = self.radius, int(self.first)
        bias_v, bias_h = self.biases(y, context)
        # rows r above … the own one (first layer: up to the row before, hence the cut at the bottom)
        above = self.vertical(F.pad(v, (r, r, r, 0))[:, :, : v.shape[2] + r - shift])
        left = self.horizontal(F.pad(h, (r, 0, 0, 0))[..., : h.shape[3] + r - shift])
        out = self.out(gate(left + self.link(above) + bias_h))
        return gate(above + bias_v), out if self.first else h + out


class GatedStacks(nn.Module):
    """The body: symbols (b, h, w) to features (b, width, h, w), feature i from symbols before i only.

    Args:
        embed: symbols to (b, embed.channels, h, w), pointwise.
        width: channels of each stack.
        layers: gated layers; all but the first are 3×3.
        classes: labels to condition on; 0 = none.
        context: channels of a map (b, context, h, w) to condition on, place by place; 0 = none.
        first: odd side of the first layer's kernel. With few input channels a large one is cheap, and where it reaches
            the picture's border, the zeros there tell the network its position.
    """

    def __init__(
        self, embed: nn.Module, width: int, layers: int, classes: int = 0, context: int = 0, first: int = 7
    ) -> None:
        super().__init__()
        if first % 2 == 0 or first < 3:
            raise ValueError(f"the first kernel needs an odd side of at least 3, got {first}")
        self.embed, self.width, self.classes, self.context = embed, width, classes, context
        self.layers = nn.ModuleList(
            GatedLayer(width if i else embed.channels, width, 3 if i else first, i == 0, classes, context)
            for i in range(layers)
        )

    def forward(
        self,
        v: Int[Tensor, "b h w"],
        y: Int[Tensor, " b"] | None = None,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        self._check(v, y, context)
        vertical = horizontal = self.embed(v)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, y, context)
        return horizontal

    def _check(self, v: Tensor, y: Tensor | None, context: Tensor | None) -> None:
        if (y is None) != (self.classes == 0):
            raise ValueError(
                f"this model has {self.classes} classes, so labels must {'not ' * (not self.classes)}be given"
            )
        want = (len(v), self.context, *v.shape[1:]) if self.context else None
        got = None if context is None else tuple(context.shape)
        if got != want:
            raise ValueError(f"this model wants a context map of shape {want}, got {got}")

    def incremental(
        self,
        v: Int[Tensor, "b h w"],
        y: Int[Tensor, " b"] | None = None,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> LogitsAt:
        """Features (b, width) at one position: the vertical stack once a row, the horizontal one a pixel at a time."""
        self._check(v, y, context)
        b, height, width = v.shape
        zeros = lambda layer, rows: layer.vertical.bias.new_zeros(  # noqa: E731
            b, layer.vertical.in_channels, rows, width + 2 * layer.radius
        )
        above = [zeros(layer, height + layer.radius) for layer in self.layers]  # inputs of the vertical convolutions
        left = [zeros(layer, 1)[:, :, 0] for layer in self.layers]  # inputs of the horizontal ones, this row
        links: list[Tensor] = [None] * len(self.layers)  # the vertical stack's message to this row
        biases = [  # (b, 2c, h, w) each, whatever the conditioning is
            [bias.expand(b, 2 * self.width, height, width) for bias in layer.biases(y, context)]
            for layer in self.layers
        ]

        def start_row(v: Tensor, row: int) -> None:
            if row:
                r = self.layers[0].radius
                above[0][:, :, row - 1 + r, r : r + width] = self.embed(v[:, row - 1 : row])[:, :, 0]
            for i, layer in enumerate(self.layers):
                rows = layer.vertical.kernel_size[0]
                features = layer.vertical(above[i][:, :, row : row + rows])  # (b, 2c, 1, w)
                links[i] = layer.link(features)[:, :, 0]
                if i + 1 < len(self.layers):
                    bias = biases[i][0][:, :, row : row + 1]
                    r = self.layers[i + 1].radius
                    above[i + 1][:, :, row + r, r : r + width] = gate(features + bias)[:, :, 0]

        def features_at(v: Tensor, row: int, column: int) -> Tensor:
            if column == 0:
                start_row(v, row)
            else:
                new = self.embed(v[:, row : row + 1, column - 1 : column])[:, :, 0, 0]
                left[0][:, :, column - 1 + self.layers[0].radius] = new
            h = None
            for i, layer in enumerate(self.layers):
                taps = layer.horizontal.kernel_size[1]
                if i:
                    left[i][:, :, column + layer.radius] = h
                # the first layer stops before the pixel; left of the row there are zeros
                window = left[i][:, :, column : column + taps]
                new = F.linear(window.flatten(1), layer.horizontal.weight.flatten(1), layer.horizontal.bias)
                out = pointwise(layer.out, gate(new + links[i][:, :, column] + biases[i][1][:, :, row, column]))
                h = out if layer.first else h + out
            return h

        return features_at


class GatedPixelCNN(nn.Module):
    """Categorical pixels over the gated stacks; with ``classes`` it is the class-conditional PixelCNN.

    Args:
        embed: see ``raster.ScaledPixels`` (grey values) and ``raster.EmbeddedCodes`` (codes).
        width, layers, classes, context, first: see ``GatedStacks``.
    """

    def __init__(
        self,
        embed: nn.Module,
        width: int = 48,
        layers: int = 8,
        classes: int = 0,
        context: int = 0,
        first: int = 7,
    ) -> None:
        super().__init__()
        self.levels, self.classes, self.context = embed.levels, classes, context
        self.body = GatedStacks(embed, width, layers, classes, context, first)
        self.head = nn.ModuleList([nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, self.levels, 1)])

    def logits(
        self,
        v: Int[Tensor, "b h w"],
        y: Int[Tensor, " b"] | None = None,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Logits of p(v_i | v_<i, y, context) at every position."""
        return self.head[1](self.head[0](self.body(v, y, context).relu()).relu())

    def log_prob(
        self,
        v: Int[Tensor, "b h w"],
        y: Int[Tensor, " b"] | None = None,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Exact log p(v | y, context) in nats."""
        return raster_log_prob(self.logits(v, y, context), v)

    def loss(self, batch: Tensor | tuple[Tensor, ...]) -> Float[Tensor, ""]:
        """−log p in nats per picture, averaged; the batch is ``v``, ``(v, y)`` or ``(v, y, context)``."""
        return -self.log_prob(*(batch if isinstance(batch, tuple) else (batch,))).mean()

    def incremental(
        self,
        v: Int[Tensor, "b h w"],
        y: Int[Tensor, " b"] | None = None,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> LogitsAt:
        """Logits of one position; see ``GatedStacks.incremental``."""
        features_at = self.body.incremental(v, y, context)
        return lambda v, row, column: pointwise(
            self.head[1], pointwise(self.head[0], features_at(v, row, column).relu()).relu()
        )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        shape: tuple[int, int],
        y: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        cached: bool = True,
        context: Float[Tensor, "n s h w"] | None = None,
    ) -> Int[Tensor, "n h w"]:
        """n pictures of the given (h, w), of classes ``y`` and under maps ``context`` if the model has them."""
        v = torch.zeros(n, *shape, dtype=torch.long, device=self.head[0].bias.device)
        return self.complete(v, torch.zeros(shape, dtype=torch.bool), y, generator, cached, context)

    @torch.no_grad()
    def complete(
        self,
        v: Int[Tensor, "b h w"],
        known: Tensor,
        y: Int[Tensor, " b"] | None = None,
        generator: torch.Generator | None = None,
        cached: bool = True,
        context: Float[Tensor, "b s h w"] | None = None,
    ) -> Int[Tensor, "b h w"]:
        """Draw the pixels where ``known`` (h, w) is False, given those before them."""
        logits_at = self.incremental(v, y, context) if cached else naive(lambda u: self.logits(u, y, context))
        return sample_raster(logits_at, v, known, generator)
