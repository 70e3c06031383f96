import math

import pytest
import torch
from scipy import stats

from course_lib.maths import divergences
from tests.oracles import slope


def laws(b=6, n=10):
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(b, n, generator=generator, dtype=torch.float64).pow(3).softmax(-1) for _ in range(2)]


def entropy(p):
    return -(p * p.log()).sum(-1)


def test_kl_is_scipys_and_is_not_symmetric():
    p, q = laws()
    want = torch.tensor(stats.entropy(p.numpy(), q.numpy(), axis=-1))
    torch.testing.assert_close(divergences.kl(p, q), want)
    assert (divergences.kl(p, q) > 0).all()
    assert not torch.allclose(divergences.kl(p, q), divergences.kl(q, p), rtol=1e-3)
    torch.testing.assert_close(divergences.kl(p, p), torch.zeros(6, dtype=torch.float64))


def test_kl_by_hand():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert divergences.kl(p, q).item() == pytest.approx(math.log(2))  # 0 log 0 = 0
    assert divergences.kl(q, p).item() == math.inf
    assert divergences.kl(p, torch.tensor([0.5, 0.5, 0.0])).item() == 0


def test_jsd_is_the_entropy_of_the_mean_minus_the_mean_entropy():
    p, q = laws()
    want = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    torch.testing.assert_close(divergences.jsd(p, q), want)
    torch.testing.assert_close(divergences.jsd(p, q), divergences.jsd(q, p))
    assert (divergences.jsd(p, q) < math.log(2)).all() and (divergences.jsd(p, q) > 0).all()


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_two_deltas(gap):
    """JSD stays log 2 whatever the distance, W₁ is the distance: the argument for Wasserstein GANs."""
    p, q = torch.zeros(8), torch.zeros(8)
    p[1], q[1 + gap] = 1, 1
    assert divergences.kl(p, q).item() == math.inf
    assert divergences.jsd(p, q).item() == pytest.approx(math.log(2))
    assert divergences.wasserstein1_grid(p, q, 0.5).item() == pytest.approx(0.5 * gap)
    a, b = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0 + gap])
    distance = divergences.wasserstein1(a, b)
    assert distance.item() == pytest.approx(gap)
    assert torch.autograd.grad(distance, a)[0].item() == -1  # moving a up by ε shortens the way by ε
    assert divergences.wasserstein1(b, a).item() == pytest.approx(gap)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 9), (1, 4), (30, 1), (100, 64)])
def test_wasserstein_is_scipys(n, m):
    x, y = torch.randn(n, dtype=torch.float64), 2 * torch.randn(m, dtype=torch.float64) + 0.5
    got = divergences.wasserstein1(x, y).item()
    assert got == pytest.approx(stats.wasserstein_distance(x.numpy(), y.numpy()), rel=1e-9)
    if n == m:
        assert got == pytest.approx((x.sort().values - y.sort().values).abs().mean().item())


def test_wasserstein_with_ties_and_equal_samples():
    x, y = torch.tensor([0.0, 0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 1.0])
    want = stats.wasserstein_distance(x.numpy(), y.numpy())
    assert divergences.wasserstein1(x, y).item() == pytest.approx(want, rel=1e-6)
    assert divergences.wasserstein1(x, x.flip(0)).item() == 0


def test_wasserstein_gradient_is_the_finite_difference():
    x, y = torch.randn(6, dtype=torch.float64), torch.randn(9, dtype=torch.float64) + 1
    x.requires_grad_()
    y.requires_grad_()
    by_x, by_y = torch.autograd.grad(divergences.wasserstein1(x, y), (x, y))
    torch.testing.assert_close(
        by_x, slope(lambda t: divergences.wasserstein1(t, y.detach()), x.detach()), atol=1e-7, rtol=1e-6
    )
    torch.testing.assert_close(
        by_y, slope(lambda t: divergences.wasserstein1(x.detach(), t), y.detach()), atol=1e-7, rtol=1e-6
    )


def test_wasserstein_on_a_grid_is_scipys():
    p, q = laws(b=3, n=12)
    axis = torch.arange(12) * 0.25
    want = [stats.wasserstein_distance(axis, axis, a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    assert divergences.wasserstein1_grid(p, q, 0.25).tolist() == pytest.approx(want)


def test_gradients_stay_finite_where_both_underflow():
    grid = torch.linspace(-20, 20, 401, dtype=torch.float64)
    shift = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    p = torch.exp(-0.5 * (grid / 0.3) ** 2).float().double()
    q = torch.exp(-0.5 * ((grid - shift) / 0.3) ** 2)
    p, q = p / p.sum(), q / q.sum()
    assert (p + q == 0).any() or (p == 0).any()
    (gradient,) = torch.autograd.grad(divergences.jsd(p, q), shift)
    assert torch.isfinite(gradient)
