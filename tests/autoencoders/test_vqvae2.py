import pytest
import torch

from course_lib.autoencoders.vqvae2 import VQVAE2
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import load


def pictures(n=3, channels=1, h=16, w=8):
    return torch.rand(n, channels, h, w) * 2 - 1


def test_shapes_of_both_levels():
    model, x = VQVAE2(3, 6, 4, 8), pictures(2, 3, 32, 16)
    top, bottom = model.encode(x)
    assert top.shape == (2, 4, 2) and bottom.shape == (2, 8, 4)
    assert model.decode(top, bottom).shape == x.shape == model(x).shape
    assert model(10 * x).abs().max() <= 1
    assert torch.equal(model(x), model.decode(top, bottom))


@pytest.mark.parametrize("shape", [(1, 1, 12, 16), (1, 1, 16, 28)])
def test_sides_must_divide_by_eight(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        VQVAE2(1).encode(torch.zeros(shape))


def test_both_codebooks_and_both_encoders_get_gradients():
    model = VQVAE2(1, 6, 4, 8)
    model.loss(pictures()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_loss_is_the_error_and_both_levels_terms():
    model, x = VQVAE2(1, 6, 4, 8).double(), pictures().double()
    top, bottom = model.encode(x)
    below, z_top = model.features(x)
    e_top, e_bottom = model.top.lookup(top), model.bottom.lookup(bottom)
    z_bottom = model.join(torch.cat([below, model.decode_top(e_top)], 1))
    error = (model._decode(e_top, e_bottom) - x).square().sum() / 3 / (4 * 2)
    terms = sum((z - e).square().sum(1).mean() for z, e in ((z_top, e_top), (z_bottom, e_bottom)))
    torch.testing.assert_close(model.loss(x), error + 1.25 * terms)


def test_the_bottom_code_is_chosen_given_the_top():
    model, x = VQVAE2(1, 64, 4, 8), pictures(8)
    model.top.table.data *= 10  # far apart
    model.revive(x)
    below, _ = model.features(x)
    codes = [
        model.bottom.nearest(model.join(torch.cat([below, model.decode_top(model.top.lookup(top))], 1)))
        for top in (torch.zeros(8, 2, 1, dtype=torch.long), torch.ones(8, 2, 1, dtype=torch.long))
    ]
    assert not torch.equal(*codes)


def test_the_picture_depends_on_both_maps():
    model = VQVAE2(1, 6, 4, 8)
    top, bottom = torch.zeros(1, 2, 1, dtype=torch.long), torch.zeros(1, 4, 2, dtype=torch.long)
    base = model.decode(top, bottom)
    assert not torch.equal(base, model.decode(top + 1, bottom))
    assert not torch.equal(base, model.decode(top, bottom + 1))


def test_revive_works_on_both_levels():
    model, x = VQVAE2(1, 6, 4, 8), pictures()
    with torch.no_grad():
        model.top.table[2:] += 1e3
        model.bottom.table[3:] += 1e3
    assert model.revive(x, torch.Generator().manual_seed(0)) >= 4 + 3
    assert model.top.table.abs().max() < 100 and model.bottom.table.abs().max() < 100


def test_beats_the_mean_digit_and_both_levels_matter():
    train, test = load("digits", "train", 32).x, load("digits", "test", 32).x
    model = VQVAE2(1, 32, 8, 16)

    def loss(x, step):
        if step % 5 == 0 and step < 150:
            model.revive(x)
        return model.loss(x)

    fit(Player("vqvae2", model, loss, lr=3e-3), minibatches(train, 32), 250,
        options=FitOptions(schedule=warmup_cosine(250, 10)))  # fmt: skip
    with torch.no_grad():
        top, bottom = model.encode(test)
        error = lambda x: (x - test).square().sum((1, 2, 3)).mean().item()  # noqa: E731
        both = error(model.decode(top, bottom))
        wrong_bottom = error(model.decode(top, bottom.roll(1, 0)))
    mean_error = error(train.mean(0))
    assert both < 0.5 * mean_error, (both, mean_error)
    assert wrong_bottom > 1.5 * both
