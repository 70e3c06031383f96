"""What every data set is once loaded, and the cache on disk behind it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Pictures (or points) with what is known about each.

    Attributes:
        name, split: what was asked for.
        x: pictures ``b c h w`` in [−1, 1]; points ``b 2`` for toy2d.
        labels: class index of each, int64 ``b``.
        classes: name of each class index.
        captions: English description of each, or None.
        credit: whom to name when the pictures are shown.
    """

    name: str
    split: str
    x: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    captions: tuple[str, ...] | None = None
    credit: str = ""

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Dataset({self.name}/{self.split}: {tuple(self.x.shape)}, {len(self.classes)} classes)"

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, x=self.x.to(device), labels=self.labels.to(device))

    def subset(self, index: Tensor) -> Dataset:
        """The examples at ``index`` (integers or a boolean mask)."""
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        captions = self.captions and tuple(self.captions[int(i)] for i in index)
        at = index.to(self.x.device)
        return replace(self, x=self.x[at], labels=self.labels[at], captions=captions)


class MissingDataPackage(ImportError):
    """The package that carries a data set is not installed."""


def require(package: str, module: str, what: str) -> None:
    """Raise ``MissingDataPackage`` with the command that helps, unless ``module`` can be imported."""
    try:
        __import__(module)
    except ImportError as error:
        raise MissingDataPackage(
            f"{what} comes from the package {package!r}, which cannot be imported ({error}); "
            f"run `make setup`, or `pip install -c constraints.txt {package}`"
        ) from error


def cached(key: str, packages: tuple[str, ...], build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """``build()``'s arrays, kept on disk (``$COURSE_CACHE``, or the user's cache folder) after the first call.

    The packages' versions and the builder's source are part of the file's name, so a change of either rebuilds.
    Several processes may build at once: the last one wins, and a reader never sees half a file. A file that a full or
    failing disk has damaged is built again, with a warning.
    """
    versions = "-".join(importlib.metadata.version(p) for p in packages)
    folder = Path(os.environ.get("COURSE_CACHE") or platformdirs.user_cache_dir("course_lib"))
    source = hashlib.sha256(Path(build.__code__.co_filename).read_bytes()).hexdigest()[:12]
    path = folder / f"{key}-{versions}-{source}.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"the cached file {path} is damaged ({error}); building it again", stacklevel=2)
    arrays = build()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
        np.savez_compressed(part, **arrays)
    os.replace(part.name, path)
    return arrays


def to_images(pictures: np.ndarray) -> Tensor:
    """Bytes ``b h w c`` to float32 ``b c h w`` in [−1, 1]."""
    return torch.from_numpy(pictures).movedim(-1, 1).float().div_(127.5).sub_(1).contiguous()
