r"""Peak signal-to-noise ratio: mean squared error in decibels below the range of grey values.

.. math:: PSNR = 10 \log_{10} \frac{L^2}{\frac1{chw} ‖x - y‖^2}

For pictures in [−1, 1] the range L is 2. Blind to structure: a shift by a pixel costs more than a blur.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import image_pair


def psnr(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], value_range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, " b"]:
    """PSNR of each picture in dB, ∞ where they are equal.

    Raises:
        ValueError: shapes differ, NaN or infinity.
    """
    x, y = image_pair(x, y)
    black, white = value_range
    return 10 * ((white - black) ** 2 / (x - y).square().mean((1, 2, 3))).log10()
