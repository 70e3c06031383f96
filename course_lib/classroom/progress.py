"""What a run looks like in the terminal, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from course_lib.classroom.report import NotebookResult

STYLE = {"passed": "green", "failed": "red", "timeout": "yellow", "invalid": "red"}
TRACEBACK_LINES = 40


@dataclass
class Forecast:
    """Seconds that are left, from earlier durations where there are some and from cell counts where not.

    Attributes:
        earlier: seconds each notebook took the last time, by path.
        slots: notebooks at a time.
    """

    earlier: dict[str, float]
    slots: int
    finished: list[float] = field(default_factory=list)

    def notebook(self, path: str, elapsed: float, done: int, total: int) -> float | None:
        """Seconds until ``path``, running for ``elapsed`` seconds, is done; None when nothing is known."""
        if path in self.earlier and self.earlier[path] > elapsed:
            return self.earlier[path] - elapsed
        return elapsed / done * (total - done) if done else None

    def run(self, running: list[float | None], waiting: list[str]) -> float | None:
        """Seconds until everything is done, given ``notebook`` for those that run and the paths that wait."""
        typical = sum(self.finished) / len(self.finished) if self.finished else None
        parts = [*running, *(self.earlier.get(path, typical) for path in waiting)]
        if any(part is None for part in parts):
            return None
        return max([sum(parts) / self.slots, *parts], default=0.0)


class Count(ProgressColumn):
    """``12/31 cells``."""

    def render(self, task: Task) -> Text:
        return Text("starting" if task.total is None else f"{task.completed}/{task.total} {task.fields['unit']}")


class Remaining(ProgressColumn):
    """``about 1:20 left``; empty while unknown."""

    def render(self, task: Task) -> Text:
        seconds = task.fields.get("eta")
        if seconds is None or task.finished:
            return Text("")
        return Text(f"about {clock(max(0.0, seconds - (time.monotonic() - task.fields['asked'])))} left", style="cyan")


class Display:
    """Bars on a terminal; elsewhere one plain line when a notebook ends."""

    def __init__(self, console: Console, paths: list[str], forecast: Forecast):
        self.console, self.forecast = console, forecast
        self.waiting = list(paths)
        self.begin: dict[str, float] = {}
        self.cells: dict[str, tuple[int, int]] = {}
        self.bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            Count(),
            Remaining(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.rows: dict[str, int] = {}
        self.all = self.bars.add_task("all", total=len(paths), unit="notebooks", eta=None, asked=time.monotonic())

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, path: str) -> None:
        self.waiting.remove(path)
        self.begin[path], self.cells[path] = time.monotonic(), (0, 0)
        self.rows[path] = self.bars.add_task(path, total=None, unit="cells", eta=None, asked=time.monotonic())
        self._forecast()

    def cell(self, path: str, done: int, total: int) -> None:
        self.cells[path] = done, total
        self.bars.update(self.rows[path], completed=done, total=total)
        self._forecast()

    def ended(self, result: NotebookResult) -> None:
        if result.status == "passed":
            self.forecast.finished.append(result.seconds)
        self.bars.remove_task(self.rows.pop(result.path))
        del self.begin[result.path], self.cells[result.path]
        self.bars.advance(self.all)
        self._forecast()
        self.console.print(_line(result), soft_wrap=True)

    def _forecast(self) -> None:
        now, left = time.monotonic(), []
        for path, row in self.rows.items():
            left.append(self.forecast.notebook(path, now - self.begin[path], *self.cells[path]))
            self.bars.update(row, eta=left[-1], asked=now)
        self.bars.update(self.all, eta=self.forecast.run(left, self.waiting), asked=now)


def summary(results: list[NotebookResult], console: Console) -> None:
    """A table of all notebooks, then the failing cell and traceback of each that did not pass."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("notebook", overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in ("time", "peak", "cells", "warnings"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in results:
        cells = f"{r.cells_done}/{r.cells}"
        row = (r.path, Text(r.status, style=STYLE[r.status]), clock(r.seconds), f"{r.peak_mib:.0f} MiB", cells)
        table.add_row(*row, str(r.warnings))
    console.print()
    console.print(table)
    for result in results:
        if result.error:
            console.print()
            _show_error(result, console)


def clock(seconds: float) -> str:
    """``8.3 s``, ``2:05`` or ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _line(r: NotebookResult) -> Text:
    line = Text(f"{r.status:9}", style=STYLE[r.status])
    line.append(f"{r.path}  {clock(r.seconds)}, {r.peak_mib:.0f} MiB, {r.cells_done}/{r.cells} cells", style="default")
    if r.warnings:
        line.append(f", {r.warnings} warning{'s' * (r.warnings != 1)}", style="yellow")
    return line


def _show_error(result: NotebookResult, console: Console) -> None:
    error = result.error
    where = f" · In [{error['cell']}]" if error["cell"] is not None else ""
    console.rule(Text(f"{result.path}{where}", style="bold"), style=STYLE[result.status], align="left")
    console.print(Text(f"{error['name']}: {error['message']}", style=STYLE[result.status]), soft_wrap=True)
    if error["source"]:
        source = Syntax("", "python", theme="ansi_dark").highlight(error["source"])
        console.print(Text("\n").join([Text("the failing cell:", style="dim"), source]), soft_wrap=True)
    lines = error["traceback"].rstrip().splitlines()
    if len(lines) > TRACEBACK_LINES:
        cut = len(lines) - TRACEBACK_LINES
        lines = [f"… {cut} lines before this are in report.json", *lines[-TRACEBACK_LINES:]]
    if lines:
        console.print(Text("\n".join(lines)), soft_wrap=True)
