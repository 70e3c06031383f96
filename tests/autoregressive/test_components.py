"""Pieces with a closed form: mu-law, the discretized logistic mixture, skewing, gates."""

import math

import pytest
import torch

from course_lib.autoregressive.gated_pixelcnn import gate
from course_lib.autoregressive.pixelcnnpp import PixelCNNpp, logistic_mixture_log_prob
from course_lib.autoregressive.pixelrnn import skew, unskew
from course_lib.autoregressive.transformer import CausalBlock
from course_lib.autoregressive.wavenet import WaveNet, mu_law, mu_law_inverse


def brute_force_mixture(params, v, levels):
    """Σ_m π_m [F((v + ½ …)) − F((v − ½ …))] literally, in float64, with the edges at ±∞."""
    weight, mean, log_scale = params.double().chunk(3, 1)
    centre = 2 * v.double().unsqueeze(1) / (levels - 1) - 1
    cdf = lambda edge: 1 / (1 + torch.exp(-(edge - mean) / log_scale.exp()))  # noqa: E731
    upper = torch.where(v.unsqueeze(1) == levels - 1, 1.0, cdf(centre + 1 / (levels - 1)))
    lower = torch.where(v.unsqueeze(1) == 0, 0.0, cdf(centre - 1 / (levels - 1)))
    return (weight.softmax(1) * (upper - lower)).sum(1)


def mixtures(n, m, spread=1.0):
    torch.manual_seed(3)
    parts = torch.randn(n, m), torch.rand(n, m) * 2.4 - 1.2, torch.randn(n, m) * spread - 2
    return torch.cat(parts, 1).double()


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_mixture_is_the_difference_of_its_cdf_and_sums_to_one(levels):
    params = mixtures(40, 4).unsqueeze(-1).expand(-1, -1, levels)
    v = torch.arange(levels).expand(40, -1)
    got = logistic_mixture_log_prob(params, v, levels)
    torch.testing.assert_close(got.exp(), brute_force_mixture(params, v, levels), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(got.exp().sum(1), torch.ones(40).double(), rtol=0, atol=1e-12)


def test_mixture_edges_take_the_tails():
    """A logistic far outside the range puts its mass on the nearest level, not nowhere."""
    v = torch.tensor([[0, 255]] * 2)
    params = torch.tensor([[0.0, -3.0, -4.0], [0.0, 3.0, -4.0]]).unsqueeze(-1).expand(-1, -1, 2)
    log_p = logistic_mixture_log_prob(params, v, 256)
    assert log_p[0, 0] > -1e-6 and log_p[1, 1] > -1e-6
    assert log_p[0, 1] < -100 and log_p[1, 0] < -100


@pytest.mark.parametrize("log_scale", [-30.0, -7.0, 0.0, 7.0, 30.0])
@pytest.mark.parametrize("mean", [-50.0, -1.0, 0.3, 50.0])
def test_mixture_is_finite_in_float32_with_finite_gradients(mean, log_scale):
    params = torch.tensor([[0.0, 1.0, mean, mean + 0.1, log_scale, log_scale]]).unsqueeze(-1).repeat(1, 1, 256)
    params.requires_grad_()
    log_p = logistic_mixture_log_prob(params, torch.arange(256).unsqueeze(0), 256)
    assert torch.isfinite(log_p).all() and (log_p <= 1e-6).all()
    assert log_p.logsumexp(1).abs().item() < 1e-3
    log_p.sum().backward()
    assert torch.isfinite(params.grad).all()


def test_mixture_under_bfloat16_autocast_still_tells_256_levels_apart():
    model = PixelCNNpp(256, 3, 8, 2)
    v = torch.randint(256, (2, 6, 6))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        params = model.params(v).movedim(1, -1).flatten(0, 2)
        log_p = model.level_logits(params)
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(log_p)), rtol=0, atol=1e-4)
    assert (log_p.diff(dim=1) != 0).double().mean() > 0.95  # neighbours do not collapse into one level


def test_pixelcnnpp_level_logits_are_its_log_prob():
    model = PixelCNNpp(4, 2, 8, 2).double()
    v = torch.randint(4, (3, 2, 2))
    params = model.params(v).movedim(1, -1)
    picked = model.level_logits(params.flatten(0, 2)).gather(1, v.flatten().unsqueeze(1))
    torch.testing.assert_close(picked.view(3, 4).sum(1), model.log_prob(v))


def test_mu_law_is_the_formula_and_its_inverse():
    v = torch.arange(256)
    assert torch.equal(mu_law(mu_law_inverse(v)), v)  # every level comes back
    x = torch.linspace(-1, 1, 4001)
    want = x.sign() * (1 + 255 * x.abs()).log() / math.log(256)
    torch.testing.assert_close(2 * mu_law(x) / 255 - 1, want, rtol=0, atol=1 / 255 + 1e-5)
    assert mu_law(torch.tensor([-1.0, 1.0, -7.0, 7.0])).tolist() == [0, 255, 0, 255]


def test_mu_law_is_finer_near_silence():
    error = lambda x: (mu_law_inverse(mu_law(x)) - x).abs().max().item()  # noqa: E731
    quiet, loud = torch.linspace(-0.01, 0.01, 999), torch.linspace(0.9, 1.0, 999)
    assert error(quiet) < 4e-4 < 5e-3 < error(loud) < 0.022  # equal steps would be off by 1/255 everywhere
    signal = torch.rand(9999) * 2 - 1
    # half a step of the companded scale, times the slope of the expansion, ln(256) (1 + 255|x|)/255
    allowed = (1 / 255) * math.log(256) * (1 + 255 * signal.abs()) / 255
    assert ((mu_law_inverse(mu_law(signal)) - signal).abs() <= 1.02 * allowed).all()


@pytest.mark.parametrize(("h", "w"), [(1, 4), (4, 1), (3, 5), (5, 3)])
def test_skew_moves_row_i_by_i_and_unskew_brings_it_back(h, w):
    x = torch.randn(2, 3, h, w)
    skewed = skew(x)
    assert skewed.shape == (2, 3, h, w + h - 1)
    for i in range(h):
        assert torch.equal(skewed[:, :, i, i : i + w], x[:, :, i])
    assert skewed.count_nonzero() == x.count_nonzero()  # and zeros elsewhere
    assert torch.equal(unskew(skewed), x)


def test_gate_is_tanh_times_sigmoid():
    f, g = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(gate(torch.cat([f, g], 1)), f.tanh() / (1 + (-g).exp()))


def test_wavenet_receptive_field_counts_repeated_stacks():
    assert WaveNet(4, 4, 4, 8).receptive_field == 256
    assert WaveNet(4, 4, 4, 3, stacks=4).receptive_field == 1 + 4 * 7


def test_attention_is_the_formula():
    """softmax(Q Kᵀ / √d + mask) V for each head, by hand, and the residual around it."""
    block, t = CausalBlock(6, 2, 0.0).double(), 5
    x = torch.randn(1, t, 6, dtype=torch.float64)
    q, k, v = block.qkv(block.norm1(x))[0].chunk(3, -1)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        scores = q[:, part] @ k[:, part].T / math.sqrt(3)
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ v[:, part])
    h = x + block.out(torch.cat(heads, -1))
    torch.testing.assert_close(block(x), h + block.mlp(block.norm2(h)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 does not divide among 4 heads"):
        CausalBlock(10, 4, 0.0)
