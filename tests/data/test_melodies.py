import pytest
import torch

from course_lib.data.melodies import INSTRUMENTS, PENTATONIC, RATE, melodies


def made(n=24, seed=0, **how):
    return melodies(n, generator=torch.Generator().manual_seed(seed), **how)


def test_shapes_and_range():
    for length, notes in ((4_000, 4), (1_001, 3), (800, 1)):
        sound, instrument = made(6, length=length, notes=notes)
        assert sound.shape == (6, length) and sound.dtype == torch.float32
        assert instrument.shape == (6,) and instrument.dtype == torch.int64
        assert torch.isfinite(sound).all()
        torch.testing.assert_close(sound.abs().amax(1), torch.full((6,), 0.9))


def test_the_same_generator_makes_the_same_clips():
    (a, ka), (b, kb), (c, _) = made(), made(), made(seed=1)
    assert torch.equal(a, b) and torch.equal(ka, kb) and not torch.equal(a, c)
    assert not torch.equal(a[0], a[1])


def test_both_instruments_play():
    _, instrument = made(400, length=80, notes=1)
    share = instrument.double().mean()
    assert set(instrument.tolist()) == set(range(len(INSTRUMENTS)))
    assert abs(share - 0.5) < 5 * (0.25 / 400) ** 0.5


@pytest.mark.parametrize("kind", range(len(INSTRUMENTS)))
def test_a_note_repeats_with_the_period_of_a_pitch_of_the_scale(kind):
    """Autocorrelation at the best period of the scale is high; half a period away it is not."""
    sound, instrument = made(40, length=2_000, notes=1)
    scale = [220.0 * 2 ** ((12 * octave + step) / 12) for octave in range(2) for step in PENTATONIC]
    for clip in sound[instrument == kind][:8]:
        middle = clip[400:1600]
        similarity = lambda lag: torch.corrcoef(torch.stack([middle[:-lag], middle[lag:]]))[0, 1].item()  # noqa: E731
        assert max(similarity(round(RATE / hertz)) for hertz in scale) > 0.8


def test_notes_differ_within_a_clip():
    sound, _ = made(8, length=4_000, notes=2)
    spectrum = lambda x: torch.fft.rfft(x, dim=1).abs()  # noqa: E731
    first, second = spectrum(sound[:, :2_000]), spectrum(sound[:, 2_000:])
    same = torch.nn.functional.cosine_similarity(first, second, dim=1)
    assert (same < 0.9).float().mean() > 0.5
