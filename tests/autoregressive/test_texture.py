import itertools

import pytest
import torch

from course_lib.autoregressive.texture import synthesize
from course_lib.data.photos import photo


def literal_distances(sample, canvas, known, row, column, window):
    """d(w, s) = Σ m g (w − s)² / Σ m g for one pixel against every window of the sample, one number at a time."""
    r, channels = window // 2, len(sample)
    distances, centres = [], []
    for top, left in itertools.product(range(sample.shape[1] - 2 * r), range(sample.shape[2] - 2 * r)):
        above, below = 0.0, 0.0
        for dr, dc in itertools.product(range(-r, r + 1), repeat=2):
            y, x = row + dr, column + dc
            if not (0 <= y < canvas.shape[1] and 0 <= x < canvas.shape[2] and known[y, x]):
                continue
            g = float(torch.exp(torch.tensor(-(dr**2 + dc**2) / (2 * (window / 6.4) ** 2), dtype=torch.float64)))
            for c in range(channels):
                above += g * float(canvas[c, y, x] - sample[c, top + r + dr, left + r + dc]) ** 2
            below += g
        distances.append(above / (channels * below))
        centres.append(sample[:, top + r, left + r])
    return torch.tensor(distances, dtype=torch.float64), torch.stack(centres)


def literal(sample, start, known, window):
    """The whole algorithm at ε = 0, pixel by pixel: of all windows, the closest."""
    canvas, known = start.clone(), known.clone()
    while not known.all():
        layer = [
            (r, c)
            for r, c in itertools.product(*map(range, known.shape))
            if not known[r, c] and known[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].any()
        ]
        chosen = {}
        for r, c in layer:
            distances, centres = literal_distances(sample, canvas, known, r, c, window)
            chosen[r, c] = centres[distances.argmin()]
        for (r, c), value in chosen.items():
            canvas[:, r, c], known[r, c] = value, True
    return canvas


def hole(h, w):
    """Everything but a hole that takes more than one layer to fill, and a corner."""
    known = torch.ones(h, w, dtype=torch.bool)
    known[2:5, 3:7] = False
    known[-2:, -2:] = False
    return known


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [3, 5])
def test_without_tolerance_it_is_the_literal_algorithm(channels, window):
    sample = torch.rand(channels, 9, 8, dtype=torch.float64) * 2 - 1
    start, known = torch.rand(channels, 8, 9, dtype=torch.float64) * 2 - 1, hole(8, 9)
    got = synthesize(sample, start, known, window, tolerance=0.0)
    want = literal(sample, torch.where(known, start, torch.zeros(())).double(), known, window)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_matches_are_all_windows_within_the_tolerance_and_no_others():
    sample = torch.rand(1, 12, 12, dtype=torch.float64)
    start, known = torch.rand(1, 5, 5, dtype=torch.float64), torch.ones(5, 5, dtype=torch.bool)
    known[2, 2] = False
    distances, centres = literal_distances(sample, start, known, 2, 2, 5)
    for tolerance in (0.5, 2.0):
        close = distances <= distances.min() * (1 + tolerance)
        drawn = {
            synthesize(sample, start, known, 5, tolerance, torch.Generator().manual_seed(s))[0, 2, 2].item()
            for s in range(40 * int(close.sum()))
        }
        assert drawn == set(centres[close, 0].tolist())
    assert 1 < len(drawn) < len(distances)


@pytest.mark.parametrize("name", ["brick", "grass"])
def test_every_new_pixel_comes_from_the_photo_and_the_rest_stands(name):
    sample = photo(name)[:, :40, :40]
    start, known = torch.full((1, 30, 30), 9.0), torch.zeros(30, 30, dtype=torch.bool)
    known[12:17, 12:17] = True
    start[:, known] = sample[:, 3:8, 3:8].flatten(1)
    out = synthesize(sample, start, known, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out[:, known], start[:, known])
    assert set(out.flatten().tolist()) <= set(sample.flatten().tolist())
    again = synthesize(sample, start, known, 7, generator=torch.Generator().manual_seed(0))
    other = synthesize(sample, start, known, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(out, again) and not torch.equal(out, other)


def test_colours_stay_together():
    sample = photo("coffee", 32)
    known = torch.zeros(12, 12, dtype=torch.bool)
    known[4:8, 4:8] = True
    start = sample[:, :12, :12]
    out = synthesize(sample, start, known, 5)
    colours = {tuple(pixel) for pixel in sample.flatten(1).T.tolist()}
    assert {tuple(pixel) for pixel in out.flatten(1).T.tolist()} <= colours


def test_a_periodic_texture_is_continued():
    """Stripes of period 4 know what comes next: the filled hole is exact."""
    stripes = (torch.arange(32) % 4 < 2).float().mul(2).sub(1).expand(1, 32, 32)
    known = torch.ones(32, 32, dtype=torch.bool)
    known[8:24, 8:24] = False
    out = synthesize(stripes, stripes * known, known, 9)
    assert torch.equal(out, stripes)


def test_hidden_values_are_ignored():
    sample, known = torch.rand(1, 10, 10), hole(8, 9)
    start = torch.rand(1, 8, 9)
    runs = [
        synthesize(sample, torch.where(known, start, torch.tensor(value)), known, 3, generator=torch.Generator())
        for value in (0.0, 5.0)
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("window", [1, 4, 11])
def test_bad_windows_are_refused(window):
    with pytest.raises(ValueError, match=f"odd, at least 3 and fit .* got {window}"):
        synthesize(torch.zeros(1, 9, 12), torch.zeros(1, 5, 5), torch.ones(5, 5, dtype=torch.bool), window)


def test_something_must_be_known():
    with pytest.raises(ValueError, match="at least one pixel as known"):
        synthesize(torch.zeros(1, 9, 9), torch.zeros(1, 5, 5), torch.zeros(5, 5, dtype=torch.bool), 3)


def test_the_floor_admits_matches_that_are_not_exact():
    """A seed out of the sample is rebuilt verbatim without a floor; with a huge floor any pixel may follow."""
    sample = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(3)) * 2 - 1
    start, known = sample[:, 2:10, 2:10].clone(), torch.zeros(8, 8, dtype=torch.bool)
    known[:, :4] = True

    def filled(floor):
        return synthesize(sample, start, known, 5, 0.1, generator=torch.Generator().manual_seed(0), floor=floor)

    copied = (filled(0.0) == sample[:, 2:10, 2:10])[0][~known].float().mean()
    free = (filled(100.0) == sample[:, 2:10, 2:10])[0][~known].float().mean()
    assert copied > 0.5 and free < 0.2
