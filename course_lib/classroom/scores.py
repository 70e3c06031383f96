"""Marks, and how they are shown: a table for the terminal, CSV for everything else."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MOST_ROWS = 60  # students in a table; a larger class is summed up
MOST_UNGRADED = 20  # of which the summary gives the reasons


@dataclass(frozen=True)
class Cell:
    """The mark of one graded cell.

    Attributes:
        name: its grade_id.
        score, points: reached and possible.
        manual: a person marks it.
        waiting: … and has not done so.
        reason: why an automatic mark is not full, on one line; empty otherwise.
        message: the whole text of the failed check: at most 2,000 characters, no colours, traceback or source.
        passed: what the checks that held before it printed, one line each ("✓ …").
    """

    name: str
    score: float
    points: float
    manual: bool
    waiting: bool
    reason: str
    message: str = ""
    passed: tuple[str, ...] = ()

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
        penalty: points that nbgrader's plugin takes off for lateness; `score()` is before it, `total()` after.
        seconds, peak_mib: time and memory that grading it took.
        attempts: tampering that was seen, in plain words.
        notes: repairs made before grading ("renamed file taken", "12 cells cut").
        key: of everything that the automatic marks depend on; an equal key means that there is nothing to grade again.
    """

    student: str
    assignment: str
    problem: str = ""
    cells: tuple[Cell, ...] = ()
    feedback: tuple[Path, ...] = ()
    penalty: float = 0.0
    seconds: float = 0.0
    peak_mib: float = 0.0
    attempts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    key: str = ""

    def score(self, manual: bool | None = None) -> float:
        """Points reached, of all cells or only of the (not) manually marked ones."""
        return sum(cell.score for cell in self.cells if manual in (None, cell.manual))

    def points(self, manual: bool | None = None) -> float:
        """Points possible."""
        return sum(cell.points for cell in self.cells if manual in (None, cell.manual))

    def total(self) -> float:
        """Points reached, less the penalty for lateness; as in nbgrader, not below 0."""
        return max(0.0, self.score() - self.penalty)

    @property
    def failures(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.failed]

    @property
    def needs_manual(self) -> bool:
        return any(cell.waiting for cell in self.cells)


def show(marks: Iterable[Mark], console: Console) -> None:
    """Tables of scores and of failed cells; then where the feedback is. A large class is summed up."""
    rows: list[Mark] = []
    class_ = Summary()
    for mark in marks:
        class_.add(mark)
        if class_.students <= MOST_ROWS:
            rows.append(mark)
    if class_.students <= MOST_ROWS:
        _show_rows(rows, len(class_.graded), console)
    else:
        class_.show(console)
    class_.show_failures(console)
    for mark in rows if class_.students <= MOST_ROWS else ():
        for path in mark.feedback:
            console.print(f"feedback for {mark.student}: {path}", markup=False, highlight=False, soft_wrap=True)


def _show_rows(marks: Sequence[Mark], assignments: int, console: Console) -> None:
    several = assignments > 1
    title = "Scores" if several or not marks else f"Scores, {marks[0].assignment}"
    late = any(mark.penalty for mark in marks)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("student", overflow="fold")
    if several:
        table.add_column("assignment", no_wrap=True)
    for column in ("score", *(["late"] if late else []), "automatic", "failed cells"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("to mark by hand", overflow="fold")
    for mark in marks:
        row = [escape(mark.student), escape(mark.assignment)] if several else [escape(mark.student)]
        if mark.problem:
            dashes = ["–"] * (4 if late else 3)
            table.add_row(*row, *dashes, f"[bold red]could not grade: {escape(mark.problem)}[/bold red]")
            continue
        waiting = [cell.name for cell in mark.cells if cell.waiting]
        table.add_row(
            *row,
            f"{mark.total():g} / {mark.points():g}",
            *([f"−{mark.penalty:g}" if mark.penalty else ""] if late else []),
            f"{mark.score(manual=False):g} / {mark.points(manual=False):g}",
            f"{len(mark.failures)} of {sum(not cell.manual for cell in mark.cells)}",
            escape(", ".join(waiting)) or "nothing",
        )
    console.print(table)


class Summary:
    """Totals of a class, gathered one mark at a time: its size is that of the assignment, not of the class."""

    def __init__(self) -> None:
        self.students, self.waiting, self.late = 0, 0, 0
        self.graded: Counter[str] = Counter()  # by assignment
        self.share = 0.0  # of the automatic points, summed
        self.ungraded: list[Mark] = []  # the first few
        self.failed: Counter[tuple[str, str]] = Counter()  # by assignment and cell
        self.example: dict[tuple[str, str], str] = {}

    def add(self, mark: Mark) -> None:
        """Count a student."""
        self.students += 1
        self.graded[mark.assignment] += not mark.problem
        if mark.problem:
            if len(self.ungraded) < MOST_UNGRADED:
                self.ungraded.append(mark)
            return
        self.waiting += mark.needs_manual
        self.late += mark.penalty > 0
        self.share += mark.score(manual=False) / (mark.points(manual=False) or 1.0)
        for cell in mark.failures:
            key = (mark.assignment, cell.name)
            self.failed[key] += 1
            blank = self.example.get(key, "NotImplementedError").startswith("NotImplementedError")
            if blank:  # a wrong answer says more than none
                self.example[key] = cell.reason

    def show(self, console: Console) -> None:
        """The class in a few lines."""
        graded = self.graded.total()
        mean = f", mean {self.share / graded:.1%} of the automatic points" if graded else ""
        console.print(f"{graded} of {self.students} submissions graded{mean}", highlight=False)
        console.print(f"to mark by hand: {self.waiting}; with a penalty for lateness: {self.late}", highlight=False)
        for mark in self.ungraded:
            console.print(f"could not grade {mark.student}: {mark.problem}", style="red", markup=False, soft_wrap=True)
        more = self.students - graded - len(self.ungraded)
        if more:
            console.print(f"… and {more} more, in the CSV and in the results", style="red")

    def show_failures(self, console: Console) -> None:
        """A row for each cell that somebody failed."""
        table = Table(box=box.SIMPLE_HEAD, title="Failed cells", title_justify="left")
        table.add_column("cell", overflow="fold")
        table.add_column("students", justify="right", no_wrap=True)
        table.add_column("for example")
        for (assignment, name), number in self.failed.items():
            of = f"{number} of {self.graded[assignment]}"
            table.add_row(escape(name), of, escape(self.example[assignment, name]))
        if self.failed:
            console.print(table)


def write_csv(marks: Iterable[Mark], path: Path | str) -> None:
    """One row a student, one column a cell.

    What could not be graded has no scores but the reason, a cell that waits for a person is empty: neither is a 0.
    `score` is before, `total` after the penalty for lateness.

    Args:
        marks: gone through twice.
        path: the folders above it are made.
    """
    names = list(dict.fromkeys(cell.name for mark in marks for cell in mark.cells))
    totals = ["score", "max_score", "auto_score", "auto_max", "late_penalty", "total"]
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
            row |= dict(zip(totals, (*values, mark.penalty, mark.total()), strict=True))
            row |= {c.name: "" if c.waiting else c.score for c in mark.cells}
            writer.writerow({**row, "status": "graded", "needs_manual": "yes" if mark.needs_manual else "no"})
