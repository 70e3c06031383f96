"""The promises of grading, end to end: each attack works against stock nbgrader, in this very run, and fails here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest
from nbgrader.converters import GenerateAssignment

import course_lib
from course_lib.classroom.attack import processes_with
from course_lib.classroom.course import Course
from course_lib.classroom.grade import Choices, grade
from course_lib.classroom.scores import Mark
from course_lib.classroom.workforce import Place
from tests.classroom.hostile import POINTS, SECRET, TESTS, hand_in, submissions
from tests.classroom.sandboxes import needs_sandbox
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course

from tests.classroom.hostile import source  # noqa: I001

pytestmark = needs_sandbox
LIMIT = 6  # seconds for a cell of the submission that never ends
ALL = sum(POINTS.values())


@dataclass
class Outcomes:
    """What came of the hostile submissions.

    Attributes:
        stock: folder with a course by student, graded by stock nbgrader.
        scores: of stock's, by student and cell; students that it could not grade are missing.
        ours: a course, graded by this library.
        again: the same submissions of two students, graded once more.
        marks: from `ours`.
        orphans: processes left by stock, and by ours.
    """

    stock: Path
    scores: dict[str, dict[str, float]]
    ours: Path
    marks: dict[str, Mark]
    again: dict[str, Mark]
    orphans: tuple[list[int], list[int]]

    def stock_total(self, student: str) -> float:
        return sum(self.scores[student][name] for name in POINTS)

    def notebook(self, student: str, stock: bool = False) -> nbformat.NotebookNode:
        root = self.stock / student if stock else self.ours
        path = root / "classroom_data" / "autograded" / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
        return nbformat.read(path, as_version=4)


def _course(folder: Path, timeout: int) -> Path:
    root = make_course(folder, source())
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(f"\nc.Execute.timeout = {timeout}\n")
    return root


def _mine(root: Path, students: list[str], inbox: Path) -> dict[str, Mark]:
    for student in students:
        hand_in(inbox / student / ASSIGNMENT, *submissions(root)[student])
    return {mark.student: mark for mark in grade(root, ASSIGNMENT, inbox, choices=Choices(Place(1)))}


@contextlib.contextmanager
def _ended(mark: str) -> Iterator[list[int]]:
    """Processes with ``mark`` in their command line, which are ended."""
    found = processes_with(mark)
    yield found
    for pid in found:
        psutil.Process(pid).kill()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("promises")
    fresh = _course(folder / "fresh", 120)
    Course.at(fresh).nbgrader(GenerateAssignment, ASSIGNMENT)
    stock = folder / "stock"
    for student in submissions(fresh):
        root = stock / student
        shutil.copytree(fresh, root)
        if student == "loops":
            _course(root, LIMIT)
        hand_in(root / "classroom_data" / "submitted" / student / ASSIGNMENT, *submissions(root)[student])
    command = [sys.executable, "-m", "tests.classroom.grade_with_stock"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    others = [str(stock / student) for student in submissions(fresh) if student != "kills"]
    running = [
        subprocess.Popen([*command, *roots], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        for roots in (others, [str(stock / "kills")])
    ]
    ours = _course(folder / "ours", 120)
    students = [s for s in submissions(ours) if s != "loops"]
    marks = _mine(ours, students, folder / "inbox")
    short = _course(folder / "short", LIMIT)
    marks |= _mine(short, ["loops"], folder / "short_inbox")
    again = _mine(_course(folder / "again", 120), ["kills"], folder / "again_inbox")
    codes = [process.wait() for process in running]
    assert codes == [0, -9]  # the second one was killed by the submission that it graded
    with _ended(f"{stock}/breaks_out-orphan") as left, _ended(f"{ours}-orphan") as left_here:
        pass
    scores = {}
    for student in submissions(fresh):
        outcome = stock / student / "outcome.json"
        found = json.loads(outcome.read_text()) if outcome.exists() else {}
        if "scores" in found:
            scores[student] = found["scores"]
    return Outcomes(stock, scores, ours, marks, again, (left, left_here))


def cells(mark: Mark) -> dict[str, float]:
    assert not mark.problem
    return {cell.name: cell.score for cell in mark.cells if not cell.manual}


NOTHING = dict.fromkeys(POINTS, 0.0)
DOUBLE = NOTHING | {"test_double__value": 2.0, "test_double__kinds": 2.0}


def test_debug(outcomes):
    for student in submissions(outcomes.ours):
        print(student, outcomes.scores.get(student), outcomes.marks[student].problem or cells(outcomes.marks[student]), outcomes.marks[student].attempts, outcomes.marks[student].notes)
        for c in outcomes.marks[student].cells:
            print("     ", c.name, c.score, repr(c.message[:150]))
    print(outcomes.orphans)
