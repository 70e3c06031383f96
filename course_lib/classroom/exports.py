"""Marks as CSV that learning platforms import: Canvas' gradebook, and Moodle's gradebook or offline grading worksheet.

Only final marks go into the files. A student who could not be graded, or whose written answers nobody has read, has no
row: an empty grade in a Canvas import deletes the grade that is there, and a partial one would stand as final. Whoever
is left out is named by `missing`.

Canvas (Grades → Import) finds a student by ``ID``, else by ``SIS User ID``, ``SIS Login ID``, or the name, and an
assignment by the number in parentheses of its column; without one it asks, or makes a new assignment:

    Student, ID, SIS User ID, SIS Login ID, Section, "<assignment> (<number>)"
    "    Points Possible", , , , , 40
    "Lovelace, Ada", 1815, , ada, Section 1, 36.5

Moodle's offline grading worksheet (the assignment → Upload grading worksheet) finds a student by ``Identifier``
("Participant 42") and wants ``Grade`` and ``Last modified (grade)``, which may be empty; its gradebook (Grades →
Import → CSV file) lets one choose the columns, usually ``Email address`` to ``Grade``:

    Identifier, Full name, Email address, Grade, Maximum Grade, Last modified (grade)

What the platform knows and the folder's name does not say comes from a roster: the file that Canvas exports (Grades →
Export), or Moodle's worksheet. Without one, the folder's name stands in ``SIS Login ID`` and ``Identifier``, and names,
e-mail and Canvas ID are those of nbgrader's student list (`nbgrader db student add`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.pages import points, printable
from course_lib.classroom.scores import Mark

CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
MOODLE = ("Identifier", "Full name", "Email address", "Grade", "Maximum Grade", "Last modified (grade)")
KEYS = ("SIS Login ID", "SIS User ID", "ID", "Identifier", "Username", "Email address", "ID number")


@dataclass(frozen=True)
class Person:
    """A student as a learning platform knows one; what is unknown is empty."""

    name: str = ""
    canvas: str = ""
    sis_user: str = ""
    sis_login: str = ""
    section: str = ""
    identifier: str = ""
    email: str = ""


@dataclass(frozen=True)
class Roster:
    """Students by what their folders may be called, and the platform's names of its assignments."""

    people: dict[str, Person]
    columns: tuple[str, ...] = ()

    def person(self, student: str) -> Person:
        """The student's entry; without one, the folder's name stands for the login and the identifier."""
        return self.people.get(student) or Person(sis_login=student, identifier=student)

    def column(self, assignment: str) -> str:
        """Canvas' column of the assignment, `a04_vae (1234)`; the plain name if the roster has none."""
        fitting = [name for name in self.columns if re.fullmatch(re.escape(assignment) + r" \(\d+\)", name)]
        return fitting[0] if len(fitting) == 1 else assignment


def read_roster(path: Path) -> Roster:
    """The people in a file that Canvas or Moodle exported.

    Raises:
        CourseError: no such file, or none of the columns that name a student.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(name.strip() for name in reader.fieldnames or ())
            rows = [
                {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"the roster {path} cannot be read: {error}") from error
    if not set(columns) & set(KEYS):
        raise CourseError(f"the roster {path} has none of the columns {', '.join(KEYS)}: is it an export of grades?")
    people: dict[str, Person] = {}
    for row in rows:
        person = Person(
            name=row.get("Student") or row.get("Full name", ""),
            canvas=row.get("ID", ""),
            sis_user=row.get("SIS User ID", ""),
            sis_login=row.get("SIS Login ID", ""),
            section=row.get("Section", ""),
            identifier=row.get("Identifier", ""),
            email=row.get("Email address", ""),
        )
        for key in KEYS:
            name = row.get(key, "")
            if name and people.setdefault(name, person) is not person:
                raise CourseError(f"the roster {path} has two students {name!r}")
    return Roster(people, columns)


def course_roster(course: Course) -> Roster:
    """nbgrader's list of students."""
    url = course.config.CourseDirectory.db_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        return Roster({})  # opening it would make one
    with course.gradebook() as gradebook:
        return Roster(
            {
                s.id: Person(
                    name=", ".join(part for part in (s.last_name, s.first_name) if part),
                    canvas=s.lms_user_id or "",
                    sis_login=s.id,
                    identifier=s.id,
                    email=s.email or "",
                )
                for s in gradebook.students
            }
        )


def missing(marks: Iterable[Mark]) -> list[tuple[str, str]]:
    """Students without a final mark, each with the reason."""
    reasons = []
    for mark in marks:
        waiting = [cell.name for cell in mark.cells if cell.waiting]
        if mark.problem:
            reasons.append((mark.student, f"could not be graded: {mark.problem}"))
        elif waiting:
            reasons.append((mark.student, f"waits for a person: {', '.join(waiting)}"))
    return reasons


def write_canvas(path: Path, assignment: str, marks: Sequence[Mark], roster: Roster) -> Path:
    """Write the final marks for Canvas; returns `path`."""
    rows = [["    Points Possible", "", "", "", "", points(_possible(marks))]]
    for mark in _final(marks):
        who = roster.person(mark.student)
        row = [who.name or mark.student, who.canvas, who.sis_user, who.sis_login, who.section]
        rows.append([*map(cell_text, row), points(mark.total())])
    return _write(path, [*CANVAS, cell_text(roster.column(assignment))], rows)


def write_moodle(path: Path, marks: Sequence[Mark], roster: Roster) -> Path:
    """Write the final marks for Moodle; returns `path`."""
    most, rows = points(_possible(marks)), []
    for mark in _final(marks):
        who = roster.person(mark.student)
        row = [who.identifier or mark.student, who.name or mark.student, who.email]
        rows.append([*map(cell_text, row), points(mark.total()), most, ""])
    return _write(path, list(MOODLE), rows)


def cell_text(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: a name is a stranger's, too."""
    text = printable(text).replace("\n", " ").replace("\t", " ")
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def _final(marks: Sequence[Mark]) -> list[Mark]:
    left_out = {student for student, _ in missing(marks)}
    return [mark for mark in marks if mark.student not in left_out]


def _possible(marks: Sequence[Mark]) -> float:
    return max((mark.points() for mark in marks), default=0.0)


def _write(path: Path, head: list[str], rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path
