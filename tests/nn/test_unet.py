"""U-Net, attention, time features."""

import pytest
import torch

from course_lib.nn.attention import SelfAttention2d
from course_lib.nn.embed import FourierFeatures, SinusoidalFeatures
from course_lib.nn.norm import group_norm
from course_lib.nn.unet import Added, UNet, UNetConfig


def awake(net):
    """Without the zeros that hide half of an untrained U-Net."""
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return net


def test_sinusoids_are_the_formula():
    got = SinusoidalFeatures(6)(torch.tensor([0.0, 3.0]))
    omega = torch.tensor([1.0, 0.01, 0.0001])
    torch.testing.assert_close(got[1], torch.cat([(3 * omega).sin(), (3 * omega).cos()]))
    assert got[0].tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="even"):
        SinusoidalFeatures(5)


def test_every_time_of_ddpm_has_features_of_its_own():
    features = SinusoidalFeatures(64)(torch.arange(1, 1001.0))
    distance = torch.cdist(features, features) + 10 * torch.eye(1000)
    assert distance.min() > 0.1


def test_fourier_features_have_the_gaussian_kernel():
    """E[γ(s)·γ(t)] · 2/d = exp(−(2π · scale · (s − t))² / 2): the scale says how near is near."""
    features = FourierFeatures(40_000, 0.5)
    a, b = features(torch.tensor([0.3])), features(torch.tensor([0.5]))
    want = torch.tensor(-((2 * torch.pi * 0.5 * 0.2) ** 2) / 2).exp()
    torch.testing.assert_close((a * b).sum() * 2 / 40_000, want, atol=0.02, rtol=0)


def test_attention_by_hand():
    layer, x = awake(SelfAttention2d(8, heads=2)), torch.randn(2, 8, 3, 2)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, 1)  # (b, 8, 6)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        weights = torch.einsum("bci,bcj->bij", q[:, part], k[:, part]).div(2).softmax(-1)
        heads.append(torch.einsum("bij,bcj->bci", weights, v[:, part]))
    want = x + layer.out(torch.cat(heads, 1).view_as(x))
    torch.testing.assert_close(layer(x), want)
    with pytest.raises(ValueError, match="heads"):
        SelfAttention2d(8, heads=3)


def test_group_norm_keeps_its_digits_under_autocast():
    norm, x = group_norm(16), 100 + torch.randn(2, 16, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        got = norm(x.bfloat16())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.nn.functional.group_norm(x.bfloat16().float(), 4))


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("modulation", [UNetConfig.modulation, Added])
def test_shapes_and_start_at_zero(patch, modulation):
    net = UNet(3, 2, UNetConfig(8, (1, 2, 2), 1, (2,), patch=patch, modulation=modulation))
    x, t = torch.randn(2, 3, 8 * patch, 4 * patch), torch.tensor([1.0, 500.5])
    assert net(x, t).shape == (2, 2, 8 * patch, 4 * patch) and not net(x, t).any()
    assert awake(net)(x, t).std() > 0


def test_time_label_and_far_pixels_matter():
    net = awake(UNet(1, 1, UNetConfig(8, (1, 2), 1, (1,), classes=4)))
    x, t, y = torch.randn(1, 1, 16, 16), torch.tensor([10.0]), torch.tensor([2])
    out = net(x, t, y)
    assert not torch.allclose(out, net(x, t + 1, y)) and not torch.allclose(out, net(x, t, y + 1))
    torch.testing.assert_close(net(x, t), net(x, t, torch.tensor([4])))  # no label is the label after the last
    x[0, 0, 15, 15] += 1
    assert net(x, t, y)[0, 0, 0, 0] != out[0, 0, 0, 0]


def test_each_twin_is_read():
    """Skip connections: with everything below cut off, the finest level still reaches the output."""
    net = awake(UNet(1, 1, UNetConfig(8, (1, 2), 1, ())))
    for block in net.middle:
        block.forward = lambda x, gamma: torch.zeros_like(x)
    x, t = torch.randn(1, 1, 8, 8, requires_grad=True), torch.ones(1)
    (gradient,) = torch.autograd.grad(net(x, t).sum(), x)
    assert gradient.abs().min() > 0


def test_mistakes_are_named():
    net = UNet(1, 1, UNetConfig(8, (1, 2), 1, ()))
    with pytest.raises(ValueError, match="multiples of 2"):
        net(torch.zeros(1, 1, 7, 8), torch.ones(1))
    with pytest.raises(ValueError, match="1 channels"):
        net(torch.zeros(1, 3, 8, 8), torch.ones(1))
    with pytest.raises(ValueError, match="without labels"):
        net(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="multiple of 8"):
        UNetConfig(12)
