"""Every autoregressive model in one form, and what its Jacobian says about who sees whom."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.pixelcnnpp import PixelCNNpp
from course_lib.autoregressive.pixelrnn import PixelRNN
from course_lib.autoregressive.raster import EmbeddedCodes, ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.autoregressive.wavenet import WaveNet

CLASSES = 3
LENGTH = 12  # of the transformer

# name -> model of K symbols
RASTER: dict[str, Callable[[int], nn.Module]] = {
    "PixelCNN": lambda k: PixelCNN(ScaledPixels(k), 16, 6),
    "PixelCNN over codes": lambda k: PixelCNN(EmbeddedCodes(k, 5), 16, 6),
    "gated PixelCNN": lambda k: GatedPixelCNN(ScaledPixels(k), 8, 6),
    "gated PixelCNN, 15×15 first layer": lambda k: GatedPixelCNN(ScaledPixels(k), 8, 3, first=15),
    "gated PixelCNN over codes": lambda k: GatedPixelCNN(EmbeddedCodes(k, 5), 8, 6),
    "class-conditional PixelCNN": lambda k: GatedPixelCNN(ScaledPixels(k), 8, 6, CLASSES),
    "PixelCNN++": lambda k: PixelCNNpp(k, 3, 8, 6),
    "PixelRNN": lambda k: PixelRNN(ScaledPixels(k), 6, 1),
}
SEQUENCE: dict[str, Callable[[int], nn.Module]] = {
    "WaveNet": lambda k: WaveNet(k, 8, 8, 3),
    "WaveNet of two stacks": lambda k: WaveNet(k, 8, 8, 2, 2),
    "transformer": lambda k: CausalTransformer(k, LENGTH, 12, 3, 2),
    "class-conditional transformer": lambda k: CausalTransformer(k, LENGTH, 12, 3, 2, CLASSES),
}
CACHED = {name: make for name, make in (RASTER | SEQUENCE).items() if name != "PixelRNN"}


def lively(make: Callable[[int], nn.Module], levels: int, seed: int = 0, gain: float = 2.0) -> nn.Module:
    """A model in float64 whose conditionals are far from uniform: larger weights, and none that starts at zero."""
    torch.manual_seed(seed)
    model = make(levels).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
            if not parameter.any():
                parameter.normal_(std=0.5)
    return model


def label(model: nn.Module, n: int, which: int = 1) -> tuple[Tensor, ...]:
    """The further argument that a class-conditional model wants, or nothing."""
    return (torch.full((n,), which),) if getattr(model, "classes", 0) else ()


def log_conditionals(model: nn.Module, v: Tensor, *y: Tensor) -> Tensor:
    """log p(v_i = k | v_<i) as (b, k, …)."""
    if isinstance(model, PixelCNNpp):
        params = model.params(v).movedim(1, -1)
        return model.level_logits(params.flatten(0, -2)).unflatten(0, v.shape).movedim(-1, 1)
    return model.logits(v, *y).log_softmax(1)


def everything(levels: int, *shape: int) -> Tensor:
    """All K^d pictures or sequences."""
    d = torch.Size(shape).numel()
    return torch.tensor(list(itertools.product(range(levels), repeat=d))).unflatten(1, shape)


class Leaf(nn.Module):
    """Stands where symbols are embedded and returns numbers that a gradient can be taken of."""

    def __init__(self, values: Tensor, levels: int = 2) -> None:
        super().__init__()
        self.values, self.levels, self.channels = values.requires_grad_(), levels, values.shape[1]

    def forward(self, v: Tensor) -> Tensor:
        return self.values


def influence(outputs: Tensor, inputs: Tensor) -> Tensor:
    """(output places, input places): largest |∂ output / ∂ input| over channels; exactly 0 where no path leads.

    ``outputs`` are (1, k, places), ``inputs`` (1, c, places) or (1, places, c) after flattening by the caller.
    """
    rows = []
    for place in range(outputs.shape[2]):
        # a random combination of the k outputs: it vanishes only where all of them do
        weights = torch.randn(outputs.shape[1], dtype=outputs.dtype)
        rows.append(torch.autograd.grad(outputs[0, :, place] @ weights, inputs, retain_graph=True)[0][0])
    return torch.stack(rows).abs()


def raster_influence(name: str, h: int, w: int, draws: int = 3, make: Callable | None = None) -> Tensor:
    """(h w, h w) of a picture model: how much place j moves the logits (or mixture) of place i, over several draws."""
    total = torch.zeros(h * w, h * w, dtype=torch.float64)
    for seed in range(draws):
        model = lively(make or RASTER[name], 2, seed)
        owner = model.body if hasattr(model, "body") else model
        leaf = Leaf(torch.randn(1, owner.embed.channels, h, w, dtype=torch.float64))
        owner.embed = leaf
        v = torch.zeros(1, h, w, dtype=torch.long)
        out = model.params(v) if isinstance(model, PixelCNNpp) else model.logits(v, *label(model, 1))
        total += influence(out.flatten(2), leaf.values).sum(1).flatten(1)
    return total
