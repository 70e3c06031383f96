r"""Structural similarity: luminance, contrast and structure of two pictures, compared in a sliding window.

.. math::
    SSIM = \underbrace{\frac{2 μ_x μ_y + C_1}{μ_x^2 + μ_y^2 + C_1}}_{l} \;
           \underbrace{\frac{2 σ_{xy} + C_2}{σ_x^2 + σ_y^2 + C_2}}_{cs}, \qquad C_i = (K_i L)^2,\; K = (0.01, 0.03)

(Wang et al. 2004): moments under an 11 × 11 Gaussian window of standard deviation 1.5 (population variances), averaged
over the places where the whole window lies inside the picture, then over channels. 1 for equal pictures only.

l compares brightness above black, so pictures in [−1, 1] are shifted to black = 0 first; values are those of the same
pictures as bytes. (Libraries given [−1, 1] with a range of 2 return something else: there μ_x μ_y changes sign.)

.. math:: MS\text{-}SSIM = SSIM_M^{β_M} \prod_{j < M} cs_j^{β_j}

(Wang, Simoncelli & Bovik 2003): each scale j is half the previous one; the exponents were fitted to human judgements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from course_lib.metrics.inputs import image_pair

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], value_range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, " b"]:
    """SSIM of each pair, in [−1, 1], float64 and differentiable.

    Args:
        x, y: pictures of at least 11 × 11.
        value_range: black and white; L is their distance.

    Raises:
        ValueError: shapes differ, a picture is smaller than the window, NaN or infinity.
    """
    return ssim_terms(x, y, value_range)[0]


def ssim_terms(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], value_range: tuple[float, float] = (-1.0, 1.0)
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Means over each picture of l·cs (the SSIM) and of cs alone (contrast and structure). Errors as ``ssim``."""
    x, y = image_pair(x, y)
    if min(x.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} × {WINDOW}, got {tuple(x.shape[-2:])}")
    black, white = value_range
    x, y = x - black, y - black
    c1, c2 = (K1 * (white - black)) ** 2, (K2 * (white - black)) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * contrast_structure).mean((1, 2, 3)), contrast_structure.mean((1, 2, 3))


def ms_ssim(
    x: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    value_range: tuple[float, float] = (-1.0, 1.0),
    scales: int = len(BETAS),
) -> Float[Tensor, " b"]:
    """Multi-scale SSIM of each pair, in [0, 1]; a negative mean at a scale counts as 0.

    Args:
        x, y: pictures of at least 11 · 2^(scales − 1) pixels: 176 for the paper's five scales.
        value_range: black and white; L is their distance.
        scales: fewer for small pictures (2 for 28 × 28): the first exponents, rescaled to sum to what all five do.
            Values at different numbers of scales are not comparable.

    Raises:
        ValueError: as ``ssim``, or the pictures are too small for that many scales.
    """
    x, y = image_pair(x, y)
    if not 1 <= scales <= len(BETAS):
        raise ValueError(f"scales must be from 1 to {len(BETAS)}, got {scales}")
    if min(x.shape[-2:]) >> (scales - 1) < WINDOW:
        raise ValueError(
            f"{scales} scales need pictures of at least {WINDOW << (scales - 1)} pixels a side, "
            f"got {tuple(x.shape[-2:])}; pass a smaller scales"
        )
    rescale = sum(BETAS) / sum(BETAS[:scales])
    product = x.new_ones(len(x))
    for scale, beta in enumerate(BETAS[:scales]):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        full, contrast_structure = ssim_terms(x, y, value_range)
        factor = full if scale == scales - 1 else contrast_structure
        product = product * factor.clamp_min(0) ** (beta * rescale)
    return product


def _blur(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
    """Mean under the Gaussian window, where it fits: a row pass and a column pass."""
    offset = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = (-0.5 * (offset / SIGMA) ** 2).exp()
    weights = weights / weights.sum()
    b, c, h, w = x.shape
    planes = x.reshape(b * c, 1, h, w)
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(b, c, h - WINDOW + 1, w - WINDOW + 1)
