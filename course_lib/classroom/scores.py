"""Marks, and how they are shown: a table for the terminal, CSV for everything else."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Cell:
    """The mark of one graded cell.

    Attributes:
        name: its grade_id.
        score, points: reached and possible.
        manual: a person marks it.
        waiting: … and has not done so.
        reason: why an automatic mark is not full; empty otherwise.
    """

    name: str
    score: float
    points: float
    manual: bool
    waiting: bool
    reason: str

    @property
    def failed(self) -> bool:
        return not self.manual and self.score < self.points


@dataclass(frozen=True)
class Mark:
    """One student's result: graded cells, or the reason why there are none.

    Attributes:
        student, assignment: whose, of what.
        problem: why it could not be graded; empty if it was.
        cells: in the notebook's order; empty if it could not be graded.
        feedback: HTML files for the student.
    """

    student: str
    assignment: str
    problem: str = ""
    cells: tuple[Cell, ...] = ()
    feedback: tuple[Path, ...] = ()

    def score(self, manual: bool | None = None) -> float:
        """Points reached, of all cells or only of the (not) manually marked ones."""
        return sum(cell.score for cell in self.cells if manual in (None, cell.manual))

    def points(self, manual: bool | None = None) -> float:
        """Points possible."""
        return sum(cell.points for cell in self.cells if manual in (None, cell.manual))

    @property
    def failures(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.failed]

    @property
    def needs_manual(self) -> bool:
        return any(cell.waiting for cell in self.cells)


def show(marks: Sequence[Mark], console: Console) -> None:
    """Tables of scores and of failed cells; then where the feedback is."""
    several = len({mark.assignment for mark in marks}) > 1
    title = "Scores" if several else f"Scores, {marks[0].assignment}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("student", overflow="fold")
    if several:
        table.add_column("assignment", no_wrap=True)
    for column in ("score", "automatic", "failed cells"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("to mark by hand", overflow="fold")
    for mark in marks:
        row = [escape(mark.student), escape(mark.assignment)] if several else [escape(mark.student)]
        if mark.problem:
            table.add_row(*row, "–", "–", "–", f"[bold red]could not grade: {escape(mark.problem)}[/bold red]")
            continue
        waiting = [cell.name for cell in mark.cells if cell.waiting]
        table.add_row(
            *row,
            f"{mark.score():g} / {mark.points():g}",
            f"{mark.score(manual=False):g} / {mark.points(manual=False):g}",
            f"{len(mark.failures)} of {sum(not cell.manual for cell in mark.cells)}",
            escape(", ".join(waiting)) or "nothing",
        )
    console.print(table)
    _show_failures(marks, console)
    for mark in marks:
        for path in mark.feedback:
            console.print(f"feedback for {mark.student}: {path}", markup=False, highlight=False, soft_wrap=True)


def _show_failures(marks: Sequence[Mark], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Failed cells", title_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("students", justify="right", no_wrap=True)
    table.add_column("for example")
    graded = Counter(mark.assignment for mark in marks if not mark.problem)
    failures: dict[tuple[str, str], list[Cell]] = {}
    for mark in marks:
        for cell in mark.failures:
            failures.setdefault((mark.assignment, cell.name), []).append(cell)
    for (assignment, name), cells in failures.items():
        wrong_before_blank = sorted(cells, key=lambda cell: cell.reason.startswith("NotImplementedError"))
        table.add_row(escape(name), f"{len(cells)} of {graded[assignment]}", escape(wrong_before_blank[0].reason))
    if failures:
        console.print(table)


def write_csv(marks: Sequence[Mark], path: Path | str) -> None:
    """One row a student, one column a cell.

    What could not be graded has no scores but the reason, a cell that waits for a person is empty: neither is a 0.
    """
    names = list(dict.fromkeys(cell.name for mark in marks for cell in mark.cells))
    totals = ["score", "max_score", "auto_score", "auto_max"]
    head = ["student", "assignment", "status", *totals, "needs_manual", "problem"]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*head, *names], restval="")
        writer.writeheader()
        for mark in marks:
            row = {"student": mark.student, "assignment": mark.assignment}
            if mark.problem:
                writer.writerow({**row, "status": "could not grade", "problem": mark.problem})
                continue
            values = (mark.score(), mark.points(), mark.score(manual=False), mark.points(manual=False))
            row |= dict(zip(totals, values, strict=True)) | {c.name: "" if c.waiting else c.score for c in mark.cells}
            writer.writerow({**row, "status": "graded", "needs_manual": "yes" if mark.needs_manual else "no"})
