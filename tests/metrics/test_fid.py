import inspect
import warnings

import pytest
import torch
from scipy import linalg
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from course_lib.metrics import statistics
from course_lib.metrics.fid import fid, fid_infinity, frechet_distance
from course_lib.metrics.inputs import FewSamplesWarning
from course_lib.metrics.statistics import Moments
from tests.oracles import assert_estimates


def gaussian(d=6, seed=0, rank=None):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, rank or d, generator=generator, dtype=torch.float64)
    return torch.randn(d, generator=generator, dtype=torch.float64), root @ root.T


def features(n, d=16, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(d) + 0.3 * torch.randn(d, d, generator=torch.Generator().manual_seed(9))
    return torch.randn(n, d, generator=generator) @ mix + shift


def by_sqrtm(mu1, cov1, mu2, cov2):
    """The reference code's way: a general matrix square root."""
    root = torch.as_tensor(linalg.sqrtm((cov1 @ cov2).numpy()).real)
    return (mu1 - mu2).square().sum() + (cov1 + cov2 - 2 * root).trace()


def test_commuting_covariances_have_a_closed_form():
    """Equal eigenvectors: ‖Δμ‖² + Σ (√λ − √κ)²."""
    mu1, basis = gaussian()
    mu2, _ = gaussian(seed=1)
    _, vectors = torch.linalg.eigh(basis)
    lam, kap = 3 * torch.rand(2, 6, dtype=torch.float64)
    got = frechet_distance(mu1, vectors * lam @ vectors.T, mu2, vectors * kap @ vectors.T)
    want = (mu1 - mu2).square().sum() + (lam.sqrt() - kap.sqrt()).square().sum()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_on_the_line_it_is_the_squared_w2_of_quantiles():
    """W₂² = ∫ (F₁⁻¹ − F₂⁻¹)² du, by the midpoint rule in u."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    z = torch.special.ndtri(u)
    (m1, s1), (m2, s2) = (0.3, 0.8), (-1.1, 2.0)
    want = ((m1 + s1 * z) - (m2 + s2 * z)).square().mean()
    one = torch.ones(1, dtype=torch.float64)
    got = frechet_distance(m1 * one, s1**2 * one.view(1, 1), m2 * one, s2**2 * one.view(1, 1))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=0)


def test_it_is_what_the_best_linear_map_moves():
    """The optimal map T = Σ₁^{-½}(Σ₁^{½}Σ₂Σ₁^{½})^{½}Σ₁^{-½} carries N₁ to N₂ at this mean cost."""
    (mu1, cov1), (mu2, cov2) = gaussian(), gaussian(seed=1)

    def power(matrix, exponent):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors * values**exponent @ vectors.T

    half, minus = power(cov1, 0.5), power(cov1, -0.5)
    carry = minus @ power(half @ cov2 @ half, 0.5) @ minus
    torch.testing.assert_close(carry @ cov1 @ carry.T, cov2)
    move = carry - torch.eye(6)
    cost = (mu1 - mu2).square().sum() + (move @ cov1 @ move.T).trace()
    torch.testing.assert_close(frechet_distance(mu1, cov1, mu2, cov2), cost)


@pytest.mark.parametrize("rank", [6, 3])
def test_it_is_the_reference_code_s_and_symmetric(rank):
    (mu1, cov1), (mu2, cov2) = gaussian(rank=rank), gaussian(seed=1)
    got = frechet_distance(mu1, cov1, mu2, cov2)
    torch.testing.assert_close(got, by_sqrtm(mu1, cov1, mu2, cov2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got, frechet_distance(mu2, cov2, mu1, cov1), rtol=1e-6, atol=1e-6)
    assert frechet_distance(mu1, cov1, mu1, cov1).item() == pytest.approx(0, abs=1e-6)


def test_it_is_torchmetrics_on_the_same_features():
    peer = FrechetInceptionDistance(feature=Given(16))
    real, fake = features(400), features(300, seed=1, shift=0.4)
    peer.update(real, real=True)
    peer.update(fake, real=False)
    assert fid(real, fake) == pytest.approx(peer.compute().item(), rel=1e-4)


class Given(nn.Identity):
    """Features come in ready; torchmetrics wants to know how many."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features


def test_features_and_their_moments_give_the_same():
    real, fake = features(400), features(300, seed=1, shift=0.4)
    streamed = statistics.of_batches(lambda x: x, fake.split(64))
    assert fid(Moments.of(real), streamed) == pytest.approx(fid(real, fake), rel=1e-10)


def test_too_few_samples_warn():
    with pytest.warns(FewSamplesWarning, match=r"16 fake samples with 16 features.*singular"):
        fid(features(400), features(16, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fid(features(400), features(17, seed=1))


def test_bias_of_n_samples_and_the_line_that_removes_it():
    """p = q = N(0, I): the means differ by d/n on average, and tr (S^½ − I)² ≈ ¼ tr (S − I)² has mean d(d + 1)/4n."""
    d, m = 8, 8_000
    truth = Moments(m, torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64) * (m - 1))
    curves = []
    for seed in range(40):
        fake = torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        curves.append(fid_infinity(truth, fake, generator=torch.Generator().manual_seed(seed)))
        assert curves[-1].values[-1] == pytest.approx(fid(truth, fake), rel=1e-9)
    assert curves[0].sizes[0] == 800 and curves[0].sizes[-1] == m and len(curves[0].sizes) == 15
    want = d + d * (d + 1) / 4
    scaled = torch.tensor([[n * v for n, v in zip(c.sizes, c.values, strict=True)] for c in curves])
    assert_estimates(scaled, want, slack=0.03 * want)
    assert_estimates(torch.tensor([c.slope for c in curves]), want, slack=0.03 * want)
    assert_estimates(torch.tensor([c.infinity for c in curves]), 0.0)
    assert abs(sum(c.infinity for c in curves)) < 0.2 * sum(c.values[-1] for c in curves)


def test_the_line_is_least_squares_in_one_over_n():
    real, fake = features(500), features(400, seed=1, shift=0.3)
    curve = fid_infinity(real, fake, sizes=[50, 100, 200, 400], generator=torch.Generator().manual_seed(0))
    x = torch.tensor([1 / n for n in curve.sizes], dtype=torch.float64)
    y = torch.tensor(curve.values, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert curve.slope == pytest.approx(slope.item(), rel=1e-6)
    assert curve.infinity == pytest.approx((y.mean() - slope * x.mean()).item(), rel=1e-6)


def test_it_runs_on_meta():
    mean, cov = torch.empty(4, device="meta"), torch.empty(4, 4, device="meta")
    assert frechet_distance(mean, cov, mean, cov).is_meta


def test_mistakes():
    (mu1, cov1), (mu2, cov2) = gaussian(), gaussian(seed=1)
    with pytest.raises(ValueError, match="covariance 1 is not symmetric"):
        frechet_distance(mu1, cov1.triu(), mu2, cov2)
    for arguments in ((mu1, -cov1, mu2, cov2), (mu1, cov1, mu2, -cov2)):
        with pytest.raises(ValueError, match="not a covariance: it has the eigenvalue -"):
            frechet_distance(*arguments)
    with pytest.raises(ValueError, match="covariance 2 has 36 of 36 values that are NaN"):
        frechet_distance(mu1, cov1, mu2, cov2 * torch.nan)
    with pytest.raises(ValueError, match="needs at least 2 samples, got 1"):
        fid(features(400), features(1))
    for sizes in ([300, 300], [1, 300], [100, 301]):
        with pytest.raises(ValueError, match="two distinct sizes between 2 and the 300 fake samples"):
            fid_infinity(features(400), features(300), sizes=sizes)
    with pytest.raises(ValueError, match="16 features and fake samples 8"):
        inspect.unwrap(fid_infinity)(features(400), features(300, d=8))


def test_the_bias_curve_warns_of_sizes_that_leave_the_covariance_singular():
    with pytest.warns(FewSamplesWarning, match="10 fake samples with 16 features"):
        fid_infinity(features(400), features(300), sizes=[10, 100, 300])
