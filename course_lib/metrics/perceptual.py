r"""Perceptual distance: how differently a network sees two pictures.

.. math:: d(x, y) = \frac1L \sum_l \frac1{H_l W_l} \sum_{h, w} ‖\hat φ_l(x)_{hw} - \hat φ_l(y)_{hw}‖^2,
          \qquad \hat φ = φ / ‖φ‖ \text{ over channels}

The form of LPIPS (Zhang et al. 2018) without its learnt weights per channel, which were fitted to human judgements and
come with the reference package only: here all channels and layers count alike, so values are not LPIPS values.

Also a training loss, hence differentiable and in the dtype of the feature maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import require_finite

EPSILON = 1e-10  # of the squared norm: where a map is zero, so is its unit vector, and the gradient is finite


def perceptual_distance(
    maps: Callable[[Tensor], Sequence[Tensor]], x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]
) -> Float[Tensor, " b"]:
    """Distance of each pair of pictures, in [0, 4] ([0, 2] for maps that are ≥ 0).

    Args:
        maps: pictures to feature maps, as ``EfficientNetLite0().maps``.
        x, y: pictures in [−1, 1].

    Raises:
        ValueError: shapes differ, NaN or infinity.
    """
    if x.shape != y.shape:
        raise ValueError(f"pictures differ in shape: {tuple(x.shape)} and {tuple(y.shape)}")
    return map_distance(maps(x), maps(y))


def map_distance(maps_x: Sequence[Tensor], maps_y: Sequence[Tensor]) -> Float[Tensor, " b"]:
    """The same from feature maps (b, c, h, w) of each layer, for callers who keep one side.

    Raises:
        ValueError: no layers, shapes differ, NaN or infinity.
    """
    shapes_x, shapes_y = [tuple(m.shape) for m in maps_x], [tuple(m.shape) for m in maps_y]
    if not shapes_x or shapes_x != shapes_y or any(len(shape) != 4 for shape in shapes_x):
        raise ValueError(f"need the same layers of feature maps (b, c, h, w), got {shapes_x} and {shapes_y}")
    for layer, (a, b) in enumerate(zip(maps_x, maps_y, strict=True)):
        require_finite(f"layer {layer} of the first pictures", a)
        require_finite(f"layer {layer} of the second pictures", b)
    layers = [(_unit(a) - _unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(maps_x, maps_y, strict=True)]
    return sum(layers) / len(layers)


def _unit(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x * (x.square().sum(1, keepdim=True) + EPSILON).rsqrt()
