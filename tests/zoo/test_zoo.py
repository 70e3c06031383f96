"""Shipped models are what their cards say, and can be made again."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from course_lib import zoo
from course_lib.classroom.cli import app
from course_lib.core.io import MAX_WEIGHT_BYTES
from course_lib.data import load
from course_lib.zoo import likelihoods

NAMES = tuple(zoo.recipes())
PRICED = [name for name in likelihoods.RECIPES if name not in ("vqvae_digits", "vqvae2_digits")]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_the_truth(name):
    model = zoo.load(name)  # raises where weights and card disagree
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    card = (zoo.WEIGHTS / f"{name}.md").read_text()
    measured = zoo.recipe(name).measure(model)
    said = next(line.split("|")[2].split() for line in card.splitlines() if line.startswith("| metric"))
    assert measured.what.split() == said[-len(measured.what.split()) :]
    # bfloat16 is not used to measure; what is left are the orders of sums on other processors
    assert measured.value == pytest.approx(float(said[0]), rel=2e-3)
    assert f"course train {name} --seed" in card
    assert (zoo.WEIGHTS / f"{name}.safetensors").stat().st_size <= MAX_WEIGHT_BYTES


def test_every_file_belongs_to_a_recipe():
    found = {path.name for path in zoo.WEIGHTS.iterdir()}
    assert found == {f"{name}{suffix}" for name in NAMES for suffix in (".safetensors", ".md")}


@pytest.mark.parametrize("name", PRICED)
def test_a_bound_is_no_more_than_the_probability_of_all_pictures(name):
    """Prices must be those of a discrete picture: noise costs at least about what a uniform guess costs."""
    levels = 256 if name in likelihoods.GREY else 2
    noise = torch.randint(levels, (4, 28, 28), generator=torch.Generator().manual_seed(0))
    log_p = likelihoods.nats(name, zoo.load(name), noise, torch.Generator().manual_seed(1))
    assert log_p.shape == (4,)
    assert (log_p < -784 * math.log(levels)).all()


def test_flow_prices_are_those_of_the_cell():
    """Uniform in the cube: log P = −d log K for every picture, whatever K is."""

    class Cube(torch.nn.Module):
        def log_prob(self, x):
            assert (x.abs() <= 1).all()
            return torch.full((len(x),), -784 * math.log(2.0))

    for levels in (2, 256):
        v = torch.randint(levels, (3, 28, 28))
        log_p = likelihoods._flow(levels)(Cube(), v, None)
        torch.testing.assert_close(log_p, torch.full((3,), -784 * math.log(levels)))


def test_coded_price_by_hand():
    prior, pictures = zoo.load("vqvae_pixelcnn_digits"), zoo.load("vqvae_digits")
    v = likelihoods.symbols(load("digits", "val").x[:2], 2, torch.Generator().manual_seed(0))
    x = v[:, None] * 2.0 - 1
    code = pictures.encode(x)
    p = ((pictures.decode(code) + 1) / 2).clamp(likelihoods.MARGIN, 1 - likelihoods.MARGIN)
    by_hand = -F.binary_cross_entropy(p, v[:, None].float(), reduction="none").sum((1, 2, 3)) + prior.log_prob(code)
    torch.testing.assert_close(likelihoods.nats("vqvae_pixelcnn_digits", prior, v), by_hand, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["pixelcnn_digits", "cgan_digits"])  # a single player, and a game
def test_training_again_gives_the_same_weights(name, tmp_path):
    runner = CliRunner()
    for folder in ("a", "b"):
        result = runner.invoke(app, ["train", name, "--steps", "2", "--out", str(tmp_path / folder)])
        assert result.exit_code == 0, result.output
    files = [(tmp_path / folder / f"{name}.safetensors").read_bytes() for folder in ("a", "b")]
    assert files[0] == files[1]
    assert "--steps 2" in (tmp_path / "a" / f"{name}.md").read_text()


def test_training_a_game_moves_both_players():
    recipe = zoo.recipe("cgan_digits")
    (before, _), (after, _) = recipe.train(steps=0, device="cpu"), recipe.train(steps=2, device="cpu")
    for player in ("generator", "discriminator"):
        pairs = zip(getattr(before, player).parameters(), getattr(after, player).parameters(), strict=True)
        assert all((a != b).any() for a, b in pairs), player


def test_a_recipe_is_a_loss_or_a_game():
    game = zoo.recipe("cgan_digits")
    for change in ({"players": None}, {"loss": lambda model, steps: None}):
        with pytest.raises(ValueError, match="a loss or players"):
            dataclasses.replace(game, **change)


def test_unknown_names_are_refused_before_training():
    result = CliRunner().invoke(app, ["train", "pixelcnn_digits", "nonsense"])
    assert result.exit_code == 2 and "nonsense" in result.output
    with pytest.raises(ValueError, match="there are"):
        zoo.load("nonsense")


def test_missing_weights_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="course train pixelcnn_digits"):
        zoo.load("pixelcnn_digits")


def test_the_catalogue_shows_what_is_there():
    result = CliRunner().invoke(app, ["train"])
    assert result.exit_code == 0 and "gated_pixelcnn_digits" in result.output
