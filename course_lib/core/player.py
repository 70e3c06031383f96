"""Who plays in a training run, and what they are fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Batch = Any  # a tensor, or a tuple / dict of tensors whose first axis is the batch
BatchAt = Callable[[int], Batch]


@dataclass
class Player:
    """One optimizer: parameters, and the loss *these parameters* minimize.

    A VAE is one player, a GAN two; CycleGAN's two generators are one player and its two discriminators the other;
    in GAN inversion the only parameter is the latent. Gradients are taken of the player's loss with respect to the
    player's parameters alone, so a generator step cannot leak into the discriminator.

    Attributes:
        name: how history and progress bar call it.
        params: parameters, or a module (then: those that require gradients, and a checkpoint keeps its buffers too).
        loss: ``loss(batch, step) -> scalar tensor``. A lazy regularizer belongs in here: a term computed when
            ``step % k == 0`` and weighted by k, never a second Adam over the same parameters.
        lr: Adam's learning rate.
        betas: Adam's (β₁, β₂).
        repeats: updates per step, each on a fresh batch (a WGAN critic: 5).
    """

    name: str
    params: nn.Module | Iterable[Tensor]
    loss: Callable[[Batch, int], Tensor]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    repeats: int = 1

    def __post_init__(self) -> None:
        module = self.params if isinstance(self.params, nn.Module) else None
        self.buffers: list[Tensor] = list(module.buffers()) if module else []
        params = module.parameters() if module else self.params
        self.params = list({id(p): p for p in params if p.requires_grad}.values())
        if not self.params:
            raise ValueError(f"player {self.name!r} has no parameter that requires a gradient")
        if self.repeats < 1:
            raise ValueError(f"player {self.name!r}: repeats must be at least 1, got {self.repeats}")

    @classmethod
    def of(cls, model: nn.Module, lr: float = 1e-3, name: str | None = None) -> Player:
        """The single player of a model that has ``loss(batch) -> scalar``."""
        return cls(name or type(model).__name__.lower(), model, lambda batch, step: model.loss(batch), lr)


def minibatches(data: Tensor | tuple[Tensor, ...], size: int, seed: int = 0) -> BatchAt:
    """Shuffled minibatches as a function of the step.

    Every epoch is a fresh permutation, every example appears once in it, and a last incomplete batch is dropped. A
    batch depends on the step alone, so a resumed run or a second process needs no iterator state.

    Args:
        data: a tensor or tuple of tensors with the same first axis.
        size: examples in a batch; capped at the number of examples.
        seed: of the permutations.
    """
    tensors = data if isinstance(data, tuple) else (data,)
    n = len(tensors[0])
    if any(len(t) != n for t in tensors):
        raise ValueError(f"tensors of different lengths: {[len(t) for t in tensors]}")
    if n == 0 or size < 1:
        raise ValueError(f"need at least one example and one per batch, got {n} examples and batch size {size}")
    size = min(size, n)
    per_epoch = n // size
    order: tuple[int, Tensor] | None = None

    def batch_at(step: int) -> Batch:
        nonlocal order
        epoch, position = divmod(step, per_epoch)
        if order is None or order[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
            order = (epoch, torch.randperm(n, generator=generator).to(tensors[0].device))
        chosen = order[1][position * size : (position + 1) * size]
        picked = tuple(t[chosen] for t in tensors)
        return picked if isinstance(data, tuple) else picked[0]

    return batch_at


def stream(sample: Callable[[int, torch.Generator], Batch], size: int, seed: int = 0) -> BatchAt:
    """Endless fresh batches ``sample(size, generator)`` as a function of the step (toy densities, made-up clips)."""

    def batch_at(step: int) -> Batch:
        return sample(size, torch.Generator().manual_seed(derived_seed(seed, step)))

    return batch_at


def derived_seed(*parts: int) -> int:
    """A well-mixed 63-bit seed from several integers (neighbouring steps must not give neighbouring seeds)."""
    high, low = np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(2)
    return (int(high) << 31) ^ int(low)


def warmup_cosine(steps: int, warmup: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    """Learning-rate multiplier: linear from 0 to 1 over ``warmup`` steps, then half a cosine down to ``floor``."""

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return multiplier


def tree_map(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """Apply ``function`` to every tensor of a batch; anything else passes through."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: tree_map(function, value) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(tree_map(function, value) for value in batch)
    return batch


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """All tensors of a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (dict, tuple, list)):
        for value in batch.values() if isinstance(batch, dict) else batch:
            yield from tensors_of(value)
