"""A gated PixelCNN under a map (context), and the prior over two maps of codes that is made of two of them."""

import itertools

import pytest
import torch

from course_lib.autoencoders.vqvae2 import TwoLevelPrior
from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.raster import EmbeddedCodes, ScaledPixels
from tests.autoregressive.models import Leaf, everything, influence, lively, raster_influence
from tests.oracles import assert_frequencies

H, W = 4, 5


def under_a_map(k, classes=0):
    return GatedPixelCNN(EmbeddedCodes(k, 4), 8, 4, classes, context=3)


def a_map(n=1, h=H, w=W):
    return torch.randn(n, 3, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def test_the_map_breaks_no_causality_and_reaches_its_own_place_and_more():
    model = lively(under_a_map, 2)
    context = a_map().requires_grad_()
    model.body.embed = leaf = Leaf(torch.randn(1, 4, H, W, dtype=torch.float64))
    logits = model.logits(torch.zeros(1, H, W, dtype=torch.long), None, context).flatten(2)
    by_symbols = influence(logits, leaf.values).sum(1).flatten(1) > 0
    assert torch.equal(by_symbols, torch.ones(H * W, H * W).tril(-1).bool())
    by_map = influence(logits, context).sum(1).flatten(1) > 0
    # the map is known in advance, so a place may look at all of it; through the stacks it looks above, left and right
    assert by_map.diagonal().all() and by_map[H * W // 2].sum() > W


@pytest.mark.parametrize("classes", [0, 2])
def test_under_any_map_probabilities_sum_to_one(classes):
    model = lively(lambda k: under_a_map(k, classes), 2)
    every = everything(2, 2, 3)
    y = torch.ones(len(every), dtype=torch.long) if classes else None
    laws = [
        model.log_prob(every, y, c.expand(len(every), -1, -1, -1)).exp() for c in (a_map(1, 2, 3), a_map(1, 2, 3) + 1)
    ]
    for law in laws:
        assert law.sum().item() == pytest.approx(1, abs=1e-10)
    assert (laws[0] - laws[1]).abs().max() > 1e-3


@pytest.mark.parametrize("classes", [0, 2])
def test_cached_sampling_under_a_map_is_naive_sampling(classes):
    model = lively(lambda k: under_a_map(k, classes), 4)
    context, y = a_map(3), torch.tensor([0, 1, 1]) if classes else None
    runs = [model.sample(3, (H, W), y, torch.Generator().manual_seed(1), cached, context) for cached in (True, False)]
    assert torch.equal(*runs) and runs[0].unique().numel() >= 3
    with torch.no_grad():
        logits_at = model.incremental(runs[0], y, context)
        steps = [logits_at(runs[0], r, c) for r, c in itertools.product(range(H), range(W))]
        got = torch.stack(steps, -1).unflatten(-1, (H, W))
        torch.testing.assert_close(got, model.logits(runs[0], y, context), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("context", [None, torch.zeros(2, 4, H, W)])
def test_a_missing_or_misshapen_map_is_refused(context):
    v = torch.zeros(2, H, W, dtype=torch.long)
    with pytest.raises(ValueError, match=r"context map of shape \(2, 3, 4, 5\)"):
        under_a_map(2).log_prob(v, None, context)
    with pytest.raises(ValueError, match="shape None, got"):
        GatedPixelCNN(ScaledPixels(2), 4, 2).log_prob(v, None, torch.zeros(2, 3, H, W))


@pytest.mark.parametrize("first", [3, 5])
def test_any_first_kernel_sees_the_whole_past_with_enough_layers(first):
    seen = raster_influence("", H, W, make=lambda k: GatedPixelCNN(ScaledPixels(k), 8, 6, first=first)) > 0
    assert torch.equal(seen, torch.ones(H * W, H * W).tril(-1).bool())


@pytest.mark.parametrize("first", [1, 4])
def test_a_first_kernel_that_shows_nothing_or_is_even_is_refused(first):
    with pytest.raises(ValueError, match=f"odd side of at least 3, got {first}"):
        GatedPixelCNN(ScaledPixels(2), 8, 2, first=first)


# --- the prior of VQ-VAE-2 --------------------------------------------------------------------------------------------


def prior(classes=0):
    return lively(lambda k: TwoLevelPrior(k, 6, 3, classes), 2, gain=1.5)


@pytest.mark.parametrize("classes", [0, 2])
def test_two_level_prior_sums_to_one_over_all_pairs_of_maps(classes):
    model = prior(classes)
    tops, bottoms = everything(2, 1, 2), everything(2, 2, 4)
    top = tops.repeat_interleave(len(bottoms), 0)
    bottom = bottoms.repeat(len(tops), 1, 1)
    y = torch.ones(len(top), dtype=torch.long) if classes else None
    with torch.no_grad():
        log_t, log_b = model.log_probs(top, bottom, y)
        assert model.log_prob(top, bottom, y).exp().sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(log_t[:: len(bottoms)].exp().sum(), torch.tensor(1.0).double())
    per_top = log_b.exp().view(len(tops), -1)
    torch.testing.assert_close(per_top.sum(1), torch.ones(len(tops)).double())
    assert (per_top[0] - per_top[1]).abs().max() > 1e-4  # the bottom law depends on the top map
    torch.testing.assert_close(model.loss((top, bottom, y) if classes else (top, bottom)), -(log_t + log_b).mean())


def test_two_level_samples_follow_the_joint():
    model = prior()
    tops, bottoms = everything(2, 1, 1), everything(2, 2, 2)
    top, bottom = tops.repeat_interleave(16, 0), bottoms.repeat(2, 1, 1)
    p = model.log_prob(top, bottom).exp().detach()
    drawn = model.sample(8_000, (1, 1), generator=torch.Generator().manual_seed(0))
    index = torch.cat([m.flatten(1) for m in drawn], 1) @ torch.tensor([16, 8, 4, 2, 1])
    assert_frequencies(index, p)
    naive = model.sample(50, (1, 1), generator=torch.Generator().manual_seed(3), cached=False)
    cached = model.sample(50, (1, 1), generator=torch.Generator().manual_seed(3))
    assert all(map(torch.equal, naive, cached))


def test_the_top_map_reaches_every_place_of_the_bottom():
    model = prior()
    bottom = torch.zeros(1, 4, 6, dtype=torch.long)
    base = model.bottom.logits(bottom, None, model.stack(torch.zeros(1, 2, 3, dtype=torch.long)))
    moved = model.bottom.logits(bottom, None, model.stack(torch.ones(1, 2, 3, dtype=torch.long)))
    assert ((base - moved).abs().amax(1) > 1e-6).all()


def test_label_and_map_both_act_on_both_levels():
    model = prior(2)
    top, bottom = torch.randint(2, (5, 2, 3)), torch.randint(2, (5, 4, 6))
    y = torch.tensor([0, 1, 0, 1, 1])
    with torch.no_grad():
        ours, other = model.log_probs(top, bottom, y), model.log_probs(top, bottom, 1 - y)
        strange = model.log_probs(1 - top, bottom, y)
    assert (ours[0] != other[0]).all() and (ours[1] != other[1]).all()
    assert (ours[1] != strange[1]).all()
