"""The caller's mistakes, found before they become a plausible number."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


class FewSamplesWarning(UserWarning):
    """There are too few samples for the number to mean much."""


def require_finite(name: str, x: Tensor) -> None:
    """Raises ``ValueError`` for NaN or infinity. On the ``meta`` device there are no values to look at."""
    if not x.is_meta and not x.isfinite().all():
        bad = int((~x.isfinite()).sum())
        raise ValueError(f"{name} has {bad} of {x.numel()} values that are NaN or infinite")


def feature_matrix(name: str, x: Tensor, at_least: int = 1) -> Float[Tensor, "n d"]:
    """``x`` in float64 if it is a finite n × d matrix with n ≥ ``at_least``.

    Raises:
        ValueError: wrong number of axes, too few rows, NaN or infinity.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be floats of shape (samples, features), got {x.dtype} {tuple(x.shape)}")
    if len(x) < at_least:
        raise ValueError(f"{name} needs at least {at_least} samples, got {len(x)}")
    require_finite(name, x)
    return x.double()


def feature_pair(real: Tensor, fake: Tensor, at_least: int = 1) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both as ``feature_matrix`` gives them, if they have the same number of features.

    Raises:
        ValueError: as ``feature_matrix``, or the widths differ.
    """
    x, y = feature_matrix("real features", real, at_least), feature_matrix("fake features", fake, at_least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"real samples have {x.shape[1]} features and fake samples {y.shape[1]}")
    return x, y


def image_pair(x: Tensor, y: Tensor) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Two batches of pictures in float64, if they have the same shape and are finite.

    Raises:
        ValueError: they are not batches of pictures, or differ in shape, or hold NaN or infinity.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"need two batches of pictures (b, c, h, w) alike, got {tuple(x.shape)} and {tuple(y.shape)}")
    require_finite("the first batch", x)
    require_finite("the second batch", y)
    return x.double(), y.double()
