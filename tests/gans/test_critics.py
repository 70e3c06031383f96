"""Lipschitz critics: clipping, gradient penalty, spectral normalization."""

import copy

import pytest
import torch
from torch import nn

from course_lib.core import fit, stream
from course_lib.gans.networks import conv_discriminator, mlp_discriminator, mlp_generator
from course_lib.gans.spectral_norm import HINGE, SpectralNorm, sngan, spectrally_normalized
from course_lib.gans.wgan import WASSERSTEIN, WGAN, clip_weights
from course_lib.gans.wgan_gp import BETAS, CRITIC_UPDATES, gradient_penalty, wgan_gp
from course_lib.maths import adversarial as adv
from tests.gans.judges import RING, trained_on_ring


def pair(hidden: int = 64) -> tuple[nn.Module, nn.Module, int]:
    return mlp_generator(2, 2, hidden), mlp_discriminator(2, hidden), 2


def largest(module: nn.Module) -> float:
    return max(p.abs().max().item() for p in module.parameters())


def steepest(critic: nn.Module, n: int = 4000) -> float:
    """The largest gradient norm over points in and around the ring."""
    return adv.gradient_norms(critic, 3 * torch.randn(n, 2)).max().item()


# --- clipping -------------------------------------------------------------------------------------------------------


def test_clipping_keeps_every_weight_within_the_bound_whenever_the_critic_is_used():
    torch.manual_seed(0)
    model = WGAN(*pair(16), bound=0.03)
    seen = []
    model.discriminator.register_forward_pre_hook(lambda module, args: seen.append(largest(module)))
    assert largest(model.discriminator) > 0.03
    fit(model.players(lr=1e-2, repeats=3), stream(RING.sample, 16), 5)
    assert len(seen) == 5 * (3 * 2 + 1) and max(seen) <= 0.03 + 1e-8
    assert largest(model.discriminator) <= 0.03 + 1e-8  # after the run, too
    assert largest(model.generator) > 0.03  # the generator is free


def test_clipping_is_a_projection():
    net = nn.Linear(3, 2)
    before = net.weight.detach().clone()
    clip_weights(net, 0.2)
    torch.testing.assert_close(net.weight.detach(), before.clamp(-0.2, 0.2))
    with pytest.raises(ValueError, match="positive"):
        WGAN(*pair(4), bound=0.0)


def test_the_clipped_loss_is_the_wasserstein_one():
    model, x = WGAN(*pair(16), bound=0.1), RING.sample(8)
    torch.manual_seed(1)
    got = model.discriminator_loss(x)
    torch.manual_seed(1)
    fake = model.generator(torch.randn(8, 2))
    torch.testing.assert_close(got, model.discriminator(fake).mean() - model.discriminator(x).mean())
    assert model.players()[0].repeats == 5


def test_a_clipped_critic_stretches_the_generator_over_the_ring():
    """Clipped critics are almost linear, so this is slow: the far modes come near, none is hit yet."""
    model = WGAN(*pair(), bound=0.1)

    def farthest_mode():
        with torch.no_grad():
            return torch.cdist(RING.means, model.sample(2000)).amin(1).max().item()

    before = farthest_mode()
    fit(model.players(lr=3e-4, discriminator_lr=1e-3), stream(RING.sample, 128), 100)
    assert before > 1.5 and farthest_mode() < before - 0.3


# --- gradient penalty -----------------------------------------------------------------------------------------------


def test_gradient_penalty_of_a_linear_critic():
    """λ (5 − 1)², and λ (5 − 1) for the slide's penalty, wherever the points fall."""
    w, real, fake = torch.tensor([3.0, 4.0]), torch.randn(6, 2), torch.randn(6, 2)
    critic = lambda x: x @ w  # noqa: E731
    assert gradient_penalty(10.0)(critic, real, fake, 0).item() == pytest.approx(160)
    assert gradient_penalty(0.5, adv.one_sided)(critic, real, fake, 0).item() == pytest.approx(2)


def test_the_penalty_looks_between_data_and_fakes():
    """… and neither at data only nor at fakes only: the points that reach the critic."""
    seen = []

    def critic(x):
        seen.append(x)
        return x.square().sum(1)

    real, fake = torch.full((500, 2), 1.0), torch.full((500, 2), -1.0)
    gradient_penalty()(critic, real, fake, 0)
    assert seen[0].min() < -0.9 and seen[0].max() > 0.9 and seen[0].mean().abs() < 0.15


def test_penalized_critic_has_slope_one_and_estimates_the_distance():
    """Data at 0 and fakes at distance 3: W₁ = 3, and the critic's slope along the way is 1."""
    real, fake = 0.05 * torch.randn(4000, 2), torch.tensor([3.0, 0.0]) + 0.05 * torch.randn(4000, 2)
    model = wgan_gp(nn.Linear(2, 2), mlp_discriminator(2, 32), 2)
    model.sample = lambda n, *conditions, generator=None: fake[torch.randint(4000, (n,))]
    critic = model.players(lr=3e-3, betas=BETAS)[0]
    fit(critic, lambda step: real[torch.randint(4000, (128,))], 400)
    with torch.no_grad():
        distance = -adv.wasserstein_critic_loss(model.discriminator(real), model.discriminator(fake)).item()
    assert distance == pytest.approx(3.0, rel=0.12)  # the paper's penalty lets slopes exceed 1 by gap / 2λ
    between = adv.between(real[:1000], fake[:1000])
    norms = adv.gradient_norms(model.discriminator, between)
    assert norms.mean().item() == pytest.approx(1, abs=0.2) and norms.max() < 1.6


@pytest.mark.parametrize("penalty", [adv.two_sided, adv.one_sided], ids=["two-sided", "one-sided"])
def test_wgan_gp_learns_the_ring(penalty):
    model = wgan_gp(*pair(), 1.0, penalty)
    modes, quality = trained_on_ring(model, model.players(lr=2e-3, betas=BETAS, repeats=3), 250)
    assert CRITIC_UPDATES == 5
    assert modes >= 7 and quality > 0.15


# --- spectral normalization -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 4, 4), (1, 12)])
def test_power_iteration_finds_the_largest_singular_value(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    norm = SpectralNorm(weight, start=300)
    sigma = torch.linalg.svdvals(weight.flatten(1))[0]
    torch.testing.assert_close(norm(weight), weight / sigma, rtol=1e-6, atol=1e-8)
    assert torch.linalg.svdvals(norm(weight).flatten(1))[0].item() == pytest.approx(1, abs=1e-6)


def test_equals_torchs_own():
    """Values, the direction and the gradient. (Torch iterates u before v, half a step off, so both converge first.)"""
    mine, theirs = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
    theirs.load_state_dict(mine.state_dict())
    spectrally_normalized(mine)
    torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=1)
    ours, reference = mine.parametrizations.weight[0], theirs.parametrizations.weight[0]
    x = torch.randn(2, 3, 5, 5)
    for layer in (mine, theirs):
        for _ in range(300):
            layer(x)
        layer(x).square().sum().backward()
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert (ours.u @ reference._u).abs().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(
        mine.parametrizations.weight.original.grad,
        theirs.parametrizations.weight.original.grad,
        rtol=1e-3,
        atol=1e-3,
    )


def test_one_iteration_a_pass_follows_a_moving_weight():
    torch.manual_seed(0)
    weight = torch.randn(20, 10)
    norm = SpectralNorm(weight)
    for _ in range(300):
        weight = weight + 0.01 * torch.randn(20, 10)
        normalized = norm(weight)
    assert torch.linalg.svdvals(normalized)[0].item() == pytest.approx(1, abs=0.03)


def test_data_and_fakes_may_pass_in_one_graph():
    """The second pass moves u and v in place while the first one's graph still needs them."""
    weight = torch.randn(5, 4, requires_grad=True)
    norm = SpectralNorm(weight)
    norm.v.normal_()  # far from convergence: the two passes differ
    first = norm(weight)
    want = torch.autograd.grad(first.sum(), weight, retain_graph=True)[0]
    norm(weight)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), weight)[0], want)


def test_evaluation_leaves_the_singular_vectors_alone():
    norm = SpectralNorm(torch.randn(5, 4), start=0)
    weight = torch.randn(5, 4)
    before = norm.u.clone()
    norm.eval()
    assert torch.equal(norm(weight), norm(weight)) and torch.equal(norm.u, before)
    norm.train()(weight)
    assert not torch.equal(norm.u, before)


def test_a_normalized_network_is_1_lipschitz_everywhere():
    torch.manual_seed(0)
    critic = mlp_discriminator(2, 32)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(5)
    assert steepest(critic) > 3  # it was not before
    critic = spectrally_normalized(critic)
    for _ in range(200):
        critic(torch.zeros(1, 2))  # the power iteration converges
    critic.eval()
    assert steepest(critic) <= 1 + 1e-3
    x, y = torch.randn(2000, 2) * 5, torch.randn(2000, 2) * 5
    assert ((critic(x) - critic(y)).abs() <= (1 + 1e-3) * (x - y).norm(dim=1)).all()


def test_all_linear_and_convolutional_layers_are_normalized():
    critic = spectrally_normalized(conv_discriminator(1, 28, 4, None))
    layers = [m for m in critic.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) == 3
    for layer in layers:
        sigma = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
        assert sigma.item() == pytest.approx(1, abs=0.1)
    twin = copy.deepcopy(critic)
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(twin.eval()(x), critic.eval()(x))


def test_sngan_learns_the_ring_and_stays_lipschitz():
    torch.manual_seed(0)
    generator, critic, latent = pair()
    model = sngan(generator, critic, latent)
    assert model.game is HINGE and WASSERSTEIN.generator is HINGE.generator
    modes, quality = trained_on_ring(model, model.players(lr=2e-3, betas=(0.0, 0.9), repeats=2), 300)
    assert steepest(model.discriminator.eval()) <= 1.05
    assert modes >= 5 and quality > 0.12
