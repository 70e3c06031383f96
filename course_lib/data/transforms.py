"""Random views of data that several families train on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def binarize(images: Float[Tensor, "*shape"], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"]:
    """Dynamic binarization: each pixel is drawn as ±1 with P(+1) = (x + 1)/2.

    Drawn anew at every call, so a model never sees the same binary picture twice (Burda, Grosse & Salakhutdinov 2016,
    section 5). Images are in [−1, 1].
    """
    uniform = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.where(uniform < (images + 1) / 2, 1.0, -1.0).to(images.dtype)


def shifted(images: Float[Tensor, "b c h w"], by: int = 1) -> Float[Tensor, "b c h w"]:
    """The whole batch moved by −by … by pixels in each direction, drawn anew at every call: cheap augmentation.

    Pixels that leave on one side come in on the other, so the border should be empty, as it is on digits.
    """
    down, right = torch.randint(-by, by + 1, (2,)).tolist()
    return images.roll((down, right), (2, 3))
