import math

import pytest
import torch

from course_lib.maths.discrete import bits_per_dim, dequantize, quantize, sample_categorical, with_cell_noise
from tests.oracles import assert_frequencies


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_quantize_undoes_dequantize_on_every_level(levels):
    v = torch.arange(levels).view(1, 1, -1)
    x = dequantize(v, levels)
    assert x.shape == (1, 1, 1, levels) and x.min() == -1 and x.max() == 1
    assert torch.equal(quantize(x, levels), v)


def test_quantize_takes_the_nearest_grey_value():
    x = torch.rand(3, 1, 8, 8) * 2.4 - 1.2  # some are outside and belong to the edges
    grid = torch.linspace(-1, 1, 5)
    want = (x.squeeze(1).unsqueeze(-1) - grid).abs().argmin(-1)
    assert torch.equal(quantize(x, 5), want)


def test_bits_per_dim_of_the_uniform_law_is_log2_of_the_levels():
    dims, levels = 12, 16
    nats = dims * math.log(levels)
    assert bits_per_dim(nats, dims) == pytest.approx(4)
    torch.testing.assert_close(bits_per_dim(torch.tensor([nats, 2 * nats]), dims), torch.tensor([4.0, 8.0]))


def test_categorical_frequencies_are_the_softmax():
    logits = torch.tensor([0.3, -2.0, 1.5, 0.0, -30.0], dtype=torch.float64)
    drawn = sample_categorical(logits.expand(50_000, -1), torch.rand(50_000))
    assert_frequencies(drawn, logits.softmax(0))


def test_categorical_is_the_inverse_of_the_cumulative_distribution():
    p = torch.tensor([0.25, 0.0, 0.5, 0.25, 0.0])
    u = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-24])
    assert sample_categorical(p.log().expand(6, -1), u).tolist() == [0, 0, 2, 2, 3, 3]


def test_an_impossible_symbol_is_never_drawn():
    """``torch.rand`` draws 0.0 once in 2²⁴ times: not even then."""
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]])
    for u in (0.0, 0.5, 1 - 2**-24):
        assert sample_categorical(logits, torch.tensor([u])).item() == 1


def test_each_row_has_its_own_law_and_number():
    logits = torch.tensor([[0.0, -50.0], [-50.0, 0.0]])
    assert sample_categorical(logits, torch.tensor([0.9, 0.1])).tolist() == [0, 1]


def test_cell_noise_stays_in_the_cell_and_fills_it():
    v = torch.randint(256, (50, 6, 7), generator=torch.Generator().manual_seed(0))
    for levels in (2, 256):
        x = with_cell_noise(v % levels, levels, torch.Generator().manual_seed(1))
        position = (x.double() + 1) * levels / 2 - (v % levels).unsqueeze(1)  # u
        assert x.shape == (50, 1, 6, 7) and position.min() > -1e-4 and position.max() < 1 + 1e-4
        assert abs(float(position.mean()) - 0.5) < 5 / (12 * position.numel()) ** 0.5
