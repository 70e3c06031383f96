"""The one door."""

from __future__ import annotations

from collections.abc import Callable

import torch

from course_lib.data import digits, emoji, toy2d
from course_lib.data.dataset import Dataset

SPLITS = ("train", "val", "test")

_SOURCES: dict[str, tuple[Callable[[str, int], Dataset], tuple[int, ...]]] = {
    "digits": (digits.load_digits, (28, 32, 64)),
    "digits8": (digits.load_digits8, (8,)),
    "emoji": (emoji.load_emoji, (32, 64, 72)),
    **{name: (toy2d.loader(name), (10_000, 1_000, 100_000)) for name in toy2d.DENSITIES},
}
NAMES = tuple(_SOURCES)


def load(name: str, split: str = "train", size: int | None = None, device: torch.device | str = "cpu") -> Dataset:
    """A data set, ready for a model.

    Args:
        name: one of ``NAMES``. Pictures: ``digits`` (5,000 MNIST), ``digits8`` (1,797 of 8×8), ``emoji`` (Twemoji with
            captions and categories). Points in the plane: the densities of ``toy2d``.
        split: ``train``, ``val`` or ``test``; fixed once for all.
        size: side of a picture in pixels (default: the first that exists), or number of points for toy2d.
        device: where the tensors go.

    Returns:
        pictures as ``b c h w`` in [−1, 1] (points as ``b 2``), with labels, class names and captions beside them.

    Raises:
        ValueError: unknown name, split or size; the message says what exists.
        MissingDataPackage: the package with the pictures is not installed; the message says how to get it.
    """
    if name not in _SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of {name!r}; there are {', '.join(SPLITS)}")
    source, sizes = _SOURCES[name]
    size = sizes[0] if size is None else size
    if size not in sizes:
        raise ValueError(f"{name!r} does not come in size {size!r}; there are {', '.join(map(str, sizes))}")
    return source(split, size).to(device)
