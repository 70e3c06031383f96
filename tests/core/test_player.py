import math

import pytest
import torch
from torch import nn

from course_lib.core import Player, minibatches, stream, warmup_cosine
from course_lib.core.player import derived_seed, tensors_of, tree_map


def test_every_example_once_in_an_epoch_and_in_another_order_each_time():
    batch = minibatches(torch.arange(10), 5, seed=1)
    epochs = [torch.cat([batch(2 * e), batch(2 * e + 1)]) for e in range(4)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(10))
    assert len({tuple(order.tolist()) for order in epochs}) == 4


def test_a_batch_depends_on_its_index_alone():
    """So a resumed run, or a second process, needs no iterator state."""
    data = torch.arange(23)
    in_order = minibatches(data, 4, seed=2)
    want = [in_order(i) for i in range(12)]
    for i in (11, 0, 7, 6, 11):
        assert torch.equal(minibatches(data, 4, seed=2)(i), want[i]) and torch.equal(in_order(i), want[i])
    assert not torch.equal(minibatches(data, 4, seed=3)(0), want[0])


def test_the_incomplete_batch_is_dropped_and_the_size_capped():
    batch = minibatches(torch.arange(11), 4)
    assert len(torch.cat([batch(0), batch(1)]).unique()) == 8 and len(batch(2)) == 4
    assert len(minibatches(torch.arange(3), 100)(0)) == 3


def test_tensors_stay_aligned():
    x = torch.arange(12)
    a, b = minibatches((x, 10 * x), 5)(3)
    assert torch.equal(b, 10 * a)


def test_mistakes_of_minibatches():
    with pytest.raises(ValueError, match=r"different lengths: \[3, 4\]"):
        minibatches((torch.zeros(3), torch.zeros(4)), 2)
    for data, size in ((torch.zeros(0, 2), 4), (torch.zeros(4, 2), 0)):
        with pytest.raises(ValueError, match="at least one example and one per batch"):
            minibatches(data, size)


def test_stream_is_fresh_and_repeatable():
    batch = stream(lambda n, generator: torch.rand(n, generator=generator), 6, seed=4)
    assert torch.equal(batch(5), batch(5)) and not torch.equal(batch(5), batch(6)) and len(batch(0)) == 6


def test_seeds_are_well_mixed():
    seeds = {derived_seed(a, b) for a in range(60) for b in range(60)}
    assert len(seeds) == 3600 and all(0 <= s < 2**63 for s in seeds)
    assert derived_seed(1, 2) != derived_seed(2, 1) and derived_seed(-1) >= 0
    # neighbouring steps must not give related noise
    noise = torch.stack(
        [torch.randn(2000, generator=torch.Generator().manual_seed(derived_seed(0, s))) for s in range(8)]
    )
    assert (noise.corrcoef() - torch.eye(8)).abs().max() < 5 / math.sqrt(2000)


def test_warmup_and_cosine():
    ramp = warmup_cosine(110, 10, floor=0.2)
    assert [ramp(s) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert ramp(10) == 1 and ramp(60) == pytest.approx(0.6) and ramp(110) == ramp(500) == pytest.approx(0.2)
    assert warmup_cosine(100)(0) == 1


def test_player_takes_what_it_can_train():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    player = Player("p", model, lambda batch, step: None)
    assert len(player.params) == 3 and len(player.buffers) == 3
    tied = nn.Parameter(torch.zeros(1))
    assert len(Player("p", [tied, tied], lambda b, s: tied).params) == 1  # counted once, stepped once
    with pytest.raises(ValueError, match="'p' has no parameter that requires a gradient"):
        Player("p", nn.ReLU(), lambda b, s: None)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        Player("p", [tied], lambda b, s: tied, repeats=0)


def test_the_player_of_a_model():
    class Model(nn.Linear):
        def loss(self, batch):
            return self(batch).square().mean()

    model = Model(2, 1)
    player = Player.of(model, lr=0.1)
    assert (player.name, player.lr) == ("model", 0.1) and Player.of(model, name="m").name == "m"
    x = torch.randn(3, 2)
    assert torch.equal(player.loss(x, 0), model.loss(x))


def test_trees():
    tree = {"a": torch.ones(2), "b": [torch.ones(1), (torch.zeros(3), "text")]}
    doubled = tree_map(lambda t: 2 * t, tree)
    assert doubled["b"][1][1] == "text" and isinstance(doubled["b"][1], tuple)
    assert [t.tolist() for t in tensors_of(doubled)] == [[2, 2], [2], [0, 0, 0]]
