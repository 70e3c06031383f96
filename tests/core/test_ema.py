import pytest
import torch
from torch import nn

from course_lib.core import EMA


def test_average_is_the_formula():
    """θ̄ ← d_t θ̄ + (1 − d_t) θ with d_t = min(d, (1 + t)/(10 + t)), by hand on one weight."""
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.5)
    want = model.weight.item()
    for t in range(20):
        model.weight.data.fill_(float(t * t % 7))
        ema.update()
        d = min(0.5, (1 + t) / (10 + t))
        want = d * want + (1 - d) * (t * t % 7)
        assert ema.module.weight.item() == pytest.approx(want, rel=1e-5)
    assert ema.steps == 20


def test_a_constant_model_is_its_own_average():
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.999)
    for _ in range(5):
        ema.update()
    torch.testing.assert_close(ema.module.weight, model.weight)


def test_zero_decay_copies():
    model = nn.Linear(3, 2)
    ema = EMA(model, 0)
    model.weight.data += 1
    ema.update()
    assert torch.equal(ema.module.weight, model.weight)


def test_the_copy_is_frozen_and_separate():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(model)
    assert not ema.module.training and not any(p.requires_grad for p in ema.module.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())
    before = ema.module[0].weight.clone()
    model[0].weight.data += 1
    assert torch.equal(ema.module[0].weight, before)


def test_buffers_are_copied_not_averaged():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, 0.9)
    model(torch.randn(50, 2) + 3)
    ema.update()
    assert torch.equal(ema.module.running_mean, model.running_mean)
    assert ema.module.num_batches_tracked == 1


def test_state_dict_round_trip_continues_the_ramp():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.99)
    for _ in range(3):
        model.weight.data += 1
        ema.update()
    other = EMA(nn.Linear(2, 2), 0.99)
    other.load_state_dict(ema.state_dict())
    other.source = model
    for e in (ema, other):
        e.update()
    assert torch.equal(ema.module.weight, other.module.weight) and other.steps == 4


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got"):
        EMA(nn.Linear(1, 1), decay)
