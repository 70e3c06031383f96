"""The composition that all papers use: detach, ownership, repeats, conditions, lazy terms."""

import pytest
import torch
from torch import nn

from course_lib.core import EMA, FitOptions, Player, fit, minibatches, stream
from course_lib.gans.acgan import conv_acgan
from course_lib.gans.cgan import cgan
from course_lib.gans.gan import GAN, MINIMAX, NON_SATURATING, mlp_gan
from course_lib.gans.infogan import conv_infogan
from course_lib.gans.networks import (
    Heads,
    Labelled,
    conv_discriminator,
    conv_generator,
    conv_trunk,
    sides,
    trunk_features,
)
from course_lib.gans.players import Game, duel, lazily, noise
from course_lib.gans.r1 import r1
from course_lib.maths import adversarial as adv
from tests.gans.judges import RING, near_modes, trained_on_ring


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_losses_are_the_papers():
    model, x = mlp_gan(2, 2, 8, NON_SATURATING), torch.randn(6, 2)

    def expected(loss):
        torch.manual_seed(5)
        return loss(model.discriminator(model.generator(torch.randn(6, 2))))

    torch.manual_seed(5)
    want = expected(lambda fake: adv.cross_entropy_discriminator_loss(model.discriminator(x), fake))
    torch.manual_seed(5)
    torch.testing.assert_close(model.discriminator_loss(x), want)
    for game, loss in ((NON_SATURATING, adv.non_saturating_generator_loss), (MINIMAX, adv.saturating_generator_loss)):
        model.game = game
        torch.manual_seed(5)
        torch.testing.assert_close(model.generator_loss(x), expected(loss))


def test_in_fit_each_player_moves_its_own_network_only():
    model = mlp_gan(2, 2, 8)
    discriminator, generator = model.players(lr=1e-2)
    for player, mine, other in (
        (discriminator, model.discriminator, model.generator),
        (generator, model.generator, model.discriminator),
    ):
        before = weights(mine), weights(other)
        fit(player, stream(RING.sample, 16), 2)
        assert not torch.equal(weights(mine), before[0]) and torch.equal(weights(other), before[1])
    assert all(p.grad is None for p in model.parameters())


def test_duel_settings():
    model = mlp_gan(2, 2, 8)
    d, g = duel(model, 1e-3, (0.0, 0.9), 5, 4e-3)
    assert (d.lr, g.lr, d.repeats, g.repeats, d.betas, g.betas) == (4e-3, 1e-3, 5, 1, (0.0, 0.9), (0.0, 0.9))
    assert [p.lr for p in duel(model, 3e-4)] == [3e-4, 3e-4]
    assert [p.lr for p in duel(model, 3e-4, discriminator_lr=0.0)] == [0.0, 3e-4]  # zero is not "none given"


def test_the_discriminator_moves_five_times_a_step_on_fresh_batches_and_fakes():
    seen = []
    game = Game(
        lambda real, fake: (seen.append((real.detach(), fake.detach())), real.mean() + fake.mean())[1], torch.mean
    )
    model = mlp_gan(2, 2, 8, game)
    fit(model.players(lr=0.0, repeats=5), stream(RING.sample, 4), 2)
    assert len(seen) == 10
    for kind in (0, 1):
        assert len({tuple(pair[kind].tolist()) for pair in seen}) == 10


def test_sampling_takes_a_generator():
    model = mlp_gan(2, 3, 8)
    a, b = (model.sample(5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, model.sample(5))
    z = noise(model.double(), 4, 3, torch.Generator().manual_seed(1))
    assert z.dtype == torch.float64 and z.shape == (4, 3)


def test_conditions_reach_both_networks():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.seen = []

        def forward(self, x, y):
            self.seen.append(y)
            return self.scale * x

    model = GAN(Both(), nn.Sequential(), 2)
    model.discriminator = Both()
    x, y = torch.randn(3, 2), torch.tensor([4, 5, 6])
    model.discriminator_loss((x, y))
    model.generator_loss((x, y))
    assert [len(net.seen) for net in (model.generator, model.discriminator)] == [2, 3]
    assert all(torch.equal(seen, y) for net in (model.generator, model.discriminator) for seen in net.seen)


def test_augmentation_meets_data_and_fakes_in_both_losses():
    seen = []

    def augment(x):
        seen.append(x)
        return x + 100

    model = GAN(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), 2, augment=augment)
    inputs = []
    model.discriminator.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    x = torch.randn(4, 2)
    model.discriminator_loss(x)
    model.generator_loss(x)
    assert len(seen) == 3 and torch.equal(seen[0], x)
    assert len(inputs) == 3 and all(i.min() > 50 for i in inputs)


def test_regularizers_see_the_critic_data_and_fakes():
    model, x = mlp_gan(2, 2, 8), torch.randn(5, 2)
    plain = Game(lambda real, fake: real.sum() * 0, torch.mean)
    model.game = plain
    model.regularizers = (r1(3.0),)
    want = 3.0 * adv.r1_penalty(model.discriminator, x)
    torch.testing.assert_close(model.discriminator_loss(x), want)
    assert want > 0


def test_a_lazy_regularizer_is_the_same_on_average():
    calls = []

    def regularizer(critic, real, fake, step):
        calls.append(step)
        return torch.tensor(2.0)

    lazy = lazily(regularizer, 4)
    values = [lazy(torch.sum, torch.zeros(1), torch.zeros(1), step).item() for step in range(8)]
    assert values == [8, 0, 0, 0, 8, 0, 0, 0] and calls == [0, 4]
    assert sum(values) / 8 == 2.0
    with pytest.raises(ValueError, match="at least 1"):
        lazily(regularizer, 0)


def test_r1_is_gamma_over_two_times_the_mean_squared_norm():
    w = torch.tensor([3.0, 4.0])
    x = torch.randn(6, 2)
    assert r1(0.2)(lambda x: x @ w, x, torch.zeros(6, 2), 0).item() == pytest.approx(0.1 * 25)


# --- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "want"), [(28, [7, 14, 28]), (32, [4, 8, 16, 32]), (64, [4, 8, 16, 32, 64]), (8, [4, 8])]
)
def test_pyramids(size, want):
    assert sides(size) == want
    net, critic = conv_generator(5, 3, size, 4), conv_discriminator(3, size, 4)
    x = net(torch.randn(2, 5))
    assert x.shape == (2, 3, size, size) and x.abs().max() <= 1
    assert critic(x).shape == (2,)


@pytest.mark.parametrize("size", [27, 18, 4])
def test_a_side_without_a_pyramid_is_refused(size):
    with pytest.raises(ValueError, match="side"):
        sides(size)


def test_weights_start_as_dcgan_says():
    torch.manual_seed(0)
    net = conv_generator(32, 1, 28, 32)
    for layer in net:
        if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert layer.bias is None or not layer.bias.any()
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and layer.weight.std() < 0.04


def test_without_normalization_examples_do_not_see_each_other():
    """… which penalties on the input gradient need."""
    x, other = torch.randn(4, 1, 28, 28), torch.randn(4, 1, 28, 28)
    together = torch.cat([x[:1], other])
    free, normed = conv_discriminator(1, 28, 4, None), conv_discriminator(1, 28, 4)
    torch.testing.assert_close(free(together)[0], free(x)[0])
    assert (normed(together)[0] - normed(x)[0]).abs() > 1e-5


def test_labels_are_planes_beside_the_channels():
    told, y = Labelled(nn.Identity(), 3), torch.tensor([2, 0])
    planes = told(torch.full((2, 1, 4, 4), 7.0), y)
    assert planes.shape == (2, 4, 4, 4)
    assert planes[:, :, 1, 3].tolist() == planes[:, :, 0, 0].tolist() == [[7, 0, 0, 1], [7, 1, 0, 0]]
    assert told(torch.full((2, 5), 7.0), y).tolist() == [[7] * 5 + [0, 0, 1], [7] * 5 + [1, 0, 0]]


def test_heads_share_the_trunk():
    heads = Heads(conv_trunk(1, 8, 4), 64, (1, 5))
    calls = []
    heads.trunk.register_forward_hook(lambda *args: calls.append(1))
    logit, classes = heads(torch.randn(3, 1, 8, 8))
    assert logit.shape == (3,) and classes.shape == (3, 5) and len(calls) == 1


# --- training -------------------------------------------------------------------------------------------------------


def test_what_the_judge_measures():
    """The truth covers all eight modes; one mode, noise over the square, and an untrained generator do not pass."""
    assert near_modes(RING.sample(2000))[0] == 8 and near_modes(RING.sample(2000))[1] > 0.97
    assert near_modes(RING.means[:1] + 0.1 * torch.randn(2000, 2))[0] == 1
    assert near_modes(torch.rand(2000, 2) * 5 - 2.5)[1] < 0.15


def test_a_gan_resumes_where_it_stopped(tmp_path):
    """Both players, their optimizers, the average and the noise of the fakes."""

    def run(steps, path):
        torch.manual_seed(0)
        model = mlp_gan(2, 2, 8, regularizers=[lazily(r1(0.1), 2)])
        ema = EMA(model.generator, 0.9)
        fit(model.players(repeats=2), stream(RING.sample, 8), steps, ema=ema, options=FitOptions(checkpoint=path))
        return torch.cat([weights(model), weights(ema.module)])

    whole = run(6, tmp_path / "a.pt")
    run(3, tmp_path / "b.pt")
    assert torch.equal(run(6, tmp_path / "b.pt"), whole)


def test_learns_the_ring():
    """Short real training: all modes, against the untrained generator and a Gaussian fitted to the ring."""
    model = mlp_gan(2, 2, 64, regularizers=[r1(0.1)])
    untrained = near_modes(model.sample(2000))
    gaussian = near_modes(RING.sample(2000).std() * torch.randn(2000, 2))
    modes, quality = trained_on_ring(model, model.players(lr=3e-3, betas=(0.0, 0.99)), 350)
    assert untrained[0] <= 2 and gaussian[1] < 0.2
    assert modes == 8 and quality > 0.35  # 0.47 … 0.58 here


def test_the_saturating_loss_learns_less_from_a_sharp_discriminator():
    """D is first trained against a far-off generator; then the generator's gradient is orders of magnitude smaller
    under the minimax loss than under the non-saturating one."""
    model = mlp_gan(2, 2, 32)
    with torch.no_grad():
        model.generator[-1].bias += 6.0
    discriminator: Player = model.players(lr=5e-3)[0]
    fit(discriminator, minibatches(RING.sample(2000), 200), 150)

    def gradient_norm(game):
        model.game = game
        torch.manual_seed(0)
        gradients = torch.autograd.grad(model.generator_loss(torch.zeros(500, 2)), list(model.generator.parameters()))
        return torch.nn.utils.get_total_norm(gradients)

    assert gradient_norm(NON_SATURATING) > 50 * gradient_norm(MINIMAX) > 0


@pytest.mark.parametrize("hidden", [0, 16])
def test_only_a_hidden_layer_couples_distant_patches(hidden):
    """Without it the logit is a sum over 10×10 patches: two changes that share none add up."""
    torch.manual_seed(0)
    critic = conv_discriminator(1, 28, 8, None, hidden).double()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64)
    a, b = torch.zeros_like(x), torch.zeros_like(x)
    a[..., 4:8, 4:8], b[..., 20:24, 20:24] = 1, -1
    alone_a, alone_b, both = (critic(x + change) - critic(x) for change in (a, b, a + b))
    coupling = ((both - alone_a - alone_b) / alone_a).abs().item()
    assert coupling > 1e-4 if hidden else coupling < 1e-9


def test_a_hidden_layer_is_the_trunks_last():
    x, y = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    assert conv_trunk(1, 8, 4, None, 7)(x).shape == (2, trunk_features(8, 4, 7)) == (2, 7)
    assert cgan(1, 8, 3, 2, 4, None, 7).discriminator(x, y).shape == (2,)
    assert [o.shape[1:].numel() for o in conv_acgan(1, 8, 3, 2, 4, None, 7).discriminator(x)] == [1, 3]
    assert [o.shape[1:].numel() for o in conv_infogan(1, 8, 2, 3, 2, 4, None, 7).discriminator(x)] == [1, 3, 4]
