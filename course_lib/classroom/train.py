"""``course train``: make the shipped models again, or see what there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from course_lib import zoo


class BadModel(ValueError):
    """A name that the zoo does not have."""


def catalogue(folder: Path) -> Table:
    """All models: what they are, and the metric on the card of those that are there."""
    table = Table("model", "what", "metric", title="The zoo: load one with course_lib.zoo.load(NAME)")
    for name, recipe in zoo.recipes().items():
        table.add_row(name, recipe.about, _metric(folder / f"{name}.md"))
    return table


def train_models(
    names: Sequence[str], steps: int | None, seed: int, device: str, folder: Path, console: Console
) -> None:
    """Train each, measure it, write it; a model that needs another one finds it in the zoo.

    Raises:
        BadModel: a name is unknown, before anything is trained.
        FileNotFoundError: a model that this one needs is not in the zoo.
    """
    known = zoo.recipes()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadModel(f"no model {unknown[0]!r} in the zoo; there are {', '.join(known)}")
    for name in names:
        recipe = known[name]
        for part in recipe.needs:
            zoo.load(part)
        console.print(f"{name}: {recipe.about}", highlight=False)
        model, seconds = recipe.train(seed, device, steps)
        measured = recipe.publish(name, model, seconds, folder, seed, steps or recipe.steps)
        console.print(f"  {measured}; {seconds:.0f} s; {folder / name}.safetensors", highlight=False, soft_wrap=True)


def _metric(card: Path) -> str:
    if not card.exists():
        return "not trained here"
    rows = (line.split("|") for line in card.read_text().splitlines())
    return next(
        (row[2].strip() for row in rows if len(row) > 2 and row[1].strip() == "metric"), "no metric on the card"
    )
