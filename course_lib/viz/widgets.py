"""Sliders around plain functions, with a static contact sheet for readers without a kernel.

    explore(figure_for, beta=[0.1, 1, 4])

``figure_for(value) -> Figure`` stays a plain function, so tests can call it over the slider's whole grid.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET = 6  # figures on a contact sheet, at most


def explore(figure_for: Callable[..., Figure], sheet: bool = True, **grid: Sequence) -> None:
    """A slider that redraws ``figure_for(value)``, and a contact sheet of the same figures.

    The slider needs a kernel; what a headless run or an HTML page shows is the sheet. Figures are drawn once per value.

    Args:
        figure_for: takes one keyword argument, returns a Figure.
        sheet: also draw the contact sheet (always drawn where there is no person: headless runs).
        grid: the argument's name and the values it may take, e.g. ``beta=[0.1, 1, 4]``.

    With ``COURSE_EXPLORE_ALL`` set, every value is drawn at once: a person may move the slider anywhere, so the test
    suite, which runs the notebooks this way, must go everywhere.

    Raises:
        ValueError: not exactly one argument, or no values.
    """
    import ipywidgets
    from IPython.display import Image, display

    if len(grid) != 1 or not len(next(iter(grid.values()))):
        raise ValueError(f"explore needs one argument with at least one value, got {grid}")
    ((name, values),) = grid.items()
    values = list(values)
    drawn: dict[int, bytes] = {}

    def png(index: int) -> bytes:
        if index not in drawn:
            drawn[index] = _png(figure_for(**{name: values[index]}))
        return drawn[index]

    slider = ipywidgets.SelectionSlider(
        options=[(_label(v), i) for i, v in enumerate(values)],
        value=len(values) // 2,
        description=name,
        continuous_update=False,
        layout=ipywidgets.Layout(width="28em"),
    )
    picture = ipywidgets.Image(value=png(slider.value), format="png", layout=ipywidgets.Layout(object_fit="contain"))
    slider.observe(lambda change: setattr(picture, "value", png(change["new"])), names="value")
    display(ipywidgets.VBox([slider, picture], layout=ipywidgets.Layout(align_items="flex-start")))
    if os.environ.get("COURSE_EXPLORE_ALL"):
        for index in range(len(values)):
            png(index)
    if sheet or os.environ.get("COURSE_HEADLESS"):
        chosen = np.unique(np.linspace(0, len(values) - 1, min(SHEET, len(values))).round().astype(int))
        display(Image(data=_png(contact_sheet([png(int(i)) for i in chosen])), format="png"))


def contact_sheet(pictures: Sequence[bytes], columns: int = 3) -> Figure:
    """PNG pictures tiled into one Figure."""
    import matplotlib.pyplot as plt
    from PIL import Image

    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    opened = [np.asarray(Image.open(io.BytesIO(p)).convert("RGB")) for p in pictures]
    aspect = max(p.shape[0] / p.shape[1] for p in opened)
    width = 9 / columns
    figure, axes = plt.subplots(rows, columns, figsize=(9, rows * width * aspect), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture in zip(axes.flat, opened, strict=False):
        axis.imshow(picture, interpolation="antialiased")
    plt.close(figure)
    return figure


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
