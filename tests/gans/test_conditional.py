"""DCGAN's walks, conditional GAN, AC-GAN, InfoGAN, MSGAN."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.core import fit, minibatches, stream
from course_lib.gans.acgan import ACGAN, conv_acgan
from course_lib.gans.cgan import cgan, mlp_cgan
from course_lib.gans.dcgan import dcgan, slerp
from course_lib.gans.gan import GAN, mlp_gan
from course_lib.gans.infogan import LEAST_LOG_VAR, Code, InfoGAN, conv_infogan
from course_lib.gans.msgan import MSGAN
from course_lib.gans.networks import Heads, Labelled, leaky, mlp_discriminator, mlp_generator
from course_lib.gans.r1 import r1
from course_lib.maths import adversarial as adv
from course_lib.nn.mlp import mlp
from tests.gans.judges import RING


def labelled(n, generator):
    return RING.sample_labelled(n, generator)


def labelled_by_half(n, generator):
    x, mode = RING.sample_labelled(n, generator)
    return x, mode // 4


def trunk(dims: int = 2, hidden: int = 64) -> nn.Sequential:
    return nn.Sequential(mlp([dims, hidden, hidden], leaky), leaky())


def accuracy(x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of points whose nearest mode is the one asked for."""
    return (torch.cdist(x, RING.means).argmin(1) == y).float().mean().item()


# --- DCGAN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_dcgan_shapes(channels, size):
    model = dcgan(channels, size, 8, 4)
    x = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (3, channels, size, size) and x.abs().max() <= 1
    assert model.discriminator(x).shape == (3,)


def test_slerp_walks_on_the_sphere():
    start, end = torch.randn(5, 64), torch.randn(5, 64)
    torch.testing.assert_close(slerp(start, end, 0.0), start, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slerp(start, end, 1.0), end, rtol=1e-4, atol=1e-4)
    middle = slerp(start, end, 0.5)
    torch.testing.assert_close(middle.norm(dim=1), (start.norm(dim=1) + end.norm(dim=1)) / 2)
    assert torch.lerp(start, end, 0.5).norm(dim=1).max() < middle.norm(dim=1).min()  # the straight line cuts inside
    cosine = torch.nn.functional.cosine_similarity
    angle, half = cosine(start, end).acos(), cosine(start, middle).acos()
    torch.testing.assert_close(half, angle / 2)
    torch.testing.assert_close(slerp(start, 2 * start, 0.5), 1.5 * start)  # parallel codes


# --- conditional GAN ------------------------------------------------------------------------------------------------


def test_both_networks_hear_the_label():
    model = cgan(1, 28, 10, 8, 4, None)
    z, y = torch.randn(1, 8).expand(10, 8), torch.arange(10)
    model.generator.eval()
    x = model.generator(z, y)
    assert torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(1).min() > 0
    logits = model.discriminator(x[:1].expand(10, 1, 28, 28), y)
    assert logits.unique().numel() == 10


def test_cgan_learns_which_mode_is_asked_for_and_an_unconditional_discriminator_does_not_teach_it():
    """The slide's question "why not just use D as in the standard GAN?"."""

    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp_discriminator(2, 64)

        def forward(self, x, y):
            return self.net(x)

    y = torch.arange(8).repeat_interleave(100)
    scores = []
    for deaf in (False, True):
        torch.manual_seed(0)
        model = mlp_cgan(2, 8, 2, 64)
        if deaf:
            model.discriminator = Deaf()
        model.regularizers = (r1(0.1),)
        fit(model.players(lr=3e-3, betas=(0.0, 0.99)), stream(labelled, 128), 200)
        with torch.no_grad():
            scores.append(accuracy(model.sample(len(y), y), y))
    assert scores[0] > 0.9
    assert scores[1] < 0.5


# --- AC-GAN ---------------------------------------------------------------------------------------------------------


def test_acgan_losses_are_the_papers():
    model = conv_acgan(1, 8, 4, 3, 4)
    x, y = torch.randn(6, 1, 8, 8).clamp(-1, 1), torch.tensor([0, 1, 2, 3, 0, 1])

    def fakes():
        torch.manual_seed(2)
        return model.sample(y)

    real, fake = model.discriminator(x), model.discriminator(fakes())
    game = adv.cross_entropy_discriminator_loss(real[0], fake[0])
    torch.manual_seed(2)
    got = model.discriminator_loss((x, y))
    torch.testing.assert_close(got, game + F.cross_entropy(real[1], y) + F.cross_entropy(fake[1], y))
    torch.manual_seed(2)
    want = adv.non_saturating_generator_loss(fake[0]) + F.cross_entropy(fake[1], y)
    torch.testing.assert_close(model.generator_loss((x, y)), want)
    # the class counts in both losses
    model.weight = 3.0
    torch.manual_seed(2)
    torch.testing.assert_close(
        model.discriminator_loss((x, y)), game + 3 * (F.cross_entropy(real[1], y) + F.cross_entropy(fake[1], y))
    )


def test_acgan_makes_the_class_that_is_asked_for():
    torch.manual_seed(0)
    generator = Labelled(mlp_generator(2 + 8, 2, 64), 8)
    model = ACGAN(generator, Heads(trunk(), 64, (1, 8)), 2, regularizers=[r1(0.1)])
    fit(model.players(lr=3e-3, betas=(0.0, 0.99)), stream(labelled, 128), 200)
    y = torch.arange(8).repeat_interleave(100)
    with torch.no_grad():
        x = model.sample(y)
        named = model.discriminator(RING.means)[1].argmax(1)
    assert accuracy(x, y) > 0.9
    assert named.tolist() == list(range(8))


# --- InfoGAN --------------------------------------------------------------------------------------------------------


def small_infogan(categories: int = 4, continuous: int = 1) -> InfoGAN:
    heads = Heads(trunk(), 64, (1, categories, 2 * continuous))
    return InfoGAN(mlp_generator(2 + categories + continuous, 2, 64), heads, 2, categories, continuous)


def test_information_bound_is_below_the_entropy_for_any_q():
    model = small_infogan()
    for scale in (1.0, 5.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
            bounds = model.information(4000)
        for bound, entropy in zip(bounds, model.code_entropy, strict=True):
            assert bound.item() <= entropy
    assert model.code_entropy == (math.log(4), math.log(2))


def test_information_bound_by_hand():
    """A generator that shows the code and a Q that reads it: the categorical bound is log K. If Q says 1/K, it is 0."""
    model = small_infogan(4, 1)
    model.generator = nn.Identity()  # x = (z, one-hot, continuous)
    sure = torch.zeros(1)

    def shown(x):
        mean, log_var = x[:, -1:], torch.full_like(x[:, -1:], -2.0)
        return x.sum(1), 100 * x[:, 2:6], torch.cat([mean, log_var], 1)

    def hidden(x):
        return x.sum(1), torch.zeros(len(x), 4), torch.zeros(len(x), 2)

    class Read(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.how, self.p = how, nn.Parameter(sure)

        def forward(self, x):
            return self.how(x)

    model.discriminator = Read(shown)
    category, continuous = model.information(500)
    assert category.item() == pytest.approx(math.log(4), abs=1e-4)
    log_var = LEAST_LOG_VAR + math.log1p(math.exp(-2.0 - LEAST_LOG_VAR))
    assert continuous.item() == pytest.approx(math.log(2) - 0.5 * (log_var + math.log(2 * math.pi)), abs=1e-3)
    model.discriminator = Read(hidden)
    assert model.information(500)[0].item() == pytest.approx(0, abs=1e-5)


def test_codes_come_from_their_prior():
    code = small_infogan(4, 2).draw_code(4000, torch.Generator().manual_seed(0))
    assert isinstance(code, Code) and code.continuous.shape == (4000, 2)
    assert (code.category.bincount() / 4000 - 0.25).abs().max() < 0.03
    assert code.continuous.abs().max() <= 1 and code.continuous.std().item() == pytest.approx(3**-0.5, abs=0.02)


def test_both_players_are_paid_for_information():
    torch.manual_seed(0)
    model, x = small_infogan(), torch.randn(8, 2)
    values = {}
    for weight in (0.0, 1.0):
        model.weights = (weight, 0.0)
        for name, loss in (("d", model.discriminator_loss), ("g", model.generator_loss)):
            torch.manual_seed(3)
            values[name, weight] = loss(x).item()
    assert values["d", 1.0] > values["d", 0.0] + 0.1 and values["g", 1.0] > values["g", 0.0] + 0.1  # −log Q > 0


def test_infogan_regularizes_the_first_head_on_data():
    torch.manual_seed(0)
    model, x, seen = small_infogan(), torch.randn(8, 2), []

    def regularizer(critic, real, fake, step):
        seen.append((critic(real), real, fake.shape, step))
        return real.new_tensor(7.0)

    values = []
    for regularizers in ((), (regularizer,)):
        model.regularizers = regularizers
        torch.manual_seed(3)
        values.append(model.discriminator_loss(x, 5).item())
    assert values[1] == pytest.approx(values[0] + 7, abs=1e-5)
    ((logit, real, fake_shape, step),) = seen
    torch.testing.assert_close(logit, model.discriminator(x)[0])
    assert torch.equal(real, x) and fake_shape == (8, 2) and step == 5


def test_infogan_discovers_a_code_that_a_plain_gan_ignores():
    information = []
    for weights in ((1.0, 0.1), (0.0, 0.0)):
        torch.manual_seed(0)
        model = small_infogan(8, 1)
        model.weights = weights
        fit(model.players(lr=2e-3), stream(RING.sample, 128), 250)
        code = model.draw_code(2000)
        with torch.no_grad():
            x = model.decode(torch.randn(2000, 2), code)
        # an independent judge: mutual information of code and nearest mode, from counts
        joint = torch.zeros(8, 8).index_put_(
            (code.category, torch.cdist(x, RING.means).argmin(1)), torch.ones(2000), accumulate=True
        )
        joint = joint / 2000
        independent = joint.sum(1, keepdim=True) * joint.sum(0)
        information.append(torch.xlogy(joint, joint / independent.clamp_min(1e-12)).sum().item())
    assert information[0] > 1.0 and information[0] > 2 * information[1]  # of log 8 = 2.08 nats


def test_conv_infogan_has_the_papers_codes():
    model = conv_infogan(1, 28, width=4)
    logit, category, continuous = model.discriminator(model.sample(2))
    assert (logit.shape, category.shape, continuous.shape) == ((2,), (2, 10), (2, 4))


# --- MSGAN ----------------------------------------------------------------------------------------------------------


def test_msgan_adds_its_term_to_the_generator_only():
    base = mlp_gan(2, 2, 16)
    model, x = MSGAN(base, 0.5), torch.randn(6, 2)
    for loss, plain, extra in (
        (model.discriminator_loss, base.discriminator_loss, 0.0),
        (model.generator_loss, base.generator_loss, 0.5),
    ):
        torch.manual_seed(4)
        want = plain(x) + (extra * adv.mode_seeking_loss(model.ratio(x)) if extra else 0)
        torch.manual_seed(4)
        torch.testing.assert_close(loss(x), want)


def test_mode_seeking_pairs_share_their_condition():
    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.p, self.seen = nn.Parameter(torch.ones(1)), []

        def forward(self, z, y):
            self.seen.append((z, y))
            return z * self.p

    model = MSGAN(GAN(Spy(), nn.Identity(), 2))
    y = torch.tensor([3, 1, 2])
    torch.testing.assert_close(model.ratio((torch.zeros(3, 2), y)), torch.ones(3))  # x = z
    (z1, y1), (z2, y2) = model.generator.seen
    assert torch.equal(y1, y) and torch.equal(y2, y) and (z1 != z2).all()


def test_mode_seeking_drives_a_collapsed_generator_apart():
    """Under a discriminator that likes everything equally: with its weight the term spreads G, without it G stays."""
    y = torch.arange(2).repeat_interleave(500)
    spread = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(1)
        model = MSGAN(mlp_cgan(2, 2, 2, 32), weight)
        with torch.no_grad():
            model.discriminator.net[-2].weight.zero_()
        for moment in ("before", "after"):
            if moment == "after":
                fit(model.players(lr=1e-3)[1], stream(labelled_by_half, 64), 100)
            with torch.no_grad():
                x = model.sample(len(y), y, generator=torch.Generator().manual_seed(0))
            spread[weight, moment] = torch.stack([x[y == c].std(0).norm() for c in range(2)]).min().item()
    assert spread[0.0, "after"] == spread[0.0, "before"] == spread[1.0, "before"]
    assert spread[1.0, "after"] > 5 * spread[1.0, "before"]


def test_minibatches_with_labels_train_pictures():
    """The conditional pair on pictures, end to end: a few steps on two grey levels named by their labels."""
    x = torch.cat([torch.full((32, 1, 8, 8), v) for v in (-0.7, 0.7)])
    y = torch.arange(2).repeat_interleave(32)
    torch.manual_seed(0)
    model = cgan(1, 8, 2, 4, 8)
    fit(model.players(lr=2e-3), minibatches((x, y), 32), 100)
    with torch.no_grad():
        means = model.eval().sample(64, y).mean((1, 2, 3))
    assert means[y == 0].mean() < -0.35 and means[y == 1].mean() > 0.35
