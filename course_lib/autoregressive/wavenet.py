r"""WaveNet: dilated causal convolutions over raw audio.

.. math:: z = \tanh(W_f *_d x) ⊙ σ(W_g *_d x), \qquad \text{residual: } x + W_r z, \quad \text{skip: } W_s z

With kernel 2 and dilations 1, 2, 4, …, 2^{L−1} the output at t sees exactly 2^L samples. Samples are mu-law
companded to 256 levels: f(x) = sign(x) log(1 + μ|x|) / log(1 + μ), μ = 255.

Van den Oord, Dieleman, Zen et al. 2016, "WaveNet: a generative model for raw audio", sections 2.1–2.4. Cached
sampling with one queue a layer: Le Paine et al. 2016, "Fast Wavenet generation algorithm".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.maths.discrete import prefix_length, sample_categorical


def mu_law(x: Float[Tensor, "*s"], levels: int = 256) -> Int[Tensor, "*s"]:
    """Sound in [−1, 1] to 0 … levels − 1, finer near silence."""
    mu = levels - 1
    companded = x.clamp(-1, 1).sign() * torch.log1p(mu * x.clamp(-1, 1).abs()) / math.log1p(mu)
    return ((companded + 1) / 2 * mu).round().long()


def mu_law_inverse(v: Int[Tensor, "*s"], levels: int = 256) -> Float[Tensor, "*s"]:
    """Levels back to sound in [−1, 1]."""
    mu = levels - 1
    companded = 2 * v.float() / mu - 1
    return companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu


class DilatedLayer(nn.Module):
    """A gated unit with kernel 2 and a dilation, its residual and its skip connection."""

    def __init__(self, width: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.gated = nn.Conv1d(width, 2 * width, 2, dilation=dilation)
        self.out = nn.Conv1d(width, width + skip, 1)
        self.width = width

    def forward(self, x: Float[Tensor, "b c t"]) -> tuple[Float[Tensor, "b c t"], Float[Tensor, "b s t"]]:
        f, g = self.gated(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        residual, skip = self.out(f.tanh() * g.sigmoid()).split([self.width, self.out.out_channels - self.width], 1)
        return x + residual, skip

    def step(self, past: Float[Tensor, "b c"], x: Float[Tensor, "b c"]) -> tuple[Tensor, Tensor]:
        """The same at one time, from the input ``dilation`` steps ago and now."""
        both = torch.stack([past, x], -1).flatten(1)
        f, g = F.linear(both, self.gated.weight.flatten(1), self.gated.bias).chunk(2, 1)
        out = F.linear(f.tanh() * g.sigmoid(), self.out.weight.flatten(1), self.out.bias)
        return x + out[:, : self.width], out[:, self.width :]


class WaveNet(nn.Module):
    """Sequences of ``levels`` symbols.

    Args:
        levels: symbols (256 mu-law levels).
        width, skip: channels of the residual and of the skip path.
        layers: L; dilations 1, 2, …, 2^{L−1}, repeated ``stacks`` times.
        stacks: repetitions.
    """

    def __init__(self, levels: int = 256, width: int = 32, skip: int = 64, layers: int = 8, stacks: int = 1) -> None:
        super().__init__()
        self.levels = levels
        self.embed = nn.Embedding(levels + 1, width)  # the extra symbol stands before the first sample
        self.layers = nn.ModuleList(DilatedLayer(width, skip, 2**i) for _ in range(stacks) for i in range(layers))
        self.head = nn.ModuleList([nn.Conv1d(skip, skip, 1), nn.Conv1d(skip, levels, 1)])

    @property
    def receptive_field(self) -> int:
        """Samples that one output sees: 1 + Σ dilations; 2^L for one stack."""
        return 1 + sum(layer.dilation for layer in self.layers)

    def logits(self, v: Int[Tensor, "b t"]) -> Float[Tensor, "b k t"]:
        """Logits of p(v_t | v_<t) at every time."""
        x = self.embed(F.pad(v, (1, 0), value=self.levels)[:, :-1]).mT
        skips = 0.0
        for layer in self.layers:
            x, skip = layer(x)
            skips = skips + skip
        return self.head[1](self.head[0](skips.relu()).relu())

    def log_prob(self, v: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Exact log-probability of each sequence, in nats."""
        return -F.cross_entropy(self.logits(v), v, reduction="none").sum(1)

    def loss(self, v: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
        """−log p in nats per sample of sound, averaged over times and batch."""
        return F.cross_entropy(self.logits(v), v)

    def incremental(self, n: int) -> Callable[[Int[Tensor, " n"]], Float[Tensor, "n k"]]:
        """``step(symbol before) -> logits``, with one queue of ``dilation`` inputs a layer: O(L) a sample."""
        weight = self.embed.weight
        queues = [weight.new_zeros(layer.dilation, n, layer.width) for layer in self.layers]
        time = 0

        def step(previous: Tensor) -> Tensor:
            nonlocal time
            x, skips = self.embed(previous), 0.0
            for layer, queue in zip(self.layers, queues, strict=True):
                slot = time % layer.dilation
                past, queue[slot] = queue[slot].clone(), x
                x, skip = layer.step(past, x)
                skips = skips + skip
            time += 1
            for conv in self.head:
                skips = F.linear(skips.relu(), conv.weight.flatten(1), conv.bias)
            return skips

        return step

    @torch.no_grad()
    def sample(
        self,
        n: int,
        length: int,
        generator: torch.Generator | None = None,
        cached: bool = True,
        prefix: Int[Tensor, "n s"] | None = None,
    ) -> Int[Tensor, "n t"]:
        """n sequences; ``cached=False`` runs the whole network over the sequence so far for every sample.

        With a ``prefix`` they begin with these symbols, and the rest is drawn given them (a continuation).

        Raises:
            ValueError: the prefix is not n sequences of at most ``length`` symbols.
        """
        known = prefix_length(prefix, n, length)
        device = self.embed.weight.device
        uniforms = torch.rand(length, n, generator=generator, device=device)
        v = torch.zeros(n, length, dtype=torch.long, device=device)
        step = self.incremental(n) if cached else None
        previous = torch.full((n,), self.levels, device=device)
        for t in range(length):
            logits = step(previous) if cached else self.logits(v[:, : t + 1])[:, :, t]
            v[:, t] = previous = prefix[:, t] if t < known else sample_categorical(logits, uniforms[t])
        return v
