"""What grading again would change, shown before it is made so: differences, and where results wait to be committed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from course_lib.classroom.course import CourseError
from course_lib.classroom.register import Register, timestamp_of
from course_lib.classroom.results import path_of, write_json
from course_lib.classroom.submission import Graded

NOTHING = "–"
SHOWN = 40  # changes in the terminal; the file has all


@dataclass(frozen=True)
class Change:
    """One difference between the gradebook and a new grading."""

    student: str
    what: str
    old: str
    new: str


def changes(register: Register, graded: Graded, files: Mapping[str, bytes]) -> list[Change]:
    """What `graded` changes in the student's automatic marks; empty for a first grading, which takes nothing away."""
    student, old = graded.mark.student, register.scores(graded.mark.student)
    if not old:
        return []
    if graded.mark.problem:
        total = f"{sum(score for score, _ in old.values()):g} automatic points"
        return [Change(student, "all cells", total, f"could not grade: {graded.mark.problem}")]
    new = {
        (notebook, name): (score, cell.points)
        for (notebook, name, score), cell in zip(graded.scores, graded.mark.cells, strict=True)
        if score is not None
    }
    found = [
        Change(student, name, _shown(old.get((notebook, name))), _shown(new.get((notebook, name))))
        for notebook, name in dict.fromkeys([*new, *old])
        if old.get((notebook, name)) != new.get((notebook, name))
    ]
    before = register.timestamp(student)
    try:
        when = timestamp_of(files)
    except CourseError as error:
        return [*found, Change(student, "all cells", "graded", f"could not grade: {error}")]
    if when is not None and when != before:
        found.append(Change(student, "handed in (UTC)", NOTHING if before is None else str(before), str(when)))
    return found


def _shown(score: tuple[float, float] | None) -> str:
    return NOTHING if score is None else f"{score[0]:g} / {score[1]:g}"


class Waiting:
    """New results that differ from the gradebook, kept until somebody commits them; and all changes of a run as CSV.

    Args:
        folder: for one assignment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder / "changes.csv"

    def start(self) -> None:
        """Begin the table of changes anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([field.name for field in fields(Change)])

    def note(self, found: Iterable[Change]) -> None:
        """Append to the table of changes."""
        with self.table.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(asdict(change).values() for change in found)

    def put(self, graded: Graded) -> None:
        """Keep a result."""
        write_json(path_of(self.folder, graded.mark.student), graded.to_plain())

    def get(self, student: str) -> Graded | None:
        """The student's waiting result, if there is one."""
        path = path_of(self.folder, student)
        if not path.is_file():
            return None
        try:
            return Graded.from_plain(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(f"{path} is not a result of `course grade`: {type(error).__name__}: {error}") from error

    def drop(self, student: str) -> None:
        """Forget the student's waiting result."""
        path_of(self.folder, student).unlink(missing_ok=True)


def show_changes(first: list[Change], number: int, table: Path, committed: bool, console: Console) -> None:
    """The first changes, and where all of them are."""
    if not number:
        return
    title = "Changed marks" if committed else "Marks that would change; the gradebook is as it was"
    console.print(title, style="italic", soft_wrap=True)
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("student", "cell", "old", "new"):
        shown.add_column(column, overflow="fold")
    for change in first:
        shown.add_row(*map(escape, (change.student, change.what, change.old, change.new)))
    console.print(shown)
    rest = f"; {number - len(first)} more" if number > len(first) else ""
    console.print(f"all changes: {table}{rest}", markup=False, highlight=False, soft_wrap=True)
