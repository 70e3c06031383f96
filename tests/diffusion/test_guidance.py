"""Guidance on Gaussians, where the guided score is exact; Palette and SDEdit."""

import pytest
import torch

from course_lib.core import fit, stream
from course_lib.core.player import Player
from course_lib.data import load
from course_lib.diffusion.edm import karras_sigmas
from course_lib.diffusion.guidance import NoisyClassifier, classifier_free, classifier_guidance, drop_labels
from course_lib.diffusion.palette import LUMA, Palette, colorization, inpainting, outpainting
from course_lib.diffusion.sdedit import sdedit
from course_lib.maths.mixture import GaussianMixture
from course_lib.maths.schedules import cosine_schedule
from course_lib.nn.unet import UNet, UNetConfig
from tests.diffusion.exact import lopsided

MIXTURE = lopsided()  # its components are the classes
NOBODY = 3


def tweedie(score):
    return lambda x, sigma: x + sigma.square().unsqueeze(1) * score(x, float(sigma[0]))


def of_class(y):
    return GaussianMixture(torch.ones(1).double(), MIXTURE.means[y : y + 1], MIXTURE.covariances[y : y + 1])


def denoise(x, sigma, labels):
    """The exact conditional denoiser; label 3 is the whole mixture."""
    laws = [of_class(y) for y in range(3)] + [MIXTURE]
    every = torch.stack([tweedie(lambda x, s, law=law: law.noised(s).score(x))(x, sigma) for law in laws])
    return every[labels, torch.arange(len(x))]


def log_prob(x, sigma, y):
    return MIXTURE.noised(float(sigma[0])).log_joint(x).log_softmax(1)[:, y]


X, SIGMA = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.full((9,), 0.7)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_both_guidances_are_one_on_the_exact_model(scale):
    """With exact scores, the classifier's gradient is the difference of the two scores: Bayes' rule."""
    sigma = SIGMA.double()
    labels = torch.ones(9, dtype=torch.long)
    free = classifier_free(denoise, labels, NOBODY, scale)(X, sigma)
    whole = lambda x, s: denoise(x, s, torch.full((9,), NOBODY))  # noqa: E731
    classified = classifier_guidance(whole, lambda x, s: log_prob(x, s, 1), scale)(X, sigma)
    torch.testing.assert_close(free, classified)
    # and by hand: Tweedie of s ∇log p(x|y) + (1 − s) ∇log p(x)
    scores = of_class(1).noised(0.7).score(X), MIXTURE.noised(0.7).score(X)
    torch.testing.assert_close(free, X + 0.49 * (scale * scores[0] + (1 - scale) * scores[1]), rtol=1e-6, atol=1e-6)


def test_limits_take_one_pass_and_others_a_doubled_batch():
    calls = []

    def counted(x, sigma, labels):
        calls.append((len(x), labels.tolist()))
        return denoise(x, sigma, labels)

    labels = torch.zeros(9, dtype=torch.long)
    for scale in (0, 1, 2.0):
        classifier_free(counted, labels, NOBODY, scale)(X, SIGMA.double())
    assert calls == [(9, [3] * 9), (9, [0] * 9), (18, [3] * 9 + [0] * 9)]


def test_dropped_labels():
    labels = torch.arange(10).repeat(1000)
    dropped = drop_labels(labels, 10, 0.25, torch.Generator().manual_seed(0))
    gone = dropped == 10
    assert abs(gone.float().mean() - 0.25) < 0.02 and torch.equal(dropped[~gone], labels[~gone])
    assert torch.equal(drop_labels(labels, 10, 0.0), labels) and (drop_labels(labels, 10, 1.0) == 10).all()


def test_a_classifier_of_noisy_digits_learns_and_leads():
    digits = load("digits")
    model = NoisyClassifier(width=8)
    data = stream(lambda n, g: _pick(digits, torch.randint(4000, (n,), generator=g)), 64)
    fit(Player.of(model, lr=3e-3), data, 150)
    test = load("digits", "test")
    noisy = test.x + 0.5 * torch.randn(test.x.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((len(noisy),), 0.5)
    accuracy = (model.eval()(noisy, sigma).argmax(1) == test.labels).float().mean()
    assert accuracy > 0.6  # chance: 0.1
    # a step along its gradient makes the wanted label likelier
    want = torch.full((50,), 3)
    blank = lambda x, s: x  # noqa: E731
    ahead = classifier_guidance(blank, model.log_prob_of(want), 1.0)(noisy[:50], sigma[:50])
    before, after = (model.log_prob_of(want)(x, sigma[:50]).mean() for x in (noisy[:50], ahead))
    assert after > before


def _pick(digits, index):
    return digits.x[index], digits.labels[index]


# --- pictures to pictures ---------------------------------------------------------------------------------------------


def pictures(n, side=12):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_tasks():
    x = pictures(40)
    grey, everything = colorization(x)
    torch.testing.assert_close(grey[:, 1], sum(w * x[:, i] for i, w in enumerate(LUMA)))
    assert everything.shape == (40, 1, 12, 12) and everything.all()
    given, mask = inpainting(x, torch.Generator().manual_seed(1))
    assert torch.equal(given, x * (1 - mask)) and set(mask.unique().tolist()) == {0, 1}
    assert ((mask.sum((1, 2, 3)) >= 9) & (mask.sum((1, 2, 3)) <= 81)).all()  # a third to two thirds of 12, squared
    rows = mask.amax(3).squeeze(1)
    assert torch.equal(mask.squeeze(1), rows[:, :, None] * mask.amax(2).squeeze(1)[:, None])  # a rectangle
    given, mask = outpainting(x, torch.Generator().manual_seed(1))
    assert torch.equal(given, x * (1 - mask)) and mask.mean() > 0.5


def tiny_palette(tasks=(colorization, inpainting, outpainting)):
    torch.manual_seed(0)
    return Palette(UNet(7, 3, UNetConfig(8, (1, 2), 1, ())), cosine_schedule(50), (3, 12, 12), tasks)


def test_what_is_given_stays_and_what_is_wanted_is_made():
    model, x = tiny_palette(), pictures(4)
    given, mask = inpainting(x, torch.Generator().manual_seed(1))
    out = model.restore(given, mask, 5, generator=torch.Generator().manual_seed(2))
    kept = (mask == 0).expand_as(x)
    torch.testing.assert_close(out[kept], x[kept])
    assert (out[~kept] != 0).all() and out.abs().max() <= 1 + 1e-5


def test_only_the_wanted_pixels_are_learnt_and_the_rest_is_seen_without_noise():
    model, x, seen = tiny_palette((inpainting,)), pictures(6), []
    network = model.ddpm.network
    model.ddpm.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    loss = model.loss(x, torch.Generator().manual_seed(3))
    noisy, _, mask = seen[0].split([3, 3, 1], 1)
    torch.testing.assert_close(noisy * (1 - mask), x * (1 - mask))
    assert not torch.allclose(noisy * mask, x * mask, atol=0.01)
    (gradient,) = torch.autograd.grad(loss, network.out.bias)
    with torch.no_grad():
        network.out.bias += 1.0  # an output that is off by one everywhere
    moved = model.loss(x, torch.Generator().manual_seed(3))
    # ∂/∂b of the mean over wanted pixels of (b − target)², three channels: b² coefficient 1
    torch.testing.assert_close(moved - loss, gradient.sum() + 1.0, rtol=1e-3, atol=1e-3)


def test_palette_learns_to_fill_a_hole():
    """Flat pictures: whoever reads what is given knows what is in the hole."""
    flat = lambda n, g: (torch.rand(n, 3, 1, 1, generator=g) * 2 - 1).expand(n, 3, 12, 12)  # noqa: E731
    model = tiny_palette((inpainting,))
    fit(Player.of(model, lr=3e-3), stream(flat, 32), 150)
    x = flat(16, torch.Generator().manual_seed(99)).clone()
    given, mask = inpainting(x, torch.Generator().manual_seed(5))
    out = model.eval().restore(given, mask, 10, generator=torch.Generator().manual_seed(6))
    error = (mask * (out - x).square()).sum() / (3 * mask.sum())
    assert error < 0.2 * (mask * x.square()).sum() / (3 * mask.sum())  # the baseline: grey holes


def test_sdedit_goes_from_the_guide_to_the_data():
    one = GaussianMixture.isotropic(torch.zeros(1, 12, dtype=torch.float64), 0.1)

    def exact(x, sigma):
        flat = x.flatten(1)
        return (flat + sigma[0] ** 2 * one.noised(float(sigma[0])).score(flat)).view_as(x)

    guide = torch.full((200, 3, 2, 2), 0.9, dtype=torch.float64)
    distance, likelihood = [], []
    for strength in (0.02, 0.2, 5.0):
        x = sdedit(exact, guide, karras_sigmas(30, 0.002, strength), torch.Generator().manual_seed(0))
        distance.append((x - guide).abs().mean().item())
        likelihood.append(one.log_prob(x.flatten(1)).mean().item())
    assert distance == sorted(distance) and likelihood == sorted(likelihood)
    assert distance[0] < 0.1 and likelihood[-1] > 5  # of a Gaussian with standard deviation 0.1 in 12 dimensions
