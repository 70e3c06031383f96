"""Small classes, graded in this process without kernels."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from course_lib.classroom.course import Course
from course_lib.classroom.grade import Choices, Class, grade
from course_lib.classroom.scores import Mark
from course_lib.classroom.workforce import Place
from tests.classroom.stand_in import execute_here
from tests.classroom.tiny_course import ASSIGNMENT, make_course, write

BY_HAND = Path(__file__).parent / "submissions"


def grade_here(root: Path, inbox: Path | None = None, data: Path | None = None, **choices: bool) -> dict[str, Mark]:
    """Marks by student, graded in this process by the stand-in."""
    return {mark.student: mark for mark in class_of(root, inbox, data, **choices)}


def class_of(root: Path, inbox: Path | None = None, data: Path | None = None, **choices: bool) -> Class:
    return grade(root, ASSIGNMENT, inbox, data, Choices(Place(1), sandbox=False, **choices), execute=execute_here)


@dataclass
class Graded:
    """A course, its folder of submissions, and what grading them gave."""

    root: Path
    inbox: Path
    marks: dict[str, Mark]

    @property
    def data(self) -> Path:
        return self.root / "classroom_data"

    def copy(self, folder: Path) -> Graded:
        """Another one like it."""
        shutil.copytree(self.root, folder / "course")
        shutil.copytree(self.inbox, folder / "inbox")
        return Graded(folder / "course", folder / "inbox", self.marks)

    def gradebook(self) -> Gradebook:
        return Course.at(self.root).gradebook()


def notebook_of(inbox: Path, student: str) -> Path:
    return inbox / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"


def automatic(mark: Mark) -> tuple[float, float]:
    return mark.score(manual=False), mark.points(manual=False)


def graded_week(folder: Path) -> Graded:
    """A small class, graded once: `good` and `half_good`, with 3.5 points by hand for the question of each."""
    root = make_course(folder / "course")
    inbox = folder / "inbox"
    for student in ("good", "half_good"):
        shutil.copytree(BY_HAND / student, inbox / student)
    marks = grade_here(root, inbox)
    with Course.at(root).gradebook() as gradebook:
        for student in marks:
            grade = gradebook.find_grade("why", ASSIGNMENT, ASSIGNMENT, student)
            grade.manual_score, grade.needs_manual_grade = 3.5, False
        gradebook.db.commit()
    return Graded(root, inbox, marks)


def scores_of(week: Graded, student: str) -> dict[str, tuple[float | None, float | None, bool]]:
    """(Automatic score, score by hand, waits for a person) by cell, in the gradebook."""
    with week.gradebook() as gradebook:
        grades = gradebook.find_submission(ASSIGNMENT, student).notebooks[0].grades
        return {g.name: (g.auto_score, g.manual_score, g.needs_manual_grade) for g in grades}


def answer(week: Graded, student: str, cell: str, text: str) -> None:
    path = notebook_of(week.inbox, student)
    notebook = nbformat.read(path, as_version=4)
    [found] = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == cell]
    found.source = text
    write(path, notebook)
