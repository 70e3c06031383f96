import inspect
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from course_lib.data.photos import photo
from course_lib.metrics import statistics
from course_lib.metrics.features import EfficientNetLite0, InceptionV3, as_rgb, extract, to_bytes
from course_lib.metrics.perceptual import map_distance, perceptual_distance

# ImageNet's classes: tabby, tiger cat, Egyptian cat; cup, espresso, coffee mug; missile, projectile, space shuttle
CLASSES = {"chelsea": {281, 282, 285}, "coffee": {504, 967, 968}, "rocket": {657, 744, 812}}


@pytest.fixture(scope="module")
def net():
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def small():
    return EfficientNetLite0(size=64)


@pytest.mark.parametrize("name", CLASSES)
def test_it_knows_what_is_on_real_photographs(net, name):
    """Real weights, with the pictures scaled as in their training: wrong weights or a wrong scale lose these."""
    top = net.probs(photo(name, 224).unsqueeze(0)).topk(3).indices[0].tolist()
    assert top[0] in CLASSES[name] and len(set(top) & CLASSES[name]) >= 2


def test_pictures_are_scaled_as_in_training_and_resized_without_aliasing(net, small):
    grey = torch.linspace(-1, 1, 256).view(-1, 1, 1, 1).expand(-1, 1, 64, 64)
    byte = torch.arange(256.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(small.prepare(grey), ((byte - 127) / 128).expand(-1, 3, 64, 64), atol=1e-6, rtol=0)
    assert net.prepare(grey[:2]).shape == (2, 3, 224, 224)
    stripes = torch.tensor([-1.0, 1.0]).repeat(96).expand(1, 1, 192, 192)  # too fine for 64 pixels: must average out
    assert small.prepare(stripes)[..., 2:-2].abs().max() < 0.15  # picked pixels would be ±1


def test_grey_is_colour_with_equal_channels(small):
    x = photo("brick", 48).unsqueeze(0)
    assert x.shape[1] == 1
    assert torch.equal(small(x), small(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"1 or 3, h, w\), got \(2, 4, 8, 8\)"):
        as_rgb(torch.zeros(2, 4, 8, 8))


def test_features_and_maps(small):
    x = torch.stack([photo(name, 64) for name in CLASSES])
    assert small(x).shape == (3, EfficientNetLite0.WIDTH)
    shapes = [tuple(m.shape[1:]) for m in small.maps(x)]
    assert shapes == [(c, s, s) for c, s in zip(EfficientNetLite0.CHANNELS, (32, 16, 8, 4, 2), strict=True)]
    halving = [i for i, block in enumerate(small.net._blocks) if block._depthwise_conv.stride[0] == 2]
    assert [*halving, len(small.net._blocks)] == [tap + 1 for tap in EfficientNetLite0.TAPS]
    torch.testing.assert_close(small.net(small.prepare(x)).softmax(-1), small.probs(x))  # the package's own forward
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        EfficientNetLite0(size=100)


def test_it_stays_frozen_inside_a_model_in_training(small):
    model = torch.nn.Sequential(small)
    model.train()
    assert not any(m.training for m in small.modules())
    assert not any(p.requires_grad for p in small.parameters())
    x = torch.stack([photo(name, 64) for name in CLASSES])
    before = small(x)
    small(torch.randn(8, 3, 64, 64))
    assert torch.equal(small(x), before)
    small.train(True)


def test_any_callable_gives_features():
    x = torch.rand(50, 1, 4, 4)
    matrix = extract(lambda images: images.flatten(1), x.split(16))
    assert torch.equal(matrix, x.flatten(1))
    moments = statistics.of_batches(lambda images: images.flatten(1), x.split(16))
    torch.testing.assert_close(moments.mean, matrix.double().mean(0))
    with pytest.raises(ValueError, match="no batches"):
        extract(lambda images: images, [])


def test_features_run_on_meta():
    net = EfficientNetLite0(size=64, pretrained=False).to("meta")
    x = torch.empty(2, 1, 28, 28, device="meta")
    assert net(x).is_meta and perceptual_distance(net.maps, x, x).is_meta


# --- Inception --------------------------------------------------------------------------------------------------------


def test_without_torch_fidelity_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install torch-fidelity.*EfficientNetLite0\(\)"):
        InceptionV3()


def test_torch_fidelity_is_given_bytes_in_colour(monkeypatch):
    """A stand-in for the package: it wants uint8 RGB and returns the features asked for, in order."""
    seen = {}

    class FeatureExtractorInceptionV3(torch.nn.Module):
        def __init__(self, name, features_list, feature_extractor_weights_path=None):
            super().__init__()
            seen.update(features=features_list, weights=feature_extractor_weights_path)

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            seen["x"] = x
            return x.float().mean((2, 3)), torch.log(torch.tensor([[0.25, 0.75]])).expand(len(x), 2)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FeatureExtractorInceptionV3
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    net = InceptionV3("weights.pth")
    assert seen == {"features": ["2048", "logits_unbiased"], "weights": "weights.pth"}
    x = torch.tensor([-1.0, 0.0, 1.0, 1.7]).view(4, 1, 1, 1).expand(4, 1, 5, 5)
    assert net(x)[:, 0].tolist() == [0, 128, 255, 255]
    torch.testing.assert_close(net.probs(x), torch.tensor([[0.25, 0.75]]).expand(4, 2))


def test_bytes():
    byte = torch.arange(256)
    assert torch.equal(to_bytes((byte / 127.5 - 1).view(1, 1, 16, 16)).flatten().long(), byte)


# --- perceptual distance ----------------------------------------------------------------------------------------------


def test_it_is_the_mean_squared_sine_of_half_the_angle():
    """Unit vectors at angle ω are 4 sin²(ω/2) apart; lengths do not matter; layers and places are averaged."""
    angle = torch.tensor([0.3, 1.2, 2.5], dtype=torch.float64)
    there = torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, 3) * torch.tensor([5.0, 0.1, 30.0])
    here = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 1, 3) * 7
    want = (4 * (angle / 2).sin().square()).mean()
    torch.testing.assert_close(map_distance([here], [there]).squeeze(), want, rtol=1e-7, atol=0)
    two = map_distance([here, here], [there, here]).squeeze()
    torch.testing.assert_close(two, want / 2, rtol=1e-7, atol=0)


def test_it_is_a_dissimilarity_that_grows_with_blur(small):
    x = torch.stack([photo(name, 64) for name in CLASSES])

    def d(a, b):
        return perceptual_distance(small.maps, a, b)

    assert torch.equal(d(x, x), torch.zeros(3)) and torch.equal(d(x, x.flip(0)), d(x.flip(0), x))
    blurs = [F.avg_pool2d(F.pad(x, (k,) * 4, mode="reflect"), 2 * k + 1, 1) for k in (1, 2, 3)]
    assert (torch.stack([d(x, b) for b in blurs]).diff(dim=0) > 0).all()
    assert (d(x, blurs[0]) < d(x, x.roll(1, 0))).all()  # a blurred picture is nearer than another picture


def test_it_trains_pictures(small):
    """Gradients reach the picture, also at equality and where maps are zero."""
    target = photo("chelsea", 64).unsqueeze(0)
    x = torch.zeros_like(target).requires_grad_()
    loss = perceptual_distance(small.maps, x, target).sum()
    (slope,) = torch.autograd.grad(loss, x)
    closer = x - 0.5 * slope / slope.abs().max() * 0.02
    assert perceptual_distance(small.maps, closer.detach(), target).sum() < loss
    zero = torch.zeros(1, 3, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(map_distance([zero], [torch.ones(1, 3, 4, 4)]).sum(), zero)
    assert slope.isfinite().all()


def test_mistakes(small):
    x = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match="pictures differ in shape"):
        inspect.unwrap(perceptual_distance)(small.maps, x, x[:1])
    with pytest.raises(ValueError, match="same layers"):
        map_distance([x], [x, x])
    with pytest.raises(ValueError, match="same layers"):
        map_distance([], [])
    with pytest.raises(ValueError, match="layer 1 of the second pictures"):
        map_distance([x, x], [x, x * torch.nan])
