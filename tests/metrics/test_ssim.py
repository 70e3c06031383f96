import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from course_lib.data.photos import photo
from course_lib.metrics.psnr import psnr
from course_lib.metrics.ssim import BETAS, ms_ssim, ssim, ssim_terms


def pictures(size, channels=3, noise=0.3):
    x = torch.stack([photo(name, size)[:channels] for name in ("astronaut", "chelsea", "coffee")]).double()
    return x, (x + noise * torch.randn(x.shape, dtype=torch.float64)).clamp(-1, 1)


def unit(x):
    """Black = 0, white = 1, as other libraries want it."""
    return (x + 1) / 2


def padded(x, by=5):
    return F.pad(x, (by,) * 4, mode="reflect")


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(channels):
    x, y = pictures(64, channels)
    want = [
        structural_similarity(a, b, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False)
        for a, b in zip(unit(x).numpy(), unit(y).numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(x, y).numpy(), want, rtol=1e-8)
    np.testing.assert_allclose(ssim(unit(x), unit(y), (0, 1)).numpy(), want, rtol=1e-8)
    np.testing.assert_allclose(ssim(x.float(), y.float()).numpy(), want, rtol=1e-5)


def test_ssim_is_torchmetrics_where_the_window_fits():
    """torchmetrics averages over a reflected border too; scikit-image and Wang's code leave it out, and so do we."""
    x, y = pictures(64)
    options = {"data_range": 1.0, "reduction": "none"}
    whole, full = structural_similarity_index_measure(unit(x), unit(y), return_full_image=True, **options)
    torch.testing.assert_close(ssim(x, y), full[..., 5:-5, 5:-5].mean((1, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(ssim(padded(x), padded(y)), whole, rtol=1e-6, atol=0)


def test_ms_ssim_is_torchmetrics():
    x, y = pictures(192)
    options = {"data_range": 1.0, "reduction": "none", "normalize": "relu"}
    want = multiscale_structural_similarity_index_measure(unit(x), unit(y), **options)
    at_last = [F.avg_pool2d(image, 16) for image in (x, y)]
    inside, border_too = ssim(*at_last), ssim(*(padded(image) for image in at_last))
    # the two differ in the border of the last scale, as in ssim above, and in nothing else
    ours = ms_ssim(x, y) * (border_too / inside) ** BETAS[-1]
    torch.testing.assert_close(ours, want, rtol=1e-6, atol=0)
    assert (ms_ssim(x, y) / want - 1).abs().max() < 0.05


def test_fewer_scales():
    x, y = pictures(64)
    assert torch.equal(ms_ssim(x, x, scales=3), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(ms_ssim(x, y, scales=1), ssim(x, y) ** sum(BETAS))
    cs = ssim_terms(x, y)[1]
    half = ssim(F.avg_pool2d(x, 2), F.avg_pool2d(y, 2))
    share = BETAS[0] / (BETAS[0] + BETAS[1])
    torch.testing.assert_close(ms_ssim(x, y, scales=2), (cs**share * half ** (1 - share)) ** sum(BETAS))


def test_a_picture_is_like_itself_and_unlike_its_negative():
    x, y = pictures(64)
    torch.testing.assert_close(ssim(x, x), torch.ones(3, dtype=torch.float64))
    assert (ssim(x, y) < 0.9).all() and torch.equal(ssim(x, y), ssim(y, x))
    assert (ssim(x, -x) < 0).all() and (ms_ssim(x, -x, scales=2) >= 0).all()
    black, grey = torch.full((1, 1, 20, 20), -1.0), torch.full((1, 1, 20, 20), -0.5)
    c1 = (0.01 * 2) ** 2
    assert ssim(black, grey).item() == pytest.approx(c1 / (0.25 + c1))  # no contrast: luminance alone


def test_more_noise_and_more_blur_lower_it():
    x, _ = pictures(64)
    noise = torch.randn(x.shape, dtype=torch.float64)
    by_noise = torch.stack([ssim(x, x + s * noise) for s in (0.05, 0.1, 0.2, 0.4)])
    by_blur = torch.stack([ssim(x, F.avg_pool2d(padded(x, k), 2 * k + 1, 1)) for k in (1, 2, 3)])
    assert (by_noise.diff(dim=0) < 0).all() and (by_blur.diff(dim=0) < 0).all()


def test_gradients_reach_the_picture():
    x, y = pictures(16, channels=1)
    assert torch.autograd.gradcheck(lambda a: ssim(a, y[:1]), x[:1].clone().requires_grad_())


def test_psnr_is_that_of_others_and_twenty_decibels_are_a_tenth():
    x, y = pictures(32)
    got = psnr(x, y)
    want = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=2) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)
    peer = torchmetrics_psnr(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(got, peer, rtol=1e-6, atol=0)
    torch.testing.assert_close(psnr(x, x + (y - x) / 10), got + 20)
    assert psnr(x, x).tolist() == [math.inf] * 3
    assert psnr(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == pytest.approx(10 * math.log10(4))


def test_they_run_on_meta():
    x = torch.empty(2, 3, 176, 176, device="meta")
    for metric in (psnr, ssim, ms_ssim):
        assert metric(x, x).is_meta and metric(x, x).shape == (2,)


def test_mistakes():
    x, _ = pictures(64)
    with pytest.raises(ValueError, match=r"at least 11 × 11, got \(10, 64\)"):
        ssim(x[:, :, :10], x[:, :, :10])
    with pytest.raises(ValueError, match=r"5 scales need pictures of at least 176 pixels a side, got \(64, 64\)"):
        ms_ssim(x, x)
    with pytest.raises(ValueError, match="scales must be from 1 to 5, got 6"):
        ms_ssim(x, x, scales=6)
    for metric in (psnr, ssim_terms):
        with pytest.raises(ValueError, match="alike, got"):
            inspect.unwrap(metric)(x, x[:1])
        with pytest.raises(ValueError, match="the second batch has"):
            metric(x, x * torch.nan)
