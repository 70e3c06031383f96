"""Cached against naive sampling, at the sizes of the notebooks: the same symbols, at least ten times as fast.

Ratios within one run (``make benchmark``); see ``test_speed.py``. One pair each, because naive sampling takes long.
"""

import pytest
import torch

from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.raster import ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.autoregressive.wavenet import WaveNet
from tests.benchmarks.test_speed import _seconds

# name -> (model, what to sample)
CASES = {
    "PixelCNN 28×28": (lambda: PixelCNN(ScaledPixels(2), 64, 7), (16, (28, 28))),
    "gated PixelCNN 28×28": (lambda: GatedPixelCNN(ScaledPixels(2), 32, 7), (16, (28, 28))),
    "WaveNet, 1,024 samples": (lambda: WaveNet(256, 32, 64, 8), (4, 1_024)),
    "transformer, 1,024 symbols": (lambda: CausalTransformer(64, 1_024, 64, 4, 4), (4, 1_024)),
}


@pytest.mark.parametrize("name", CASES)
def test_cached_sampling_is_ten_times_as_fast(benchmark, name):
    make, what = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    drawn = {}

    def sample(cached):
        drawn[cached] = model.sample(*what, generator=torch.Generator().manual_seed(1), cached=cached)

    sample(True)  # warm-up
    naive, cached = _seconds(lambda: sample(False)), _seconds(lambda: sample(True))
    print(f"\n{name}: naive {naive:.2f} s / cached {cached:.2f} s = {naive / cached:.1f}")
    benchmark.extra_info["ratio"] = naive / cached
    benchmark.pedantic(lambda: sample(True), rounds=1)
    assert torch.equal(drawn[True], drawn[False])
    assert naive >= 10 * cached
