import itertools

import pytest
import torch
from torch.nn import functional as F

from course_lib.nn.masked import MaskedConv2d


def dense(layer: MaskedConv2d, centre: bool) -> torch.Tensor:
    """The k × k kernel that the taps stand for, filled in one by one."""
    k = layer.kernel
    weight = torch.zeros(*layer.taps.shape[:2], k, k, dtype=layer.taps.dtype)
    shown = [(r, c) for r, c in itertools.product(range(k), range(k)) if r * k + c < k * k // 2 + centre]
    assert len(shown) == layer.taps.shape[2]
    for tap, (r, c) in enumerate(shown):
        weight[:, :, r, c] = layer.taps[:, :, tap]
    return weight


def made(kernel: int, centre: bool) -> MaskedConv2d:
    layer = MaskedConv2d(2, 3, kernel, centre).double()
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize(("kernel", "centre"), [(3, False), (3, True), (7, False), (7, True), (1, True)])
def test_it_is_the_dense_convolution_under_a_mask(kernel, centre):
    layer, x = made(kernel, centre), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    want = F.conv2d(x, dense(layer, centre), layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(x), want)


@pytest.mark.parametrize("centre", [False, True])
def test_one_position_equals_that_of_the_whole(centre):
    layer, x = made(5, centre), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    whole, padded = layer(x), F.pad(x, (2, 2, 2, 0))
    for row, column in itertools.product(range(6), range(5)):
        torch.testing.assert_close(layer.at(padded, row, column), whole[:, :, row, column])


def test_outputs_keep_the_variance_of_the_input():
    layer = MaskedConv2d(16, 400, 5, centre=True)
    out = layer(torch.randn(4, 16, 12, 12))[:, :, 2:, 2:-2]  # away from the zeros outside
    assert 0.9 < out.std() < 1.1


@pytest.mark.parametrize(("kernel", "centre", "message"), [(4, True, "odd side, got 4"), (1, False, "shows nothing")])
def test_impossible_kernels_are_refused(kernel, centre, message):
    with pytest.raises(ValueError, match=message):
        MaskedConv2d(1, 1, kernel, centre)
