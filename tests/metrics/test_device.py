"""Every metric where its inputs are: the numbers of the GPU are those of the CPU."""

import pytest
import torch

from course_lib.data.toy2d import density
from course_lib.maths.mixture import GaussianMixture
from course_lib.metrics import statistics
from course_lib.metrics.features import EfficientNetLite0
from course_lib.metrics.fid import fid, fid_infinity
from course_lib.metrics.inception_score import inception_score
from course_lib.metrics.kid import kid
from course_lib.metrics.modes import mode_coverage
from course_lib.metrics.path_length import perceptual_path_length, slerp
from course_lib.metrics.perceptual import perceptual_distance
from course_lib.metrics.precision_recall import density_coverage, precision_recall
from course_lib.metrics.preference import bradley_terry, count_wins
from course_lib.metrics.psnr import psnr
from course_lib.metrics.ssim import ms_ssim, ssim


def on(device: str) -> dict[str, list[float]]:
    """The numbers of every metric, from the same random inputs."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(300, 8, generator=generator) + s for s in (0.0, 0.3))
    x, y = (torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1 for _ in range(2))
    real, fake, x, y = (t.to(device) for t in (real, fake, x, y))
    truth = density("grid25")
    mixture = GaussianMixture(*(t.to(device) for t in (truth.weights, truth.means, truth.covariances)))
    net = EfficientNetLite0(size=64).to(device)
    winners, losers = torch.tensor([0, 1, 2, 0]).to(device), torch.tensor([1, 2, 0, 2]).to(device)
    fit = bradley_terry(count_wins(winners, losers, 3))
    walk = perceptual_path_length(
        lambda z: z**2,
        lambda a, b: (a - b).square().sum(1),
        (real, fake),
        epsilon=0.1,
        walk=slerp,
        generator=torch.Generator().manual_seed(0),
    )
    curve = fid_infinity(real, fake, sizes=[100, 200, 300], generator=torch.Generator().manual_seed(0))
    coverage = mode_coverage(truth.sample(200, generator).to(device), mixture)
    return {
        "fid": [fid(statistics.of_batches(lambda t: t, real.split(64)), fake)],
        "fid_infinity": [curve.infinity, curve.slope],
        "kid": list(kid(real, fake)),
        "inception score": list(inception_score(fake.softmax(1))),
        "precision, recall": [*precision_recall(real, fake), *density_coverage(real, fake)],
        "pictures": torch.cat([psnr(x, y), ssim(x, y), ms_ssim(x, y, scales=2)]).tolist(),
        "network": [*perceptual_distance(net.maps, x, y).tolist(), *net(x).mean(0)[:20].tolist()],
        "path length": list(walk),
        "modes": [coverage.covered, coverage.high_quality, coverage.kl],
        "preference": [*fit.theta.tolist(), *fit.stderr.tolist()],
    }


@pytest.mark.cuda
def test_the_gpu_has_the_numbers_of_the_cpu():
    want, got = on("cpu"), on("cuda")
    for name, numbers in want.items():
        assert got[name] == pytest.approx(numbers, rel=1e-3, abs=1e-4), name


def test_the_cpu_has_them_twice():
    assert on("cpu") == on("cpu")
