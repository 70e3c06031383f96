"""The two "LSGAN"s side by side, EBGAN, and DiffAugment."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.core import fit, minibatches, stream
from course_lib.gans.diffaugment import brightness, contrast, cutout, diffaugment, translation
from course_lib.gans.ebgan import EBGAN, Energy, conv_ebgan, mlp_ebgan
from course_lib.gans.gan import GAN
from course_lib.gans.least_squares_gan import least_squares_gan
from course_lib.gans.loss_sensitive import LossSensitiveGAN, loss_sensitive_critic_loss, mean_l1
from course_lib.gans.networks import mlp_discriminator, mlp_generator
from course_lib.gans.r1 import r1
from tests.gans.judges import RING, near_modes, trained_on_ring

POLICIES = (brightness, contrast, translation, cutout)


def pair(hidden: int = 64) -> tuple[nn.Module, nn.Module, int]:
    return mlp_generator(2, 2, hidden), mlp_discriminator(2, hidden), 2


# --- least squares and loss sensitive -------------------------------------------------------------------------------


def test_the_two_lsgans_are_different_and_each_is_its_papers():
    """One batch, both losses by hand. The least-squares one has no margin; the loss-sensitive one has no targets."""
    generator, critic, latent = pair(8)
    x = torch.randn(5, 2)
    torch.manual_seed(1)
    fake = generator(torch.randn(5, 2))
    d_real, d_fake = critic(x), critic(fake)
    squares = least_squares_gan(generator, critic, latent)
    sensitive = LossSensitiveGAN(generator, critic, latent, 4.0)
    torch.manual_seed(1)
    got_squares = squares.discriminator_loss(x)
    torch.manual_seed(1)
    got_sensitive = sensitive.discriminator_loss(x)
    torch.testing.assert_close(got_squares, 0.5 * (d_real - 1).square().mean() + 0.5 * d_fake.square().mean())
    margin = (x - fake).abs().mean(1)
    want = torch.stack(
        [d_real[i] + 4 * max(margin[i] + d_real[i] - d_fake[i], torch.zeros(())) for i in range(5)]
    ).mean()
    torch.testing.assert_close(got_sensitive, want)
    assert (got_squares - got_sensitive).abs() > 0.1
    torch.manual_seed(1)
    torch.testing.assert_close(squares.generator_loss(x), 0.5 * (d_fake - 1).square().mean())
    torch.manual_seed(1)
    torch.testing.assert_close(sensitive.generator_loss(x), d_fake.mean())


def test_least_squares_pulls_back_what_is_too_real():
    """The paper's figure 1: at D = 3 the cross-entropy hardly moves a fake, least squares moves it back."""
    logits = torch.tensor([3.0, 30.0], requires_grad=True)
    game = least_squares_gan(*pair(4)).game
    (gradient,) = torch.autograd.grad(game.generator(logits), logits)
    assert gradient.tolist() == pytest.approx([(3 - 1) / 2, (30 - 1) / 2])


def test_the_loss_sensitive_margin_shrinks_with_the_distance():
    """Equal losses on data and fake: a far fake costs its distance, a fake on top of the data nothing."""
    x, zero = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.zeros(2)
    margin = mean_l1(x, torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
    assert margin.tolist() == [0, 2]
    assert loss_sensitive_critic_loss(zero, zero, margin, 5.0).item() == pytest.approx(5 * (0 + 2) / 2)
    # a fake whose loss is already higher by the margin costs nothing more
    assert loss_sensitive_critic_loss(zero, margin, margin, 5.0) == 0
    assert mean_l1(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [1, 1]  # not 16


def test_the_least_squares_gan_learns_the_ring():
    torch.manual_seed(0)
    model = least_squares_gan(*pair())
    model.regularizers = (r1(0.1),)
    modes, quality = trained_on_ring(model, model.players(lr=3e-3, betas=(0.0, 0.99)), 300)
    assert modes >= 6 and quality > 0.2


def test_the_loss_sensitive_gan_spreads_over_the_ring():
    torch.manual_seed(0)
    model = LossSensitiveGAN(*pair(), regularizers=[r1(0.1)])
    before = model.sample(2000)
    players = model.players(lr=5e-4, betas=(0.0, 0.99), discriminator_lr=2e-3)
    modes, _ = trained_on_ring(model, players, 400)
    assert near_modes(before)[0] <= 1
    assert modes >= 3


# --- EBGAN ----------------------------------------------------------------------------------------------------------


def test_energy_is_the_mean_squared_error_and_the_codes_are_the_encoders():
    energy, x = Energy(nn.Linear(3, 2), nn.Linear(2, 3)), torch.randn(4, 3)
    value, codes = energy(x)
    torch.testing.assert_close(codes, energy.encoder(x))
    torch.testing.assert_close(value, (energy.decoder(codes) - x).square().mean(1))


def test_ebgan_losses_are_the_papers():
    torch.manual_seed(0)
    model, x = mlp_ebgan(2, 2, 16, margin=0.4, weight=0.3), torch.randn(6, 2)
    torch.manual_seed(1)
    fake = model.generator(torch.randn(6, 2))
    real_energy, (fake_energy, codes) = model.energy(x), model.discriminator(fake)
    torch.manual_seed(1)
    torch.testing.assert_close(
        model.discriminator_loss(x), real_energy.mean() + (0.4 - fake_energy).clamp(min=0).mean()
    )
    unit = codes / codes.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).square()
    pull = (cosines.sum() - cosines.trace()) / 30
    torch.manual_seed(1)
    torch.testing.assert_close(model.generator_loss(x), fake_energy.mean() + 0.3 * pull)
    assert pull > 0
    with pytest.raises(ValueError, match="margin"):
        EBGAN(nn.Identity(), nn.Identity(), 2, margin=0.0)


def test_pretraining_lowers_the_energy_of_data_and_touches_no_generator():
    """What the slides praise: the autoencoder knows the data before the game begins."""
    torch.manual_seed(0)
    model = mlp_ebgan(2, 2, 64, code=1)
    before, generator = model.energy(RING.sample(1000)).mean(), [p.clone() for p in model.generator.parameters()]
    fit(model.pretraining(3e-3), stream(RING.sample, 128), 300)
    with torch.no_grad():
        after = model.energy(RING.sample(1000)).mean()
        elsewhere = model.energy(0.2 * torch.randn(1000, 2)).mean()  # the middle of the ring
    assert after < 0.2 * before and elsewhere > 3 * after
    assert all(torch.equal(a, b) for a, b in zip(generator, model.generator.parameters(), strict=True))


def test_ebgan_learns_the_ring_after_pretraining():
    torch.manual_seed(0)
    model = mlp_ebgan(2, 2, 64)
    before = model.sample(2000)
    fit(model.pretraining(3e-3), stream(RING.sample, 128), 100)
    modes, quality = trained_on_ring(model, model.players(lr=1e-3), 300)
    assert near_modes(before)[0] <= 2
    assert modes >= 5 and quality > 0.2


def test_conv_ebgan_shapes():
    model = conv_ebgan(1, 28, 8, 4, 6)
    energy, codes = model.discriminator(model.sample(3))
    assert energy.shape == (3,) and codes.shape == (3, 6) and (energy >= 0).all()


# --- DiffAugment ----------------------------------------------------------------------------------------------------


def pictures(n: int = 64, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 2, size, size) * 1.8 - 0.9


def test_no_policy_is_the_identity():
    x = pictures(2)
    assert diffaugment()(x) is x


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_keep_the_shape_differ_between_pictures_and_take_a_generator(policy):
    x = pictures(1).expand(64, -1, -1, -1)
    a, b = (policy(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert a.shape == x.shape and a.dtype == x.dtype and torch.equal(a, b)
    assert len({tuple(picture.flatten().tolist()) for picture in a}) > 10
    assert policy(x.double(), None).dtype == torch.float64


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_let_the_gradient_through(policy):
    """Each is affine in the picture, so its Jacobian gives its output back: J x + T(0) = T(x)."""
    x = pictures(3, 8).double().requires_grad_()
    at = lambda x: policy(x, torch.Generator().manual_seed(0))  # noqa: E731
    weight = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((at(x) * weight).sum(), x)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close((gradient * x).sum() + (at(torch.zeros_like(x)) * weight).sum(), (at(x) * weight).sum())


def test_brightness_and_contrast_by_their_definitions():
    x = pictures()
    added = brightness(x) - x
    assert added.flatten(1).std(1).max() < 1e-6 and added.min() >= -0.5 and added.max() <= 0.5 and added.std() > 0.2
    y = contrast(x)
    torch.testing.assert_close(y.mean((1, 2, 3)), x.mean((1, 2, 3)))
    scale = y.flatten(1).std(1) / x.flatten(1).std(1)
    assert scale.min() >= 0.5 and scale.max() <= 1.5 and scale.std() > 0.2


def test_translation_shifts_whole_pictures_and_fills_with_zero():
    x = pictures(200)
    y = translation(x, torch.Generator().manual_seed(0))
    padded = F.pad(x, (2, 2, 2, 2))  # an eighth of 16
    shifts = set()
    for before, after in zip(padded, y, strict=True):
        windows = {(i, j): before[:, i : i + 16, j : j + 16] for i in range(5) for j in range(5)}
        matches = [shift for shift, window in windows.items() if torch.equal(window, after)]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) == 25
    assert torch.equal(translation(x, ratio=0.0), x)


def test_cutout_sets_one_square_to_zero():
    x = pictures(200) + 2  # nothing is zero before
    y = cutout(x, torch.Generator().manual_seed(0))
    hole = y == 0
    assert torch.equal(y[~hole], x[~hole])
    assert (hole[:, :1] == hole).all()  # the same in every channel
    areas = hole[:, 0].sum((1, 2))
    assert areas.max() == 64 and areas.min() >= 16  # 8 × 8, a quarter of it inside at least
    for one in hole[:, 0]:
        rows, columns = one.any(1), one.any(0)
        assert torch.equal(one, rows[:, None] & columns[None, :])
        assert rows.diff().sum() <= 2 and columns.diff().sum() <= 2  # in one piece


def test_policies_are_applied_in_turn():
    x = pictures(4)
    got = diffaugment(brightness, cutout, generator=torch.Generator().manual_seed(5))(x)
    generator = torch.Generator().manual_seed(5)
    torch.testing.assert_close(got, cutout(brightness(x, generator), generator))


def test_the_generators_gradient_passes_through_the_augmentation():
    generator = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    model = GAN(generator, discriminator, 2, augment=diffaugment(*POLICIES))
    gradients = torch.autograd.grad(model.generator_loss(torch.zeros(8, 1, 8, 8)), list(generator.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_augmenting_both_sides_leaves_the_target_where_it_was():
    """Pictures of one bright dot in the corner region: trained with heavy translation, fakes are not translated."""
    x = torch.full((64, 1, 8, 8), -0.8)
    x[:, :, 2:4, 2:4] = 0.8
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    discriminator = nn.Sequential(nn.Flatten(), mlp_discriminator(64, 64))
    model = GAN(generator, discriminator, 4, regularizers=[r1(0.1)], augment=lambda x: translation(x, ratio=0.25))
    fit(model.players(lr=2e-3, betas=(0.0, 0.99)), minibatches(x, 64), 200)
    with torch.no_grad():
        error = (model.sample(64) - x).abs().mean()
    augmented = (translation(x, ratio=0.25) - x).abs().mean()
    assert error < 0.5 * augmented
