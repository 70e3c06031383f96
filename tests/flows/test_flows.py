import math

import pytest
import torch

from course_lib.core import FitOptions, Player, fit, minibatches, stream, warmup_cosine
from course_lib.data import load, toy2d
from course_lib.flows.flow import Chain, Flow, Logit, MultiScale, Squeeze
from course_lib.flows.glow import ActNorm, InvertibleConv1x1, glow
from course_lib.flows.realnvp import AffineCoupling, channel_mask, checkerboard, conv_net, realnvp, realnvp_2d
from tests.flows.test_logdet import lively
from tests.oracles import STANDARD_ERRORS, assert_estimates, integral, on_points, plane


@pytest.mark.parametrize("seed", [0, 1])
def test_density_in_the_plane_integrates_to_one(seed):
    torch.manual_seed(seed)
    flow = lively(realnvp_2d(6, 16), 0.15)
    with torch.no_grad():
        assert integral(flow.log_prob, 14.0, 700) == pytest.approx(1, abs=1e-3)
        # and it is not just the normal it started as
        x = torch.randn(200, 2, dtype=torch.float64)
        assert (flow.log_prob(x) - realnvp_2d(6).double().eval().log_prob(x)).abs().max() > 0.5


def test_samples_follow_the_density():
    """E_p[h] by samples = ∫ h p on a grid."""
    flow = lively(realnvp_2d(6, 16), 0.15).float()
    x = flow.sample(40_000, torch.Generator().manual_seed(0)).double()
    exact = lively_copy(flow)
    with torch.no_grad():
        for h in (lambda x: (x[:, 0] > 0.3).double(), lambda x: (x.norm(dim=1) < 1).double(), lambda x: x[:, 1].tanh()):
            want = integral_of(exact, h)
            assert_estimates(h(x), want, slack=2e-3)


def lively_copy(flow):
    twin = realnvp_2d(6, 16).double().eval()
    twin.load_state_dict(flow.state_dict())
    return twin


def integral_of(flow, h, extent=14.0, cells=900):
    points, area = plane(extent, cells)
    return (on_points(flow.log_prob, points).exp() * h(points)).sum().item() * area


def test_actnorm_starts_with_mean_zero_and_variance_one():
    norm, x = ActNorm(3), torch.randn(64, 3, 5, 4) * torch.tensor([0.1, 3.0, 20.0]).view(3, 1, 1) + 7
    z, _ = norm(x)
    per_channel = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(per_channel.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(per_channel.std(1), torch.ones(3), rtol=0, atol=1e-4)
    # only the first batch sets it
    scale = norm.log_scale.clone()
    norm(100 * x)
    assert torch.equal(norm.log_scale, scale)


def test_actnorm_start_survives_saving_and_does_not_happen_in_eval():
    norm, x = ActNorm(2), torch.randn(64, 2) * 5
    assert torch.equal(norm.eval()(x)[0], x) and not norm.ready
    norm.train()(x)
    other = ActNorm(2)
    other.load_state_dict(norm.state_dict())
    torch.testing.assert_close(other.train()(3 * x)[0], norm(3 * x)[0])


def test_actnorm_needs_more_than_one_number():
    with pytest.raises(ValueError, match="no variance"):
        ActNorm(2)(torch.randn(1, 2))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_1x1_convolution_starts_as_a_rotation_and_is_a_convolution(channels):
    conv = InvertibleConv1x1(channels).double()
    w = conv.matrix()
    torch.testing.assert_close(w @ w.T, torch.eye(channels).double(), rtol=0, atol=1e-6)
    lively(conv)
    x = torch.randn(2, channels, 3, 4, dtype=torch.float64)
    want = torch.nn.functional.conv2d(x, conv.matrix()[:, :, None, None])
    torch.testing.assert_close(conv(x)[0], want)
    torch.testing.assert_close(conv(x)[1], 12 * conv.matrix().slogdet().logabsdet.expand(2))


def test_masks():
    assert checkerboard(2, 3, False).tolist() == [[[1, 0, 1], [0, 1, 0]]]
    assert torch.equal(checkerboard(4, 4, True), 1 - checkerboard(4, 4, False))
    assert channel_mask(4, False).flatten().tolist() == [1, 1, 0, 0]
    assert channel_mask(4, True).flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("mask", [checkerboard(4, 4, False), channel_mask(4, True)])
def test_coupling_leaves_its_mask_alone_and_changes_the_rest_by_it(mask):
    layer = lively(AffineCoupling(mask, conv_net(4, 6)), 0.3)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    kept = mask.expand(4, 4, 4).bool()
    z, _ = layer(x)
    assert torch.equal(z[:, kept], x[:, kept]) and (z[:, ~kept] != x[:, ~kept]).all()
    # s and t look at the kept half only: the changed half enters by its own number alone
    (slopes,) = torch.autograd.functional.jacobian(lambda x: layer(x)[0][0, ~kept].sum(0, True), (x,))[0]
    assert slopes[0][kept].abs().max() > 0
    jacobian = torch.autograd.functional.jacobian(lambda one: layer(one.unsqueeze(0))[0][0][~kept], x[0])
    changed = jacobian[:, ~kept]
    assert torch.equal(changed != 0, torch.eye(len(changed)).bool())


def test_coupling_cannot_scale_beyond_its_bound():
    layer = lively(AffineCoupling(torch.tensor([1.0, 0.0]), torch.nn.Linear(2, 4), bound=1.5), 100.0)
    assert layer(torch.randn(500, 2).double())[1].abs().max() <= 1.5


def test_squeeze_gathers_two_by_two_blocks():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    z, _ = Squeeze()(x)
    assert z.shape == (1, 4, 2, 2)
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5] and z[0, :, 1, 1].tolist() == [10, 11, 14, 15]


def test_logit_is_the_formula_and_finite_at_the_edges():
    x = torch.tensor([[-1.0, 0.0, 1.0]])
    z, logdet = Logit(0.05)(x)
    want = [math.log(p / (1 - p)) for p in (0.05, 0.5, 0.95)]
    assert z[0].tolist() == pytest.approx(want, abs=1e-5) and torch.isfinite(logdet).all()


def test_multi_scale_splits_half_of_the_channels_after_each_level():
    levels = [Chain([Squeeze()]), Chain([Squeeze()])]
    scales = MultiScale(levels, [(4, 4, 4), (8, 2, 2)])
    x = torch.randn(2, 1, 8, 8)
    z, logdet = scales(x)
    first = Squeeze()(x)[0]
    assert z.shape == (2, 64) and not logdet.any()
    assert torch.equal(z[:, :32], first[:, :2].flatten(1))
    assert torch.equal(z[:, 32:], Squeeze()(first[:, 2:])[0].flatten(1))
    assert torch.equal(scales.inverse(z)[0], x)


@pytest.mark.parametrize("make", [realnvp, glow])
def test_sides_must_divide(make):
    with pytest.raises(ValueError, match="2 levels halve the sides 2 times, but they are 6 × 8"):
        make((1, 6, 8))


def test_temperature_shrinks_the_latents_and_a_generator_fixes_the_sample():
    flow = lively(realnvp_2d(4, 8)).float()
    cold, warm = (flow.sample(500, torch.Generator().manual_seed(0), t) for t in (0.5, 1.0))
    torch.testing.assert_close(2 * flow.encode(cold)[0], flow.encode(warm)[0], rtol=1e-3, atol=1e-3)
    assert not torch.equal(warm, flow.sample(500, torch.Generator().manual_seed(1)))
    assert torch.equal(warm, flow.sample(500, torch.Generator().manual_seed(0)))


def test_an_unchanged_chain_is_the_base_density():
    flow = Flow(Chain([]), (2,))
    x = torch.randn(5, 2)
    want = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_prob(x), want)


# --- short real trainings ---------------------------------------------------------------------------------------------


def test_moons_come_close_to_their_entropy():
    """E[−log q] − H(p) = KL(p ‖ q), which is ≥ 0 up to the error of the estimate."""
    density, steps = toy2d.density("moons"), 600
    flow = realnvp_2d(8, 32)
    batches = stream(lambda n, generator: density.sample(n, generator), 256)
    fit(Player.of(flow, lr=1e-2), batches, steps, options=FitOptions(schedule=warmup_cosine(steps, 20), clip=1.0))
    x = density.sample(20_000, torch.Generator().manual_seed(9))
    with torch.no_grad():
        gaps = density.log_prob(x) - flow.log_prob(x)
    assert gaps.mean() > -STANDARD_ERRORS * gaps.std() / len(gaps) ** 0.5
    assert gaps.mean() < 0.4, gaps.mean()
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    assert (density.log_prob(x) - gaussian.log_prob(x)).mean() > 3 * 0.4  # what no flow at all would reach


def dequantized(x, generator=None):
    """Grey values, multiples of 1/8, spread over their cells and scaled into (−1, 1)."""
    return (x + (torch.rand(x.shape, generator=generator) * 2 - 1) / 16) / 1.0625


@pytest.mark.parametrize("make", [realnvp, glow])
def test_picture_flows_beat_independent_pixels_on_small_digits(make):
    train, test = load("digits8", "train").x, load("digits8", "test").x
    flow, steps = make((1, 8, 8), 2, width=24), 400
    player = Player("flow", flow, lambda x, step: flow.loss(dequantized(x)), lr=5e-3)
    fit(player, minibatches(train, 64), steps, options=FitOptions(schedule=warmup_cosine(steps, 20), clip=1.0))
    held_out = dequantized(test, torch.Generator().manual_seed(0))
    # independent pixels: a histogram of 17 cells each, add-one smoothed, as a density over the same dequantized pixels
    symbols = ((train + 1) * 8).round().long().flatten(1)
    counts = torch.nn.functional.one_hot(symbols, 17).sum(0) + 1.0
    p = counts / counts.sum(1, keepdim=True)
    cells = ((test + 1) * 8).round().long().flatten(1)
    independent = (p[torch.arange(64), cells] / (2 / 17)).log().sum(1).mean().item()
    with torch.no_grad():
        got = flow.eval().log_prob(held_out).mean().item()
        sample = flow.sample(16)
    assert got > independent + 3, (got, independent)
    assert torch.isfinite(sample).all()
