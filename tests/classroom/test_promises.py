"""The promises of grading, end to end: each attack works against stock nbgrader, in this very run, and fails here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from tests.classroom.hostile import POINTS, SECRET, hand_in, source, submissions
from tests.classroom.sandboxes import needs_sandbox
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course

pytestmark = needs_sandbox
LIMIT = 6  # seconds for a cell of the submission that never ends


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


def _end(mark: str) -> list[int]:
    """Processes with ``mark`` in their command line, which are ended."""
    found = processes_with(mark)
    for pid in found:
        psutil.Process(pid).kill()
    return found


@contextlib.contextmanager
def _stock_at_work(folder: Path) -> Iterator[Callable[[], dict[str, dict[str, float]]]]:
    """Grade with stock nbgrader, one course a student in ``folder``, meanwhile; when called, scores of who has some."""
    fresh = _course(folder / "fresh", 120)
    Course.at(fresh).nbgrader(GenerateAssignment, ASSIGNMENT)
    students = list(submissions(fresh))
    roots = {student: folder / student for student in students}
    for student, root in roots.items():
        shutil.copytree(fresh, root)
        if student == "loops":
            _course(root, LIMIT)
        hand_in(root / "classroom_data" / "submitted" / student / ASSIGNMENT, *submissions(root)[student])
    command = [sys.executable, "-m", "tests.classroom.grade_with_stock"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    killed = str(roots.pop("kills"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    groups = [[*map(str, roots.values())], [killed]]
    running = [subprocess.Popen([*command, *group], cwd=ROOT, env=environment, **quiet) for group in groups]

    def scores() -> dict[str, dict[str, float]]:
        assert [process.wait() for process in running] == [0, -9]  # one is killed by the submission that it grades
        outcomes = {student: json.loads((root / "outcome.json").read_text()) for student, root in roots.items()}
        return {student: outcome["scores"] for student, outcome in outcomes.items() if "scores" in outcome}

    try:
        yield scores
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("promises")
    stock, ours = folder / "stock", _course(folder / "ours", 120)
    try:
        with _stock_at_work(stock) as scores_of_stock:
            marks = _mine(ours, [s for s in submissions(ours) if s != "loops"], folder / "inbox")
            marks |= _mine(_course(folder / "short", LIMIT), ["loops"], folder / "short_inbox")
            again = _mine(_course(folder / "again", 120), ["kills"], folder / "again_inbox")
            scores = scores_of_stock()
    finally:
        orphans = _end(f"{stock}/breaks_out-orphan"), _end(f"{ours}-orphan")
    return Outcomes(stock, scores, ours, marks, again, orphans)


DOUBLE, NORM, SCALED = ["test_double__value", "test_double__kinds"], ["test_norm__value"], ["test_scaled__random"]


def cells(mark: Mark) -> dict[str, float]:
    """Automatic scores by cell."""
    assert not mark.problem
    return {cell.name: cell.score for cell in mark.cells if not cell.manual}


def full(*names: str) -> dict[str, float]:
    """All points in these cells, none in the others."""
    return {name: float(points) if name in names else 0.0 for name, points in POINTS.items()}


@pytest.mark.parametrize(
    ("student", "gained"),
    [
        pytest.param("skips", [*DOUBLE, *NORM, *SCALED], id="tells nbclient not to run the tests"),
        pytest.param("reads", DOUBLE[:1], id="reads hidden tests in its own notebook"),
        pytest.param("reads", NORM, id="reads the solutions"),
        pytest.param("reads", SCALED, id="knows what another student was asked"),
        pytest.param("ships", SCALED, id="brings its own numpy"),
        pytest.param("patches", DOUBLE[:1], id="makes IPython drop asserts"),
        pytest.param("patches", DOUBLE[1:], id="replaces a built-in function, and a test's displayed result"),
        pytest.param("patches", NORM, id="replaces the code of the helper"),
        pytest.param("patches", SCALED, id="replaces numpy's assertion"),
        pytest.param("equals", [*DOUBLE, *NORM], id="returns what equals everything"),
        pytest.param("equals", SCALED, id="returns an array that is close to everything"),
    ],
)
def test_points_that_were_not_earned(outcomes, student, gained):
    assert {name: outcomes.scores[student][name] for name in gained} == {name: POINTS[name] for name in gained}
    assert cells(outcomes.marks[student]) == full()


@pytest.mark.parametrize(
    ("student", "earned", "reason"),
    [
        pytest.param("exits", DOUBLE, "ended by its own code", id="ends its kernel in a call"),
        pytest.param("loops", DOUBLE, "ignored its time limit and the interrupt", id="never ends"),
        pytest.param("kills", DOUBLE, "", id="kills its parent"),
        pytest.param("duplicates", [*DOUBLE, *NORM], "", id="has a cell twice"),
    ],
)
def test_what_stock_cannot_grade_costs_what_it_spoilt_and_no_more(outcomes, student, earned, reason):
    assert student not in outcomes.scores
    mark = outcomes.marks[student]
    assert cells(mark) == full(*earned)
    assert reason in mark.cells[3].message


def test_a_warning_costs_nothing(outcomes):
    stock = outcomes.scores["warns"]
    assert [stock[name] for name in DOUBLE] == [0, 0]
    assert cells(outcomes.marks["warns"]) == full(*POINTS)


def test_claims_about_points_and_tags_are_reported(outcomes):
    attempts = outcomes.marks["skips"].attempts
    assert "test_norm__value carries the tag 'skip-execution'" in attempts
    assert "test_norm__value claims points = 1000; it is 3" in attempts
    assert outcomes.marks["skips"].points(manual=False) == sum(POINTS.values())


def test_forged_answers_are_wrong_and_reported(outcomes):
    """The student's end of the seal sends records, references, NaN and answers in advance."""
    mark = outcomes.marks["forges"]
    assert cells(mark) == full()
    assert any("no plain data" in attempt for attempt in mark.attempts)


# ---------------------------------------------------------------- effects


def test_files_outside_are_not_written(outcomes):
    assert (outcomes.stock / "breaks_out" / "written").exists()
    assert not (outcomes.ours / "written").exists()


def test_the_gradebook_is_not_changed(outcomes):
    def points(root: Path) -> list[float]:
        with contextlib.closing(sqlite3.connect(root / "classroom_data" / "gradebook.db")) as database:
            return sorted(row[0] for row in database.execute("select max_score from grade_cells"))

    assert set(points(outcomes.stock / "breaks_out")) == {1000}
    assert points(outcomes.ours) == sorted([*POINTS.values(), 4])


def test_no_process_outlives(outcomes):
    stock, ours = outcomes.orphans
    assert len(stock) == 1
    assert ours == []


def test_a_line_of_50_mb_is_cut(outcomes):
    def size(stock: bool) -> int:
        return max(
            len(o.get("text", "")) for c in outcomes.notebook("breaks_out", stock).cells for o in c.get("outputs", [])
        )

    assert size(stock=True) == 50_000_001
    assert 1_000 < size(stock=False) < 2_000_000
    assert cells(outcomes.marks["breaks_out"]) == full(*DOUBLE)


@pytest.mark.parametrize("place", ["text", "output"])
def test_scripts_are_not_live(outcomes, place):
    script = f"<script>alert('{place}')"
    for stock in (True, False):
        notebook = outcomes.notebook("breaks_out", stock)
        parts = [o.data.get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o]
        parts += [c.source for c in notebook.cells if c.cell_type == "markdown"]
        assert any(script in part for part in parts) is stock
    page = "".join(p.read_text() for p in (outcomes.ours / "classroom_data/feedback/breaks_out").rglob("*.html"))
    assert page
    assert script not in page


def test_files_of_a_submission_do_not_hide_the_library(outcomes):
    def shown(stock: bool) -> Path:
        notebook = outcomes.notebook("ships", stock)
        return next(Path(o.text.strip()) for c in notebook.cells for o in c.get("outputs", []) if "text" in o)

    assert shown(stock=True).name == "course_lib.py"
    assert shown(stock=False) == Path(course_lib.__file__)


# ---------------------------------------------------------------- what students learn


def test_hidden_inputs_are_a_students_own_and_the_same_in_a_regrade(outcomes):
    def asked(mark: Mark) -> str:
        [message] = [cell.message for cell in mark.cells if cell.name == SCALED[0]]
        assert message.startswith("ValueError: asked [")
        return message

    assert asked(outcomes.marks["kills"]) != asked(outcomes.marks["duplicates"])
    assert asked(outcomes.marks["kills"]) == asked(outcomes.again["kills"])


def test_the_source_of_hidden_tests_is_shown_to_nobody(outcomes):
    def outputs(stock: bool, students: list[str]) -> str:
        notebooks = [outcomes.notebook(student, stock) for student in students]
        return "".join(json.dumps(c.get("outputs", [])) for notebook in notebooks for c in notebook.cells)

    assert SECRET in outputs(True, ["warns", "breaks_out", "forges"])
    students = [student for student in outcomes.marks if student not in ("loops", "reads")]  # `reads` prints its guess
    assert SECRET not in outputs(False, students)
    data = outcomes.ours / "classroom_data"
    pages = [*(data / "feedback").rglob("*.html"), *(data / "results").rglob("*.json")]
    assert len(pages) >= 2 * len(students)
    assert not [page for page in pages if SECRET in page.read_text()]
