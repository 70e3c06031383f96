import math

import pytest
import torch
from torchmetrics.image.inception import InceptionScore as Peer

from course_lib.metrics.inception_score import inception_score, mutual_information


def probs(n=600, k=10, sharpness=3.0):
    return (sharpness * torch.randn(n, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).softmax(1)


def entropy(p):
    return torch.special.entr(p).sum(-1)


def test_it_is_the_exponential_of_a_difference_of_entropies():
    p = probs()
    want = entropy(p.mean(0)) - entropy(p).mean()
    torch.testing.assert_close(mutual_information(p), want)
    assert inception_score(p, splits=1).value == pytest.approx(want.exp().item())


def test_mutual_information_of_a_binary_channel():
    """A fair bit through a channel that flips it with probability f: log 2 − H(f)."""
    f = torch.tensor(0.1, dtype=torch.float64)
    rows = torch.stack([torch.stack([1 - f, f]), torch.stack([f, 1 - f])]).repeat(50, 1)
    want = math.log(2) - entropy(torch.stack([f, 1 - f])).item()
    assert mutual_information(rows).item() == pytest.approx(want, rel=1e-12)


def test_its_ends():
    sure = torch.eye(10, dtype=torch.float64).repeat(20, 1)  # 0 log 0 = 0
    assert inception_score(sure, splits=10) == pytest.approx((10, 0), abs=1e-12)
    assert inception_score(sure[:1].repeat(30, 1), splits=1).value == pytest.approx(1)  # one class: collapsed
    assert inception_score(probs(sharpness=0.0)).value == pytest.approx(1)  # unsure everywhere
    assert inception_score(sure[:4].repeat(5, 1), splits=1).value == pytest.approx(4)  # four classes of ten


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torchmetrics: about its buffer, and std of one split
@pytest.mark.parametrize("splits", [1, 10])
def test_it_is_torchmetrics_on_the_same_logits(splits):
    logits = 3 * torch.randn(600, 10, generator=torch.Generator().manual_seed(0))
    peer = Peer(feature=torch.nn.Identity(), normalize=True, splits=splits)
    peer.features.append(logits)
    torch.manual_seed(5)
    order = torch.randperm(600)  # torchmetrics shuffles before it splits
    torch.manual_seed(5)
    mean, std = peer.compute()
    got = inception_score(logits[order].softmax(1), splits)
    assert got.value == pytest.approx(mean.item(), rel=1e-4)
    assert got.std == pytest.approx(std.item(), rel=1e-3) if splits > 1 else math.isnan(got.std)


def test_it_runs_on_meta():
    assert mutual_information(torch.empty(5, 3, device="meta")).is_meta


def test_mistakes():
    with pytest.raises(ValueError, match="apply softmax to logits"):
        inception_score(torch.randn(50, 10))
    with pytest.raises(ValueError, match="apply softmax to logits"):
        inception_score(torch.full((50, 10), 0.2))
    with pytest.raises(ValueError, match="5 pictures cannot be split into 10 parts"):
        inception_score(probs(5))
    with pytest.raises(ValueError, match="NaN"):
        inception_score(probs() * torch.nan)
