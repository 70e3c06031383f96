import math

import pytest
import torch
from torch import nn

from course_lib.core import Player, fit
from course_lib.data import toy2d
from course_lib.maths import adversarial as adv
from course_lib.maths.divergences import jsd
from course_lib.nn.mlp import mlp
from tests.oracles import on_points, plane

LOGITS = torch.tensor([-30.0, -2.0, 0.0, 0.5, 3.0, 30.0], dtype=torch.float64)


def cells(density, extent: float, side: int) -> torch.Tensor:
    """Probability of each cell of a grid, normalized so that what the midpoint rule loses does not count."""
    points, area = plane(extent, side)
    p = on_points(density.double().log_prob, points).exp() * area
    assert p.sum() == pytest.approx(1, abs=1e-3)
    return p / p.sum()


def slope_of(loss, logits: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits), logits)[0]


# --- losses ---------------------------------------------------------------------------------------------------------


def test_cross_entropy_is_the_formula_with_probabilities():
    real, fake = torch.tensor([1.5, -0.3]), torch.tensor([0.2, -2.0, 0.7])
    want = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(adv.cross_entropy_discriminator_loss(real, fake), want)
    torch.testing.assert_close(adv.saturating_generator_loss(fake), (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(adv.non_saturating_generator_loss(fake), -fake.sigmoid().log().mean())
    undecided = torch.zeros(4)
    assert adv.cross_entropy_discriminator_loss(undecided, undecided).item() == pytest.approx(math.log(4))


def test_cross_entropy_is_finite_where_the_sigmoid_is_0_or_1():
    far = torch.tensor([-200.0, 200.0])
    assert torch.isfinite(adv.cross_entropy_discriminator_loss(far, far))
    assert adv.non_saturating_generator_loss(far[:1]).item() == pytest.approx(200)
    assert adv.saturating_generator_loss(far[1:]).item() == pytest.approx(-200)


def test_slopes_of_the_generators_losses():
    """∂/∂l: −σ(l) for the saturating loss, −(1 − σ(l)) for the non-saturating one, over n."""
    d, n = LOGITS.sigmoid(), len(LOGITS)
    torch.testing.assert_close(slope_of(adv.saturating_generator_loss, LOGITS), -d / n)
    torch.testing.assert_close(slope_of(adv.non_saturating_generator_loss, LOGITS), -(1 - d) / n)
    # both fall as the logit rises: same direction, other strength
    sure = torch.tensor([-8.0], dtype=torch.float64)
    ratio = slope_of(adv.non_saturating_generator_loss, sure) / slope_of(adv.saturating_generator_loss, sure)
    assert ratio.item() == pytest.approx(math.exp(8))


def test_least_squares_hinge_and_wasserstein_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert adv.least_squares_discriminator_loss(real, fake).item() == pytest.approx(0.5 * 1 + 0.5 * 5)
    assert adv.least_squares_generator_loss(fake).item() == pytest.approx(0.5 * (16 + 0) / 2)
    assert adv.hinge_discriminator_loss(real, fake).item() == pytest.approx((0 + 1) / 2 + (0 + 2) / 2)
    assert adv.wasserstein_critic_loss(real, fake).item() == pytest.approx(-1 - 1)
    assert adv.wasserstein_generator_loss(fake).item() == pytest.approx(1)


def test_only_the_wasserstein_loss_ignores_a_constant():
    """… which tells it from a hinge (a well-known annotated "WGAN" is one)."""
    real, fake = torch.randn(64), torch.randn(64)
    same = adv.wasserstein_critic_loss
    torch.testing.assert_close(same(real + 7, fake + 7), same(real, fake))
    for other in (
        adv.hinge_discriminator_loss,
        adv.least_squares_discriminator_loss,
        adv.cross_entropy_discriminator_loss,
    ):
        assert (other(real + 7, fake + 7) - other(real, fake)).abs() > 1


def test_losses_take_maps_of_logits():
    """Patch discriminators: the mean over patches and pictures."""
    real, fake = torch.randn(3, 1, 4, 4), torch.randn(5, 1, 4, 4)
    for loss in (adv.cross_entropy_discriminator_loss, adv.hinge_discriminator_loss, adv.wasserstein_critic_loss):
        torch.testing.assert_close(loss(real, fake), loss(real.flatten(), fake.flatten()))


def test_energy_margin_by_hand():
    real, fake = torch.tensor([0.1, 0.3]), torch.tensor([0.5, 4.0])
    assert adv.energy_margin_loss(real, fake, 1.0).item() == pytest.approx(0.2 + 0.25)


def test_pulling_away_is_the_mean_squared_cosine_of_different_codes():
    codes = torch.randn(5, 3)
    cosine = torch.nn.functional.cosine_similarity
    want = sum(cosine(codes[i], codes[j], 0) ** 2 for i in range(5) for j in range(5) if i != j) / 20
    torch.testing.assert_close(adv.pulling_away(codes), want)
    assert adv.pulling_away(torch.eye(3)).item() == pytest.approx(0, abs=1e-6)
    assert adv.pulling_away(torch.randn(1, 3) * torch.tensor([[1.0], [-2.0], [5.0]])).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="two codes"):
        adv.pulling_away(torch.ones(1, 3))


# --- gradient penalties ---------------------------------------------------------------------------------------------


def test_penalties_of_a_linear_critic_by_hand():
    """D = w·x with ‖w‖ = 5: (5 − 1)² = 16, max(0, 5 − 1) = 4, R1 = 25/2, wherever one looks."""
    w, x = torch.tensor([3.0, 0.0, 4.0]), torch.randn(7, 3)
    norms = adv.gradient_norms(lambda x: x @ w, x)
    torch.testing.assert_close(norms, torch.full((7,), 5.0))
    assert adv.two_sided(norms).item() == pytest.approx(16)
    assert adv.one_sided(norms).item() == pytest.approx(4)
    assert adv.r1_penalty(lambda x: x @ w, x).item() == pytest.approx(12.5)
    # a flat critic costs only under the two-sided penalty
    flat = torch.full((4,), 0.25)
    assert adv.two_sided(flat).item() == pytest.approx(0.5625) and adv.one_sided(flat) == 0


def test_norms_are_per_example():
    """Norms 1 and 7 have mean square distance 18 from 1; neither the batch's norm nor its mean gradient gives that."""
    x = torch.tensor([[0.5, 0.0], [3.5, 0.0]])
    norms = adv.gradient_norms(lambda x: x.square().sum(1), x)
    assert norms.tolist() == pytest.approx([1, 7])
    assert adv.two_sided(norms).item() == pytest.approx(18)
    assert adv.r1_penalty(lambda x: x.square().sum(1), x).item() == pytest.approx((1 + 49) / 4)


def test_the_norm_of_a_picture_is_over_all_its_pixels_and_channels():
    x, w = torch.randn(3, 2, 4, 4), torch.randn(2, 4, 4)
    norms = adv.gradient_norms(lambda x: (x * w).sum((1, 2, 3)), x)
    torch.testing.assert_close(norms, w.norm().expand(3))


def test_penalties_reach_the_critic_but_not_what_made_the_points():
    critic, maker = nn.Linear(2, 1), nn.Linear(2, 2)
    x = maker(torch.randn(5, 2))
    penalty = adv.two_sided(adv.gradient_norms(lambda x: critic(x).squeeze(1), x))
    gradients = torch.autograd.grad(penalty, [critic.weight, maker.weight], allow_unused=True)
    n = critic.weight.norm()
    torch.testing.assert_close(gradients[0], 2 * (n - 1) * critic.weight / n)
    assert gradients[1] is None
    with torch.no_grad():  # evaluation, too
        torch.testing.assert_close(adv.two_sided(adv.gradient_norms(lambda x: critic(x).squeeze(1), x)), penalty)


def test_points_between_lie_on_the_lines_and_are_uniform():
    real, fake = torch.randn(4000, 3), torch.randn(4000, 3)
    x = adv.between(real, fake, torch.Generator().manual_seed(0))
    share = ((x - fake) / (real - fake)).median(1).values
    torch.testing.assert_close(x, fake + share.unsqueeze(1) * (real - fake), rtol=0, atol=1e-4)
    assert share.min() >= -1e-4 and share.max() <= 1 + 1e-4
    assert share.mean().item() == pytest.approx(0.5, abs=0.03) and share.std().item() == pytest.approx(0.289, abs=0.01)
    assert adv.between(torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)).flatten(1).std(1).max() == 0  # one ε a picture


# --- the optimum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0])
def test_value_at_the_best_discriminator_is_2_jsd_minus_log_4(shift):
    """By quadrature over the plane, for two rings of different radius."""
    p, q = cells(toy2d.ring(8, 2.0, 0.6), 5, 200), cells(toy2d.ring(5, 2.0 - shift / 3, 0.6), 5, 200)
    best = adv.optimal_discriminator(p, q)
    value = adv.game_value(best, p, q)
    assert value.item() == pytest.approx(2 * jsd(p, q).item() - math.log(4), abs=1e-9)
    assert adv.optimal_value(p, q).item() == pytest.approx(value.item(), abs=1e-9)
    # no other discriminator does better, and the loss of the logits is minus the value
    for step in (-0.1, 0.1):
        assert adv.game_value((best + step).clamp(0, 1), p, q) < value
    logits = p.log() - q.log()
    cross_entropy = (p * nn.functional.softplus(-logits) + q * nn.functional.softplus(logits)).sum()
    assert cross_entropy.item() == pytest.approx(-value.item(), abs=1e-9)


def test_value_lies_between_minus_log_4_and_0():
    p = cells(toy2d.ring(8, 2.0, 0.3), 4, 64)
    assert adv.optimal_value(p, p).item() == pytest.approx(-math.log(4))
    apart = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.3, 0.7])
    assert adv.optimal_value(*apart).item() == pytest.approx(0, abs=1e-6)
    assert adv.game_value(adv.optimal_discriminator(*apart), *apart).item() == pytest.approx(0, abs=1e-6)


def test_best_discriminator():
    d = adv.optimal_discriminator(torch.tensor([0.3, 0.0, 2.0, 0.0]), torch.tensor([0.1, 1.0, 0.0, 0.0]))
    assert d.tolist() == pytest.approx([0.75, 0, 1, 0.5])


def test_a_trained_table_becomes_the_best_discriminator():
    """One logit per cell, trained on the cross-entropy with the exact expectations: D → p / (p + q)."""
    p = torch.tensor([0.5, 0.2, 0.2, 0.1])
    q = torch.tensor([0.1, 0.2, 0.4, 0.3])
    table = torch.zeros(4, requires_grad=True)

    def loss(batch, step):
        real, fake = batch
        return adv.cross_entropy_discriminator_loss(table[real], table[fake])

    # 10 draws of each law in exactly its proportions
    real, fake = (torch.repeat_interleave(torch.arange(4), (10 * law).round().long()) for law in (p, q))
    fit(Player("table", [table], loss, lr=0.05), lambda step: (real, fake), 400)
    torch.testing.assert_close(table.detach().sigmoid(), adv.optimal_discriminator(p, q), rtol=0, atol=1e-3)
    assert -loss((real, fake), 0).item() == pytest.approx(adv.optimal_value(p, q).item(), abs=1e-5)


def test_a_network_trained_on_samples_comes_near_it():
    p, q = toy2d.ring(3, 1.0, 0.5), toy2d.ring(1, 1.0, 0.8)
    net = mlp([2, 32, 32, 1])

    def loss(batch, step):
        return adv.cross_entropy_discriminator_loss(net(batch[0]), net(batch[1]))

    fit(Player("net", net, loss, lr=5e-3), lambda step: (p.sample(500), q.sample(500)), 300)
    x = torch.cat([p.sample(2000), q.sample(2000)])
    want = adv.optimal_discriminator(p.log_prob(x).exp(), q.log_prob(x).exp())
    with torch.no_grad():
        error = (net(x).squeeze(1).sigmoid() - want).abs().mean()
    assert (want - 0.5).abs().mean() > 0.15  # there was something to learn
    assert error < 0.04


# --- diversity ------------------------------------------------------------------------------------------------------


def test_mode_seeking_ratio_by_hand():
    z1, z2 = torch.zeros(2, 2), torch.tensor([[1.0, 3.0], [0.5, 0.5]])
    x1, x2 = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 4.0) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    ratio = adv.mode_seeking_ratio(x1, x2, z1, z2)
    assert ratio.tolist() == pytest.approx([4 / 2, 4 / 0.5])
    assert adv.mode_seeking_loss(ratio).item() == pytest.approx(1 / 5, abs=1e-5)


def test_mode_seeking_loss_is_large_but_finite_at_a_collapsed_generator_and_pushes_apart():
    z1, z2 = torch.randn(4, 3), torch.randn(4, 3)
    same = torch.randn(4, 2)
    assert adv.mode_seeking_loss(adv.mode_seeking_ratio(same, same, z1, z2)).item() == pytest.approx(1e5)
    other = (same + 0.1).requires_grad_()
    adv.mode_seeking_loss(adv.mode_seeking_ratio(same, other, z1, z2)).backward()
    assert (other.grad < 0).all()  # farther apart is better
