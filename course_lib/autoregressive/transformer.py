r"""Decoder-only transformer over a sequence of symbols (image codes in raster order, words, …).

.. math:: \text{softmax}(Q K^\top / \sqrt{d} + \text{mask})\, V

with a mask that hides later positions; pre-norm blocks, learnt positions, and a symbol that stands before the first.

Vaswani et al. 2017, "Attention is all you need"; Radford et al. 2019 (pre-norm, decoder only); over picture codes:
Esser, Rombach & Ommer 2021. Sampling keeps every layer's keys and values, so that a step attends without recomputing
the past.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.maths.discrete import prefix_length, sample_categorical


class CausalBlock(nn.Module):
    """x + attention(norm x), then x + MLP(norm x)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide among {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def split(self, x: Float[Tensor, "b t c"]) -> list[Float[Tensor, "b n t d"]]:
        """Queries, keys and values of all heads."""
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)]

    def finish(self, x: Float[Tensor, "b t c"], attended: Float[Tensor, "b n t d"]) -> Float[Tensor, "b t c"]:
        """Everything after attention."""
        x = x + F.dropout(self.out(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)
        return x + self.mlp(self.norm2(x))

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        q, k, v = self.split(x)
        return self.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))


class CausalTransformer(nn.Module):
    """Sequences of ``levels`` symbols of at most ``length``.

    Args:
        levels: symbols.
        length: longest sequence.
        width, heads, layers: of the blocks.
        classes: labels to condition on (the label takes the place of the first symbol's predecessor); 0 = none.
        dropout: in the residual branches.
    """

    def __init__(
        self,
        levels: int,
        length: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 4,
        classes: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.levels, self.length, self.classes = levels, length, classes
        self.symbols = nn.Embedding(levels, width)
        self.starts = nn.Embedding(max(1, classes), width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(CausalBlock(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, levels)
        for table in (self.symbols, self.starts):
            nn.init.normal_(table.weight, std=0.02)

    def logits(self, v: Int[Tensor, "b t"], y: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b k t"]:
        """Logits of p(v_t | v_<t, y) at every position."""
        x = torch.cat([self._start(len(v), y).unsqueeze(1), self.symbols(v[:, :-1])], 1) + self.positions[: v.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).mT

    def _start(self, n: int, y: Tensor | None) -> Tensor:
        if (y is None) != (self.classes == 0):
            raise ValueError(
                f"this model has {self.classes} classes, so labels must {'not ' * (not self.classes)}be given"
            )
        return self.starts.weight[:1].expand(n, -1) if y is None else self.starts(y)

    def log_prob(self, v: Int[Tensor, "b t"], y: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b"]:
        """Exact log p(v | y) in nats."""
        return -F.cross_entropy(self.logits(v, y), v, reduction="none").sum(1)

    def loss(self, batch: Tensor | tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """−log p in nats per sequence, averaged; the batch is ``v`` or ``(v, y)``."""
        return -self.log_prob(*(batch if isinstance(batch, tuple) else (batch,))).mean()

    def incremental(self, n: int, y: Int[Tensor, " n"] | None = None) -> Callable[[Tensor | None], Tensor]:
        """``step(symbol before, or None at the start) -> logits (n, K)``, with keys and values of the past kept."""
        weight = self.positions
        shape = (n, self.blocks[0].heads, self.length, weight.shape[1] // self.blocks[0].heads)
        caches = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.blocks]
        time = 0

        def step(previous: Tensor | None) -> Tensor:
            nonlocal time
            x = self._start(n, y) if previous is None else self.symbols(previous)
            x = (x + self.positions[time]).unsqueeze(1)
            for block, (keys, values) in zip(self.blocks, caches, strict=True):
                q, k, v = block.split(x)
                keys[:, :, time], values[:, :, time] = k[:, :, 0], v[:, :, 0]
                past = slice(None, time + 1)
                x = block.finish(x, F.scaled_dot_product_attention(q, keys[:, :, past], values[:, :, past]))
            time += 1
            return self.head(self.norm(x[:, 0]))

        return step

    @torch.no_grad()
    def sample(
        self,
        n: int,
        length: int | None = None,
        y: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        cached: bool = True,
        prefix: Int[Tensor, "n s"] | None = None,
    ) -> Int[Tensor, "n t"]:
        """n sequences; ``cached=False`` runs the whole network over the sequence so far for every symbol.

        With a ``prefix`` they begin with these symbols, and the rest is drawn given them (a continuation).

        Raises:
            ValueError: the prefix is not n sequences of at most ``length`` symbols.
        """
        length = length or self.length
        known = prefix_length(prefix, n, length)
        device = self.positions.device
        uniforms = torch.rand(length, n, generator=generator, device=device)
        v = torch.zeros(n, length, dtype=torch.long, device=device)
        step = self.incremental(n, y) if cached else None
        previous = None
        for t in range(length):
            logits = step(previous) if cached else self.logits(v[:, : t + 1], y)[:, :, t]
            v[:, t] = previous = prefix[:, t] if t < known else sample_categorical(logits, uniforms[t])
        return v
