import inspect
import math

import pytest
import torch

from course_lib.metrics.path_length import lerp, path_speeds, perceptual_path_length, slerp

WEIGHT = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def latents(n=200, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))


def linear(z):
    return z @ WEIGHT.T


def squared(x, y):
    return (x - y).square().sum(1)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 0.5])
def test_a_linear_generator_on_a_straight_walk(epsilon):
    """d/ε² = ‖A(b − a)‖², at every t and for every ε."""
    a, b = latents()
    speeds = path_speeds(linear, squared, (a, b), torch.rand(200, dtype=torch.float64), epsilon)
    torch.testing.assert_close(speeds, linear(b - a).square().sum(1), rtol=1e-6, atol=0)


def test_a_great_circle_is_walked_at_the_speed_of_its_angle():
    a, b = (torch.nn.functional.normalize(z) for z in latents())
    t = torch.rand(200, dtype=torch.float64)
    angle = (a * b).sum(1).acos()
    speeds = path_speeds(lambda z: z, squared, (a, b), t, 1e-4, slerp)
    torch.testing.assert_close(speeds, angle.square(), rtol=1e-6, atol=0)
    torch.testing.assert_close(slerp(a, b, t).norm(dim=1), torch.ones(200, dtype=torch.float64))
    middle = slerp(a, b, torch.full((200,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(middle, torch.nn.functional.normalize(a + b))


def test_walks_begin_and_end_where_they_should():
    a, b = latents()
    zero, one = torch.zeros(200, dtype=torch.float64), torch.ones(200, dtype=torch.float64)
    for walk in (lerp, slerp):
        torch.testing.assert_close(walk(a, b, zero), a)
        torch.testing.assert_close(walk(a, b, one), b)
    # no arc between parallel vectors: the straight line, without NaN
    torch.testing.assert_close(slerp(a, 2 * a, one / 2), 1.5 * a)


def test_a_curved_generator_is_measured_where_the_walk_is():
    """G(z) = z² from 0 to 1 has speed 2t, so the mean of its square over t is 4/3."""
    n = 20_000
    ends = torch.zeros(n, 1, dtype=torch.float64), torch.ones(n, 1, dtype=torch.float64)
    got = perceptual_path_length(
        lambda z: z**2, squared, ends, trim=0.0, generator=torch.Generator().manual_seed(0), chunk=4096
    )
    assert abs(got.value - 4 / 3) < 5 * got.stderr and 0 < got.stderr < 0.02
    again = perceptual_path_length(lambda z: z**2, squared, ends, trim=0.0, generator=torch.Generator().manual_seed(0))
    assert again == pytest.approx(got, rel=1e-9)  # chunks change nothing


def test_trimming_leaves_both_tails_out():
    """Speeds 1 … 100: without the lowest and highest ten the mean stays, one wild walk no longer counts."""
    length = torch.arange(1, 101, dtype=torch.float64).sqrt().unsqueeze(1)
    length[-1] = 1e4
    ends = torch.zeros_like(length), length
    got = perceptual_path_length(lambda z: z, squared, ends, trim=0.1)
    assert got.value == pytest.approx((11 + 90) / 2, rel=1e-6)
    assert got.stderr == pytest.approx(torch.arange(11.0, 91.0).std().item() / 80**0.5, rel=1e-6)
    assert perceptual_path_length(lambda z: z, squared, ends, trim=0.0).value > 1e5


def test_a_step_of_1e_4_survives_a_float32_generator():
    a, b = (z.float() for z in latents())
    t = torch.rand(200)
    speeds = path_speeds(lambda z: linear(z.double()), squared, (a, b), t)
    mean = linear((b - a).double()).square().sum(1).mean()
    assert speeds.mean().item() == pytest.approx(mean.item(), rel=1e-2)
    assert math.isfinite(speeds.max().item())


def test_mistakes():
    a, b = latents()
    t = torch.rand(200, dtype=torch.float64)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        path_speeds(linear, squared, (a, b), t, 0.0)
    with pytest.raises(ValueError, match=r"need ends \(b, d\) twice"):
        inspect.unwrap(path_speeds)(linear, squared, (a, b[:5]), t)
    with pytest.raises(ValueError, match=r"one number per pair, \(200,\), got \(200, 7\)"):
        path_speeds(linear, lambda x, y: x - y, (a, b), t)
    with pytest.raises(ValueError, match="NaN"):
        path_speeds(lambda z: linear(z) * torch.nan, squared, (a, b), t)
    with pytest.raises(ValueError, match=r"trim must be in \[0, 0.5\)"):
        perceptual_path_length(linear, squared, (a, b), trim=0.5)
    with pytest.raises(ValueError, match="at least 2 walks"):
        perceptual_path_length(linear, squared, (a[:1], b[:1]))
