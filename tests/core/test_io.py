import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from course_lib.core.io import image_grid, load_weights, save_png, save_weights, to_uint8, write_json
from course_lib.data import load
from course_lib.data.dataset import to_images


def test_bytes_and_back():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5)
    assert to_uint8(values).flatten().tolist() == [0, 0, 128, 255, 255]
    everything = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert (to_uint8(to_images(everything)) == everything).all()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    assert to_images(pictures).shape == (2, 3, 4, 5) and (to_uint8(to_images(pictures)) == pictures).all()


def test_grid_is_row_by_row():
    shades = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 2, 3)
    grid = image_grid(shades, columns=2, pad=1, background=77)
    assert grid.shape == (3 * 3 - 1, 2 * 4 - 1, 1)
    corners = [grid[3 * (i // 2), 4 * (i % 2), 0] for i in range(5)]
    assert corners == [0, 64, 128, 191, 255]
    assert (grid[2] == 77).all() and (grid[:, 3] == 77).all() and (grid[6:, 4:] == 77).all()


def test_grid_defaults():
    assert image_grid(torch.zeros(9, 3, 4, 4)).shape == (14, 14, 3)
    assert image_grid(torch.zeros(2, 1, 4, 4), columns=50).shape == (4, 9, 1)
    with pytest.raises(ValueError, match="at least one image"):
        image_grid(torch.zeros(0, 1, 4, 4))


def test_png_holds_the_pixels(tmp_path):
    x = load("emoji", "val").x[:6]
    save_png(tmp_path / "a.png", x, columns=3, scale=2)
    stored = np.asarray(Image.open(tmp_path / "a.png"))
    assert (stored[::2, ::2] == image_grid(x, 3)).all() and stored.shape == (130, 196, 3)
    save_png(tmp_path / "grey.png", x[:, :1])
    assert Image.open(tmp_path / "grey.png").mode == "L"


def test_weights_round_trip_with_a_card(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model(torch.randn(8, 3))
    path = tmp_path / "sub" / "model.safetensors"
    digest = save_weights(path, model, {"seed": 0, "licence": "MIT"})
    card = path.with_suffix(".md").read_text()
    assert digest in card and "| seed | 0 |" in card and "| licence | MIT |" in card
    other = load_weights(path, nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_weights_that_are_not_what_they_should_be(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, nn.Linear(3, 2), {})
    with pytest.raises(ValueError, match="does not fit Linear"):
        load_weights(path, nn.Linear(4, 2))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"does not have the SHA-256 that its model card model\.md states"):
        load_weights(path, nn.Linear(3, 2))
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none.safetensors", nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"would take 4\.6 MiB; weights in the repository are at most 4"):
        save_weights(tmp_path / "big.safetensors", nn.Linear(1200, 1000), {})
    assert not (tmp_path / "big.safetensors").exists()


def test_json_is_sorted_and_readable(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n  "a": "ä",\n  "b": 1\n}\n' and json.loads(text) == {"a": "ä", "b": 1}
