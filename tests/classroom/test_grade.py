"""Submissions get the right scores from real nbgrader; what cannot be graded gets a reason, no 0 and no old mark."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from rich.console import Console
from typer.testing import CliRunner

from course_lib.classroom.cli import app
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.grade import answered, grade, grade_reference, problems_of
from course_lib.classroom.release import generate, release
from course_lib.classroom.scores import Mark, show, write_csv
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course, tiny_notebook, write

BY_HAND = Path(__file__).parent / "submissions"
REAL = sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir())


@dataclass
class Graded:
    """A course, its folder of submissions, and what grading them gave."""

    root: Path
    inbox: Path
    marks: dict[str, Mark]

    @property
    def data(self) -> Path:
        return self.root / "classroom_data"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    """Three submissions made by hand, and many made to go wrong, graded in one run."""
    root = make_course(tmp_path_factory.mktemp("course"))
    release(root)
    inbox = root / "inbox"
    shutil.copytree(BY_HAND, inbox)

    def good() -> nbformat.NotebookNode:
        return nbformat.read(notebook_of(BY_HAND, "good"), as_version=4)

    easier = good()
    for cell in easier.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") in ("test_double__value", "norm"):
            cell.source = "pass"  # no norm, and a test that asks nothing
    easier.metadata.kernelspec.name = "julia-1.11"
    easier.cells[0] = new_code_cell("import os, sys\nprint(sys.executable, os.environ['OMP_NUM_THREADS'])")
    write(notebook_of(inbox, "easier_test"), easier)
    dies = good()
    dies.cells.insert(2, new_code_cell("import os\nos._exit(1)"))
    write(notebook_of(inbox, "kernel_dies"), dies)
    deleted = good()
    deleted.cells = [c for c in deleted.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "test_norm__value"]
    write(notebook_of(inbox, "deleted_test"), deleted)
    loud = good()
    loud.cells.insert(
        3, new_code_cell("import sys\n\ndef double(x):\n    print('hm', file=sys.stderr)\n    return 2 * x")
    )
    write(notebook_of(inbox, "writes_to_stderr"), loud)

    write(inbox / "renamed" / ASSIGNMENT / "mine (1).ipynb", good())
    (inbox / "empty" / ASSIGNMENT).mkdir(parents=True)
    (inbox / "nothing").mkdir()
    write(notebook_of(inbox, "broken"), good()).write_text('{"cells": [')
    write(notebook_of(inbox, "list"), good()).write_text("[]")
    write(notebook_of(inbox, "what[1]"), good())
    (inbox / "link" / ASSIGNMENT).mkdir(parents=True)
    notebook_of(inbox, "link").symlink_to(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    (inbox / "good" / ASSIGNMENT / "peek").symlink_to(root / "solutions")
    (inbox / ".hidden").mkdir()
    return Graded(root, inbox, {mark.student: mark for mark in grade(root, ASSIGNMENT, inbox)})


def notebook_of(inbox: Path, student: str) -> Path:
    return inbox / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"


def automatic(mark: Mark) -> tuple[float, float]:
    return mark.score(manual=False), mark.points(manual=False)


@pytest.mark.parametrize(
    ("student", "score", "failed", "needs_manual"),
    [
        ("good", 2 + 1 + 3, [], True),
        ("half_good", 2 + 1, ["test_norm__value"], False),
        ("blank", 0, ["test_double__value", "test_double__list", "test_norm__value"], False),
        ("easier_test", 2 + 1, ["test_norm__value"], True),  # the test was put back
    ],
)
def test_scores(graded, student, score, failed, needs_manual):
    mark = graded.marks[student]
    assert (mark.problem, automatic(mark)) == ("", (score, 6))
    assert (mark.score(), mark.points()) == (score, 10)
    assert [cell.name for cell in mark.failures] == failed
    assert mark.needs_manual == needs_manual


def test_reasons_say_what_failed(graded):
    [failure] = graded.marks["half_good"].failures
    assert failure.reason == "AssertionError"
    assert graded.marks["blank"].failures[0].reason == "NotImplementedError"
    assert "NameError: name 'norm' is not defined" in graded.marks["easier_test"].failures[0].reason
    stderr = graded.marks["writes_to_stderr"]
    assert {c.name for c in stderr.failures} == {"test_double__value", "test_double__list"}
    assert stderr.failures[0].reason == "wrote to stderr, which costs the points: hm"


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ("broken", rf"{ASSIGNMENT}\.ipynb is not JSON: Expecting value"),
        ("list", rf"{ASSIGNMENT}\.ipynb is JSON, but not a notebook"),
        ("renamed", rf"{ASSIGNMENT}\.ipynb is missing \(found: mine \(1\)\.ipynb\)"),
        ("empty", rf"{ASSIGNMENT}\.ipynb is missing \(found: no notebook\)"),
        ("nothing", f"nothing submitted: no folder nothing/{ASSIGNMENT}"),
        ("link", rf"{ASSIGNMENT}\.ipynb is a link"),
        ("deleted_test", "graded cells are missing .*: test_norm__value"),
        ("kernel_dies", "DeadKernelError"),
        ("what[1]", "cannot handle the folder name"),
    ],
)
def test_what_cannot_be_graded_has_a_reason_and_no_score(graded, student, reason):
    mark = graded.marks[student]
    assert re.search(reason, mark.problem)
    assert mark.cells == () and mark.feedback == ()
    assert not (graded.data / "feedback" / student).joinpath(ASSIGNMENT).exists()
    assert auto_scores(graded, student) <= {None}  # not in the gradebook either


def auto_scores(graded: Graded, student: str) -> set[float | None]:
    query = """select g.auto_score from grade g join submitted_notebook n on g.notebook_id = n.id
               join submitted_assignment a on n.assignment_id = a.id where a.student_id = ?"""
    with sqlite3.connect(graded.data / "gradebook.db") as connection:
        return {score for (score,) in connection.execute(query, [student])}


def test_everybody_has_a_line_and_nobody_else(graded):
    assert list(graded.marks) == sorted(p.name for p in graded.inbox.iterdir() if p.name != ".hidden")


def test_kernels_are_of_this_environment_and_have_one_core(graded):
    path = graded.data / "autograded" / "easier_test" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    text = nbformat.read(path, as_version=4).cells[0].outputs[0].text
    executable, threads = text.split()
    assert os.path.samefile(executable, sys.executable) and executable.startswith(sys.prefix)
    assert threads == "1"


def test_links_are_not_followed(graded):
    for step in ("submitted", "autograded"):
        assert not (graded.data / step / "good" / ASSIGNMENT / "peek").exists()


def test_feedback_is_html_without_hidden_sources_of_others(graded):
    [path] = graded.marks["half_good"].feedback
    assert path == graded.data / "feedback" / "half_good" / ASSIGNMENT / f"{ASSIGNMENT}.html"
    assert "AssertionError" in path.read_text()


def test_table_and_csv(graded, tmp_path):
    marks = list(graded.marks.values())
    console = Console(record=True, width=160)
    show(marks, console)
    lines = console.export_text().splitlines()
    row = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.split()[:1] and line.startswith("  ")}
    assert row["half_good"] == "3 / 10 3 / 6 1 of 3 nothing"
    assert row["good"] == "6 / 10 6 / 6 0 of 3 why"
    assert row["broken"].startswith("– – – could not grade: ")
    assert row["test_norm__value"] == "3 of 5 NameError: name 'norm' is not defined"  # half_good, blank, easier_test

    write_csv(marks, tmp_path / "scores" / "week1.csv")
    with (tmp_path / "scores" / "week1.csv").open(newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows["half_good"]["score"] == "3.0" and rows["half_good"]["max_score"] == "10.0"
    assert (rows["half_good"]["test_double__list"], rows["half_good"]["test_norm__value"]) == ("1.0", "0.0")
    assert (rows["good"]["needs_manual"], rows["good"]["why"]) == ("yes", "")
    assert rows["broken"]["status"] == "could not grade" and "JSON" in rows["broken"]["problem"]
    assert (rows["broken"]["score"], rows["broken"]["test_norm__value"]) == ("", "")


def test_last_weeks_mark_does_not_survive_but_manual_marks_do(graded, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(graded.data, data)
    with sqlite3.connect(data / "gradebook.db") as connection:
        connection.execute(
            "update grade set manual_score = 3.5 where cell_id in (select id from base_cell where name = 'why')"
        )
    again = Graded(graded.root, tmp_path / "inbox", {})
    for student in ("good", "half_good"):
        write(notebook_of(again.inbox, student), nbformat.read(notebook_of(BY_HAND, "good"), as_version=4))
    notebook_of(again.inbox, "good").write_text("{")
    good, half_good = grade(graded.root, ASSIGNMENT, again.inbox, data)
    assert "is not JSON" in good.problem
    assert not (data / "feedback" / "good" / ASSIGNMENT).exists()
    with sqlite3.connect(data / "gradebook.db") as connection:
        rows = connection.execute(
            """select g.auto_score, g.manual_score from grade g join submitted_notebook n on g.notebook_id = n.id
               join submitted_assignment a on n.assignment_id = a.id where a.student_id = 'good'"""
        ).fetchall()
    assert sorted(rows, key=str) == [(None, 3.5), (None, None), (None, None), (None, None)]
    assert (half_good.score(), half_good.needs_manual) == (6 + 3.5, True)  # an answer changed: look at it again


def test_a_changed_assignment_reaches_the_gradebook(graded, tmp_path):
    root = make_course(tmp_path / "course", tiny_notebook())
    shutil.copytree(graded.data, root / "classroom_data")
    inbox = tmp_path / "inbox"
    shutil.copytree(BY_HAND / "half_good", inbox / "half_good")

    stricter = tiny_notebook()  # same cells, other points and another test
    stricter.cells[2].metadata.nbgrader.points = 7
    stricter.cells[5].source = "assert norm([3, 4]) == 7"
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", stricter)
    [mark] = grade(root, ASSIGNMENT, inbox)
    assert automatic(mark) == (7 + 1 + 3, 11)

    fewer = tiny_notebook()
    del fewer.cells[3]
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", fewer)
    with pytest.raises(CourseError, match="would be lost"):  # other students have marks of the old version
        grade(root, ASSIGNMENT, inbox)
    everybody = tmp_path / "everybody"
    with sqlite3.connect(root / "classroom_data" / "gradebook.db") as connection:
        known = {name for (name,) in connection.execute("select student_id from submitted_assignment")}
    for student in known - {"half_good"}:
        (everybody / student).mkdir(parents=True)
    shutil.copytree(BY_HAND / "half_good", everybody / "half_good")
    shutil.copytree(BY_HAND / "half_good", everybody / "up_to_date")
    path = notebook_of(everybody, "up_to_date")
    notebook = nbformat.read(path, as_version=4)
    del notebook.cells[3]
    write(path, notebook)
    marks = {mark.student: mark for mark in grade(root, ASSIGNMENT, everybody)}
    assert automatic(marks["up_to_date"]) == (2, 5)
    assert "not in the assignment (any more): test_double__list" in marks["half_good"].problem


def test_reference_must_reach_every_automatic_point(tmp_path):
    notebook = tiny_notebook()
    notebook.cells[3].source += "\n0.25"  # nbgrader reads a last value as points
    notebook.cells[5].source = "assert norm([3, 4]) == 6, 'wrong key'"
    root = make_course(tmp_path, notebook)
    [mark] = grade_reference(root)
    assert problems_of(mark) == [
        f"{ASSIGNMENT}: test_double__list 0.25 / 1: its last value was read as points: 0.25",
        f"{ASSIGNMENT}: test_norm__value 0 / 3: AssertionError: wrong key",
    ]
    assert not (root / "assignments").exists() and not (root / "classroom_data" / "gradebook.db").exists()


def test_bad_requests_are_answered(graded, tmp_path):
    with pytest.raises(CourseError, match=f"unknown assignment a99; there are: {ASSIGNMENT}"):
        grade(graded.root, "a99", graded.inbox)
    with pytest.raises(CourseError, match=r"no folder .*inboks"):
        grade(graded.root, ASSIGNMENT, graded.root / "inboks")
    with pytest.raises(CourseError, match="no submissions in"):
        grade(graded.root, ASSIGNMENT, tmp_path)


def test_command_line(graded, tmp_path, monkeypatch):
    root = make_course(tmp_path / "course")
    for folder in ("lectures", "course_lib"):
        (root / folder).mkdir()
    monkeypatch.chdir(root)
    shutil.copytree(BY_HAND / "half_good", root / "inbox" / "half_good")
    shutil.copytree(graded.data, tmp_path / "private")
    command = ["grade", "a90", "--submissions", "inbox", "--data", str(tmp_path / "private"), "--csv", "scores.csv"]
    fine = CliRunner().invoke(app, command)
    assert fine.exit_code == 0, fine.output
    assert "WITHOUT A SANDBOX" in fine.output and "3 / 10" in fine.output
    assert str(tmp_path / "private" / "feedback" / "half_good") in fine.output
    assert (root / "scores.csv").is_file() and not (root / "classroom_data" / "gradebook.db").exists()

    (root / "inbox" / "nobody").mkdir()
    shutil.rmtree(root / "inbox" / "half_good")
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 1 and "could not grade" in failed.output and "WITHOUT A SANDBOX" in failed.output
    for wrong in (["grade"], ["grade", "a90"], ["grade", "a90", "--submissions", "inbox", "--reference"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2
    assert CliRunner().invoke(app, ["grade", "a99", "--submissions", "inbox"]).exit_code == 1


def test_configuration():
    course = Course.at(ROOT)
    assert course.folder("source") == ROOT / "solutions" and course.folder("release") == ROOT / "assignments"
    assert course.config.Execute.timeout == 120
    for step in ("submitted", "autograded", "feedback", "solution", "source_with_tests"):
        assert course.folder(step).is_relative_to(ROOT / "classroom_data")


@pytest.mark.slow
@pytest.mark.parametrize("assignment", REAL)
def test_real_assignment_good_half_good_and_blank(assignment, tmp_path):
    course = Course.at(ROOT, tmp_path / "data")
    generate(course, [assignment], tmp_path / "release")
    released = nbformat.read(tmp_path / "release" / assignment / f"{assignment}.ipynb", as_version=4)
    source = course.sources(assignment)[assignment]
    marked = [
        c.metadata.nbgrader | {"is_code": c.cell_type == "code"} for c in source.cells if "nbgrader" in c.metadata
    ]
    points = {m["grade_id"]: m["points"] for m in marked if m["grade"] and not m["solution"]}
    functions = [m["grade_id"] for m in marked if m["solution"] and m["is_code"]]
    filled = functions[::2]
    for student, only in {"good": None, "half_good": filled, "blank": []}.items():
        write(tmp_path / "inbox" / student / assignment / f"{assignment}.ipynb", answered(released, source, only))

    marks = {mark.student: mark for mark in grade(ROOT, assignment, tmp_path / "inbox", tmp_path / "data")}
    assert {mark.problem for mark in marks.values()} == {""}
    full = sum(points.values())
    expected = sum(p for test, p in points.items() if test.removeprefix("test_").split("__")[0] in filled)
    assert 0 < expected < full
    assert automatic(marks["good"]) == (full, full), marks["good"].failures
    assert automatic(marks["half_good"]) == (expected, full), marks["half_good"].failures
    assert automatic(marks["blank"]) == (0, full)
    assert [marks[s].needs_manual for s in ("good", "half_good", "blank")] == [True, False, False]
