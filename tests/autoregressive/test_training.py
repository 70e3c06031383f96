"""Short real trainings: below a stated value, and better than a stated baseline, on held-out data."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.pixelcnnpp import PixelCNNpp
from course_lib.autoregressive.pixelrnn import PixelRNN
from course_lib.autoregressive.raster import ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.autoregressive.wavenet import WaveNet, mu_law
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import load
from course_lib.data.melodies import melodies

GREYS = 17  # of scikit-learn's 8×8 digits


def digits(split, levels):
    """Symbols (b, 8, 8) of small digits, with ``levels`` grey values, and their classes."""
    data = load("digits8", split)
    greys = ((data.x.squeeze(1) + 1) * 8).round().long()
    return (greys if levels == GREYS else greys * levels // GREYS), data.labels


def independent(train, test, levels):
    """Mean test log-likelihood in nats of independent places, each with its own histogram (add-one smoothing)."""
    counts = F.one_hot(train.flatten(1), levels).sum(0) + 1.0
    p = counts / counts.sum(1, keepdim=True)
    return p.log()[torch.arange(len(p)), test.flatten(1)].sum(1).mean().item()


def trained(model, data, steps=250, lr=4e-3, size=64):
    fit(Player.of(model, lr=lr), minibatches(data, size), steps,
        options=FitOptions(schedule=warmup_cosine(steps, 20), clip=1.0))  # fmt: skip
    return model.eval()


def nats(model, *test):
    with torch.no_grad():
        return model.log_prob(*test).mean().item()


def test_pixelcnns_on_binary_digits():
    """Both are better than independent pixels by 4 of 25 nats, and what the gated one draws looks like digits."""
    (train, _), (test, _) = digits("train", 2), digits("test", 2)
    baseline = independent(train, test, 2)
    torch.manual_seed(1)
    plain = nats(trained(PixelCNN(ScaledPixels(2), 32, 4), train), test)
    gated_model = trained(GatedPixelCNN(ScaledPixels(2), 16, 4), train)
    gated = nats(gated_model, test)
    print(baseline, plain, gated)
    assert plain > baseline + 4 and gated > baseline + 4
    # what it draws is like the data, and unlike independent pixels: neighbours agree as often
    drawn = gated_model.sample(200, (8, 8), generator=torch.Generator().manual_seed(0))
    agree = lambda v: (v[:, 1:] == v[:, :-1]).double().mean().item()  # noqa: E731
    p = train.double().mean(0)
    alone = agree((torch.rand(2000, 8, 8) < p).long())
    print(agree(drawn), agree(test), alone)
    assert abs(agree(drawn) - agree(test)) < 0.3 * (agree(test) - alone)


def test_what_the_blind_spot_costs():
    """Each row repeats the last four bits of the row above in its first four places: in the plain model's blind spot.

    No plain PixelCNN can be better than 32 log 2 nats there; the truth is 20 log 2, and a gated one comes close.
    """

    def pictures(n, seed):
        v = torch.randint(2, (n, 4, 8), generator=torch.Generator().manual_seed(seed))
        for row in range(1, 4):
            v[:, row, :4] = v[:, row - 1, 4:]
        return v

    train, test = pictures(4_000, 0), pictures(500, 1)
    torch.manual_seed(1)
    plain = nats(trained(PixelCNN(ScaledPixels(2), 16, 3), train, 150), test) / math.log(2)
    gated = nats(trained(GatedPixelCNN(ScaledPixels(2), 12, 3), train, 250, 1e-2), test) / math.log(2)
    rnn = nats(trained(PixelRNN(ScaledPixels(2), 8, 1), train, 250, 1e-2), test) / math.log(2)
    print(plain, gated, rnn)
    assert plain < -31.9
    assert -23 < gated <= -19.9 and -26 < rnn <= -19.9


def test_classes_help_and_condition():
    train, test = digits("train", 2), digits("test", 2)
    torch.manual_seed(1)
    model = trained(GatedPixelCNN(ScaledPixels(2), 16, 4, 10), train)
    right = nats(model, *test)
    wrong = nats(model, test[0], (test[1] + 1) % 10)
    print(right, wrong)
    assert right > independent(train[0], test[0], 2) + 5
    assert right > wrong + 2
    # Bayes' rule turns the ten densities into a classifier
    with torch.no_grad():
        scores = torch.stack([model.log_prob(test[0], torch.full_like(test[1], y)) for y in range(10)])
    accuracy = (scores.argmax(0) == test[1]).double().mean().item()
    print(accuracy)
    assert accuracy > 0.7


@pytest.mark.parametrize(
    ("make", "steps", "margin"),
    [(lambda: PixelCNNpp(GREYS, 3, 16, 4), 250, 5.0), (lambda: PixelRNN(ScaledPixels(GREYS), 16, 1), 150, 5.0)],
    ids=["PixelCNN++", "PixelRNN"],
)
def test_grey_digits(make, steps, margin):
    (train, _), (test, _) = digits("train", GREYS), digits("test", GREYS)
    torch.manual_seed(1)
    got, baseline = nats(trained(make(), train, steps), test), independent(train, test, GREYS)
    print(got, baseline)
    assert got > baseline + margin


def test_wavenet_on_melodies():
    """Nats per sample of sound, against one histogram of all samples."""
    sound = mu_law(melodies(80, 600, 1, torch.Generator().manual_seed(0))[0])
    train, test = sound[:64], sound[64:]
    counts = torch.bincount(train.flatten(), minlength=256) + 1.0
    unigram = -(counts / counts.sum()).log()[test].mean().item()
    torch.manual_seed(1)
    model = trained(WaveNet(256, 24, 32, 6), train, 150, 1e-2, 8)
    got = model.loss(test).item()
    print(got, unigram)
    assert got < unigram - 0.8


def test_transformer_on_small_digits_as_codes():
    (train, _), (test, _) = digits("train", 4), digits("test", 4)
    torch.manual_seed(1)
    model = trained(CausalTransformer(4, 64, 32, 4, 2), train.flatten(1), 200, 3e-3, 32)
    got, baseline = nats(model, test.flatten(1)), independent(train, test, 4)
    counts = torch.bincount(train.flatten(), minlength=4) / train.numel()
    unigram = 64 * counts.log()[test].mean().item()
    print(got, baseline, unigram)
    assert got > baseline + 5 > unigram + 5
