"""Figures that several lectures draw. Each function returns a Figure and shows nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from course_lib.core.io import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from course_lib.core.fit import History

# Okabe & Ito 2008: distinguishable with any colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def use_course_style() -> None:
    """The course's matplotlib settings: readable sizes, no clutter, colours for every kind of colour vision."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "figure.constrained_layout.use": True,
            "figure.dpi": 90,
            "font.size": 10,
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def show_images(
    images: Tensor | Mapping[str, Tensor],
    title: str = "",
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    height: float = 2.4,
) -> Figure:
    """Pictures ``b c h w`` in [−1, 1] as one grid; a mapping draws one titled grid per entry, side by side.

    Args:
        images: a batch, or batches by name.
        title: above everything.
        columns: pictures in a row of a grid.
        titles: one short text under each picture (single batch only).
        height: of a grid, in inches.
    """
    import matplotlib.pyplot as plt

    if titles is not None:
        return _captioned(images, titles, title, columns)
    groups = images if isinstance(images, Mapping) else {"": images}
    grids = {name: image_grid(batch, columns) for name, batch in groups.items()}
    widths = [max(0.6, height * g.shape[1] / g.shape[0]) for g in grids.values()]
    figure, axes = plt.subplots(
        1, len(grids), figsize=(sum(widths) + 0.2, height + 0.4), width_ratios=widths, squeeze=False
    )
    for axis, (name, grid) in zip(axes[0], grids.items(), strict=True):
        draw_image(axis, grid, name)
    figure.suptitle(title)
    return _finished(figure)


def show_rows(rows: Mapping[str, Tensor], title: str = "", height: float = 0.62) -> Figure:
    """Batches of pictures ``b c h w`` under one another, one row each, with the row's name at its left.

    Args:
        rows: equally long batches of equally large pictures, by name.
        title: above everything.
        height: of a row, in inches.
    """
    import matplotlib.pyplot as plt

    counts = {len(batch) for batch in rows.values()}
    if len(counts) != 1:
        raise ValueError(f"rows must be equally long, got {[len(batch) for batch in rows.values()]} pictures")
    (columns,) = counts
    grid = image_grid(torch.cat([batch.detach().cpu() for batch in rows.values()]), columns)
    tall = height * len(rows)
    labels = 0.4 + 0.075 * max(map(len, rows))
    figure, axis = plt.subplots(figsize=(tall * grid.shape[1] / grid.shape[0] + labels, tall + 0.4 * bool(title)))
    axis.imshow(grid.squeeze(-1) if grid.shape[-1] == 1 else grid, vmin=0, vmax=255)
    step = (grid.shape[0] + 1) / len(rows)
    axis.set_yticks([step * (i + 0.5) - 1 for i in range(len(rows))], list(rows))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    figure.suptitle(title)
    return _finished(figure)


def draw_image(axis: Axes, picture: np.ndarray, title: str = "") -> None:
    """One picture (h w c, bytes) without ticks."""
    axis.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def _captioned(images: Tensor, titles: Sequence[str], title: str, columns: int | None) -> Figure:
    import textwrap

    import matplotlib.pyplot as plt

    columns = min(columns or 8, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.55 * rows + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles, strict=False):
        draw_image(axis, image_grid(image.unsqueeze(0)), textwrap.fill(text, 16))
    figure.suptitle(title)
    return _finished(figure)


def show_history(history: History, ylabel: str = "loss", smooth: int = 25, title: str = "") -> Figure:
    """Each player's loss over the steps (faint) with a running mean (bold), and the watched values."""
    import matplotlib.pyplot as plt

    panels = 1 + bool(history.watched)
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 2.9), squeeze=False)
    for i, (name, values) in enumerate(history.losses.items()):
        v, colour = values.numpy(), COLOURS[i % len(COLOURS)]
        axes[0, 0].plot(v, color=colour, alpha=0.2, linewidth=0.8)
        k = max(1, min(smooth, len(v) // 4))
        axes[0, 0].plot(np.arange(k - 1, len(v)), np.convolve(v, np.ones(k) / k, "valid"), color=colour, label=name)
    axes[0, 0].set(xlabel="step", ylabel=ylabel)
    axes[0, 0].legend()
    for name, pairs in history.watched.items():
        axes[0, 1].plot(*zip(*pairs, strict=True), marker="o", markersize=3, label=name)
    if history.watched:
        axes[0, 1].set(xlabel="step")
        axes[0, 1].legend()
    figure.suptitle(title)
    return _finished(figure)


def show_density(
    log_prob: Callable[[Tensor], Tensor],
    points: Tensor | None = None,
    extent: float = 3.0,
    resolution: int = 120,
    axis: Axes | None = None,
    title: str = "",
) -> Figure:
    """A density in the plane as shading over [−extent, extent]², with points on top."""
    import matplotlib.pyplot as plt

    figure, axis = (axis.figure, axis) if axis is not None else plt.subplots(figsize=(3.4, 3.4))
    line = torch.linspace(-extent, extent, resolution)
    x, y = torch.meshgrid(line, line, indexing="xy")
    with torch.no_grad():
        density = log_prob(torch.stack([x.flatten(), y.flatten()], -1)).exp().view(resolution, resolution)
    axis.imshow(
        density.cpu().numpy(), extent=(-extent, extent) * 2, origin="lower", cmap="Blues", interpolation="bilinear"
    )
    if points is not None:
        p = points.detach().cpu().numpy()
        axis.scatter(p[:, 0], p[:, 1], s=3, color=COLOURS[1], alpha=0.5, linewidths=0)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=title)
    axis.grid(False)
    return _finished(figure)


def show_table(rows: Sequence[Mapping[str, object]], title: str = "") -> None:
    """Rows of a results table as HTML in a notebook (floats with four digits)."""
    import html

    from IPython.display import HTML, display

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = list(rows[0])
    head = "".join(f"<th style='text-align:left'>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{html.escape(cell(r.get(c, '')))}</td>" for c in columns)
        + "</tr>"
        for r in rows
    )
    text = [" | ".join(columns)] + [" | ".join(cell(r.get(c, "")) for c in columns) for r in rows]
    table = HTML(f"<b>{html.escape(title)}</b><table><tr>{head}</tr>{body}</table>")
    display({"text/html": table.data, "text/plain": "\n".join([title, *text])}, raw=True)


def _finished(figure: Figure) -> Figure:
    """Close it for pyplot, so that a notebook shows it once (as the cell's value) and memory does not grow."""
    import matplotlib.pyplot as plt

    plt.close(figure)
    return figure
