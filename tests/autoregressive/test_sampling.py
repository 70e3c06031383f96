"""The product rule, and drawing from it: exact laws, and cached against naive sampling."""

import itertools

import pytest
import torch

from course_lib.autoregressive.raster import raster_log_prob, sample_raster
from tests.autoregressive.models import (
    CACHED,
    CLASSES,
    RASTER,
    SEQUENCE,
    everything,
    label,
    lively,
    log_conditionals,
)
from tests.oracles import assert_frequencies

H, W = 5, 6  # not square: rows and columns cannot be confused
EVERY = RASTER | SEQUENCE
CACHED_RASTER = [name for name in RASTER if name in CACHED]


def draw(model, n, shape, generator, **how):
    """Samples of any model; class-conditional ones are asked for class 1."""
    y = {"y": label(model, n)[0]} if label(model, n) else {}
    return model.sample(n, shape if len(shape) == 2 else shape[0], generator=generator, **y, **how)


def shapes(name):
    return (H, W) if name in RASTER else (11,)


@pytest.mark.parametrize(("levels", "cells"), [(2, 6), (3, 4)])
@pytest.mark.parametrize("name", EVERY)
def test_probabilities_of_all_pictures_sum_to_one(name, levels, cells):
    model = lively(EVERY[name], levels)
    every = everything(levels, *((2, cells // 2) if name in RASTER else (cells,)))
    for which in range(CLASSES if label(model, 1) else 1):
        with torch.no_grad():
            log_p = model.log_prob(every, *label(model, len(every), which))
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-10)
        assert log_p.max() - log_p.min() > 1  # and it is not the uniform law


@pytest.mark.parametrize("name", EVERY)
def test_log_prob_is_the_product_of_the_conditionals(name):
    """log p(v) = Σ log p(v_i | v_<i), with every conditional taken from the model's own joint by summing out."""
    model = lively(EVERY[name], 2)
    shape = (2, 2) if name in RASTER else (4,)
    every = everything(2, *shape)
    with torch.no_grad():
        p = model.log_prob(every, *label(model, len(every))).exp()
        conditionals = log_conditionals(model, every, *label(model, len(every))).flatten(2).exp()
    flat = every.flatten(1)
    for i in range(4):
        same_past = (flat[:, None, :i] == flat[None, :, :i]).all(-1)
        is_one = (flat[:, i] == 1).double()
        want = (same_past * (p * is_one)).sum(1) / (same_past * p).sum(1)
        torch.testing.assert_close(conditionals[:, 1, i], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_samples_follow_the_joint(name):
    model = lively(EVERY[name], 2)
    shape = (2, 2) if name in RASTER else (4,)
    every = everything(2, *shape)
    with torch.no_grad():
        p = model.log_prob(every, *label(model, len(every))).exp()
    drawn = draw(model, 8_000, shape, torch.Generator().manual_seed(1)).flatten(1)
    assert_frequencies((drawn * torch.tensor([8, 4, 2, 1])).sum(1), p)


@pytest.mark.parametrize("name", CACHED)
def test_cached_sampling_draws_the_same_symbols_as_naive(name):
    for seed in range(2):
        model = lively(CACHED[name], 4, seed).float()
        runs = [draw(model, 3, shapes(name), torch.Generator().manual_seed(seed), cached=c) for c in (True, False)]
        assert torch.equal(*runs)
        assert runs[0].unique().numel() >= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CACHED_RASTER)
def test_cached_logits_are_those_of_the_whole_picture(name, dtype):
    model = lively(CACHED[name], 4).to(dtype)
    v = torch.randint(4, (3, H, W))
    y = label(model, 3)
    with torch.no_grad():
        logits_at = model.incremental(v, *y)
        steps = [logits_at(v, r, c) for r, c in itertools.product(range(H), range(W))]
        got = torch.stack(steps, -1).unflatten(-1, (H, W)).log_softmax(1)
        want = log_conditionals(model, v, *y)
    # large weights make logits of tens, hence a tolerance relative to them
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * max(1, want.abs().max().item()))
    assert got.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SEQUENCE)
def test_cached_logits_are_those_of_the_whole_sequence(name, dtype):
    model = lively(SEQUENCE[name], 4).to(dtype)
    v = torch.randint(4, (3, 12))
    y = label(model, 3)
    start = torch.full((3,), 4) if name.startswith("WaveNet") else None
    with torch.no_grad():
        step = model.incremental(3, *y)
        got = torch.stack([step(previous) for previous in (start, *v[:, :-1].unbind(1))], -1)
        want = model.logits(v, *y)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * max(1, want.abs().max().item()))


@pytest.mark.parametrize("name", RASTER)
def test_completion_keeps_what_is_known_and_ignores_the_rest(name):
    model = lively(RASTER[name], 4)
    known = torch.rand(H, W) < 0.4
    v, other = torch.randint(4, (2, 3, H, W))
    other = torch.where(known, v, other)
    y = {"y": label(model, 3)[0]} if label(model, 3) else {}
    runs = [
        model.complete(picture, known, generator=torch.Generator().manual_seed(5), **y, **how)
        for picture in (v, other)
        for how in ([{"cached": True}, {"cached": False}] if name in CACHED else [{}])
    ]
    for run in runs:
        assert torch.equal(run, runs[0])
        assert torch.equal(run[:, known], v[:, known])
    assert not torch.equal(runs[0][:, ~known], v[:, ~known])


def test_completion_follows_the_conditional_of_the_joint():
    """With the first pixel known, the rest follows the joint given that pixel."""
    model = lively(RASTER["gated PixelCNN"], 2)
    every = everything(2, 2, 2)
    p = model.log_prob(every).exp().detach() * (every[:, 0, 0] == 1)
    start = torch.ones(8_000, 2, 2, dtype=torch.long)
    drawn = model.complete(start, torch.tensor([[True, False], [False, False]]), generator=torch.Generator())
    assert_frequencies((drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1), p / p.sum())


@pytest.mark.parametrize("name", EVERY)
def test_loss_is_the_negative_mean_of_log_prob(name):
    model = lively(EVERY[name], 3)
    v = torch.randint(3, (4, *((3, 4) if name in RASTER else (9,))))
    y = label(model, 4)
    want = -model.log_prob(v, *y).mean() / (9 if name.startswith("WaveNet") else 1)  # WaveNet: per sample of sound
    torch.testing.assert_close(model.loss((v, *y) if y else v), want)


@pytest.mark.parametrize("name", SEQUENCE)
def test_continuation_keeps_the_prefix_and_draws_the_rest_given_it(name):
    model = lively(SEQUENCE[name], 4)
    start = torch.randint(4, (3, 5))
    runs = [
        draw(model, 3, (11,), torch.Generator().manual_seed(5), cached=cached, prefix=start) for cached in (True, False)
    ]
    assert torch.equal(*runs) and torch.equal(runs[0][:, :5], start)
    # the same uniforms after another prefix lead elsewhere; an empty prefix is none at all
    other = draw(model, 3, (11,), torch.Generator().manual_seed(5), prefix=(start + 1) % 4)
    assert not torch.equal(other[:, 5:], runs[0][:, 5:])
    free, empty = (draw(model, 3, (11,), torch.Generator().manual_seed(5), prefix=p) for p in (None, start[:, :0]))
    assert torch.equal(free, empty)


@pytest.mark.parametrize("name", SEQUENCE)
def test_continuation_follows_the_conditional_of_the_joint(name):
    model = lively(SEQUENCE[name], 2)
    every = everything(2, 4)
    with torch.no_grad():
        p = model.log_prob(every, *label(model, len(every))).exp() * (every[:, :2] == torch.tensor([1, 0])).all(1)
    start = torch.tensor([[1, 0]]).expand(8_000, -1)
    drawn = draw(model, 8_000, (4,), torch.Generator().manual_seed(1), prefix=start)
    assert_frequencies((drawn * torch.tensor([8, 4, 2, 1])).sum(1), p / p.sum())


@pytest.mark.parametrize("name", SEQUENCE)
@pytest.mark.parametrize("shape", [(2, 3), (3, 12), (3,)])
def test_a_prefix_of_another_shape_is_refused(name, shape):
    model = lively(SEQUENCE[name], 4)
    with pytest.raises((ValueError, TypeError), match="prefix"):
        draw(model, 3, (11,), torch.Generator(), prefix=torch.zeros(shape, dtype=torch.long))


def test_raster_log_prob_by_hand():
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    v = torch.randint(3, (2, 2, 2))
    p = logits.softmax(1)
    want = [sum(p[b, v[b, r, c], r, c].log() for r in range(2) for c in range(2)) for b in range(2)]
    torch.testing.assert_close(raster_log_prob(logits, v), torch.stack(want))


def test_sample_raster_calls_in_raster_order_and_leaves_its_input():
    seen, v = [], torch.zeros(1, 2, 3, dtype=torch.long)

    def certain(v, row, column):
        seen.append((row, column))
        return torch.tensor([[-1e9, 0.0]])

    out = sample_raster(certain, v)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert (out == 1).all() and (v == 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_generator_fixes_the_sample(name):
    model = lively(EVERY[name], 4)
    shape = (3, 3) if name in RASTER else (9,)
    a, b, c = (draw(model, 2, shape, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
