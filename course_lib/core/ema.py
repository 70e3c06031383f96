"""Exponential moving average of a model's weights: what one samples from after adversarial or diffusion training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    r"""Keeps :math:`\bar θ ← d_t \bar θ + (1 - d_t) θ` in ``ema.module``, a frozen copy of ``module``.

    The decay ramps up as :math:`d_t = \min(d, (1 + t) / (10 + t))`, so that the first steps do not freeze the random
    initialization into the average. Buffers (batch-norm statistics) are copied, not averaged.

    Args:
        module: the model being trained.
        decay: d, e.g. 0.999; 0 makes the average equal the model.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay must be in [0, 1), got {decay}")
        self.source, self.decay, self.steps = module, decay, 0
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self) -> None:
        """Average in the source's present weights; ``fit`` calls this once a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.decay else 0.0
        averages, weights = list(self.module.parameters()), list(self.source.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.module.buffers(), self.source.buffers(), strict=True):
            average.copy_(buffer)
        self.steps += 1

    def tensors(self) -> list[Tensor]:
        """The averaged parameters and the copied buffers."""
        return [*self.module.parameters(), *self.module.buffers()]

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.module.state_dict(), "ema.steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        state = dict(state)
        self.steps = int(state.pop("ema.steps"))
        self.module.load_state_dict(state)
