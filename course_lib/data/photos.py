"""A few real photographs and textures, by way of scikit-image (each with the licence that scikit-image states for
it)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from course_lib.data.dataset import require, to_images

TEXTURES = ("brick", "grass", "gravel")
PHOTOS = (*TEXTURES, "astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
CREDIT = "scikit-image's data: brick, grass, gravel (CC0, CC0Textures), NASA's astronaut, rocket and Hubble deep field \
(public domain), chelsea and coffee (CC0)"


def photo(name: str, size: int | None = None) -> Float[Tensor, "c h w"]:
    """One picture in [−1, 1]; textures are grey (1 channel), photographs have colours.

    Args:
        name: one of ``PHOTOS``.
        size: cut the middle square out and shrink it to this side (default: as it is).

    Raises:
        ValueError: unknown name.
        MissingDataPackage: scikit-image is not installed.
    """
    if name not in PHOTOS:
        raise ValueError(f"unknown photo {name!r}; there are {', '.join(PHOTOS)}")
    require("scikit-image", "skimage", f"the photo {name!r}")
    import skimage.data

    picture = np.atleast_3d(getattr(skimage.data, name)())
    x = to_images(picture[None])
    if size is not None:
        side = min(x.shape[2:])
        top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
        x = x[:, :, top : top + side, left : left + side]
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)
    return x[0].to(torch.float32)
