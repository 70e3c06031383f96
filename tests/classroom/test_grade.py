"""Submissions get the right scores; what cannot be graded gets a reason, no 0 and no old mark."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import re
import shutil
import sqlite3

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from rich.console import Console
from typer.testing import CliRunner

from course_lib.classroom import results
from course_lib.classroom.cli import app
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.execution import ExecutionOptions
from course_lib.classroom.grade import (
    Choices,
    answered,
    grade,
    grade_reference,
    in_quick_budget,
    instructors_part,
    problems_of,
)
from course_lib.classroom.release import generate, release
from course_lib.classroom.scores import MOST_ROWS, Cell, Mark, show, write_csv
from course_lib.classroom.submission import Submission, hand_in, student_seed
from course_lib.classroom.workforce import Place
from tests.classroom.small_class import (
    BY_HAND,
    Graded,
    answer,
    automatic,
    class_of,
    grade_here,
    graded_week,
    notebook_of,
)
from tests.classroom.stand_in import execute_here
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course, tiny_notebook, write

REAL = sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir())


@pytest.fixture(scope="module")
def first_week(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    return graded_week(tmp_path_factory.mktemp("week"))


@pytest.fixture
def week(first_week, tmp_path) -> Graded:
    return first_week.copy(tmp_path)


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
    write(notebook_of(inbox, "easier_test"), easier)
    deleted = good()
    deleted.cells = [c for c in deleted.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "test_norm__value"]
    write(notebook_of(inbox, "deleted_test"), deleted)
    loud = good()
    loud.cells.insert(
        3, new_code_cell("import sys\n\ndef double(x):\n    print('hm', file=sys.stderr)\n    return 2 * x")
    )
    write(notebook_of(inbox, "writes_to_stderr"), loud)
    surrogate = good()
    surrogate.cells.insert(1, new_code_cell("print('\\ud800')"))
    surrogate.cells.append(new_code_cell("raise ValueError(chr(0xD800))"))
    write(notebook_of(inbox, "surrogate"), surrogate)

    write(inbox / "renamed" / ASSIGNMENT / "mine (1).ipynb", good())
    (inbox / "empty" / ASSIGNMENT).mkdir(parents=True)
    (inbox / "nothing").mkdir()
    write(notebook_of(inbox, "broken"), good()).write_text('{"cells": [')
    write(notebook_of(inbox, "list"), good()).write_text("[]")
    write(notebook_of(inbox, "what[1]"), good())
    (inbox / "link" / ASSIGNMENT).mkdir(parents=True)
    notebook_of(inbox, "link").symlink_to(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    (inbox / "hard_link" / ASSIGNMENT).mkdir(parents=True)
    os.link(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", notebook_of(inbox, "hard_link"))
    (inbox / "linked_folder").mkdir()
    (inbox / "linked_folder" / ASSIGNMENT).symlink_to(root / "solutions" / ASSIGNMENT)
    write(inbox / "two" / ASSIGNMENT / "a.ipynb", good())
    write(inbox / "two" / ASSIGNMENT / "b.ipynb", good())
    write(notebook_of(inbox, "odd_date"), good())
    (inbox / "odd_date" / ASSIGNMENT / "timestamp.txt").write_text("yesterday, I think")
    (inbox / "good" / ASSIGNMENT / "peek").symlink_to(root / "solutions")
    os.mkfifo(inbox / "good" / ASSIGNMENT / "pipe")
    (inbox / "good" / ASSIGNMENT / "data").mkdir()
    (inbox / "good" / ASSIGNMENT / "data" / "table.csv").write_text("1,2")
    (inbox / "good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb.d.ipynb").mkdir()
    (inbox / "good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb.d.ipynb" / "x.txt").write_text("x")
    (inbox / ".hidden").mkdir()
    return Graded(root, inbox, grade_here(root, inbox, dated=True))


@pytest.mark.parametrize(
    ("student", "score", "failed", "needs_manual"),
    [
        ("good", 2 + 1 + 3, [], True),
        ("half_good", 2 + 1, ["test_norm__value"], False),
        ("blank", 0, ["test_double__value", "test_double__list", "test_norm__value"], False),
        ("easier_test", 2 + 1, ["test_norm__value"], True),  # the test was put back
        ("deleted_test", 2 + 1 + 3, [], True),
        ("writes_to_stderr", 2 + 1 + 3, [], True),  # which would cost the points in nbgrader
        ("renamed", 2 + 1 + 3, [], True),
        ("surrogate", 2 + 1 + 3, [], True),
        ("what[1]", 2 + 1 + 3, [], True),  # a pattern, for nbgrader's own commands
    ],
)
def test_scores(graded, student, score, failed, needs_manual):
    mark = graded.marks[student]
    assert (mark.problem, automatic(mark)) == ("", (score, 6))
    assert (mark.score(), mark.points()) == (score, 10)
    assert [cell.name for cell in mark.failures] == failed
    assert mark.needs_manual == needs_manual
    assert results.find(graded.data / "results" / ASSIGNMENT, student) == mark
    assert mark.feedback and all(path.is_file() for path in mark.feedback)


def test_reasons_say_what_failed(graded):
    [failure] = graded.marks["half_good"].failures
    assert failure.reason == "AssertionError"
    assert graded.marks["blank"].failures[0].reason == "NotImplementedError"
    assert "NameError: name 'norm' is not defined" in graded.marks["easier_test"].failures[0].reason
    assert any("julia" in note for note in graded.marks["easier_test"].notes)
    assert any("test_norm__value" in note for note in graded.marks["deleted_test"].notes)
    assert any("mine (1).ipynb" in note for note in graded.marks["renamed"].notes)


def test_the_message_is_whole_but_no_traceback(tmp_path):
    notebook = tiny_notebook()
    text = "✗ t = 3: mean: got 1.2, want 1.33\n  Likely cause: √ᾱ for ᾱ. Lecture 19 §2"
    notebook.cells[2].source = f"print('✓ the shape: (3,)')\nprint('now')\nassert double(2) == 5, {text!r}"
    root = make_course(tmp_path, notebook)
    shutil.copytree(BY_HAND / "half_good", root / "inbox" / "half_good")
    cell = grade_here(root, root / "inbox")["half_good"].cells[0]
    assert cell == Cell(
        "test_double__value", 0.0, 2.0, False, False, f"{text.splitlines()[0]}", text, ("✓ the shape: (3,)",)
    )


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ("broken", rf"{ASSIGNMENT}\.ipynb is not JSON: Expecting value"),
        ("list", rf"{ASSIGNMENT}\.ipynb is JSON, but not a notebook"),
        ("two", rf"{ASSIGNMENT}\.ipynb is missing \(found: a\.ipynb, b\.ipynb\)"),
        ("empty", rf"{ASSIGNMENT}\.ipynb is missing \(found: no notebook\)"),
        ("nothing", f"nothing submitted: no folder nothing/{ASSIGNMENT}"),
        ("link", rf"{ASSIGNMENT}\.ipynb is missing"),
        ("hard_link", rf"{ASSIGNMENT}\.ipynb is missing"),
        ("linked_folder", "nothing submitted"),
        ("odd_date", "timestamp.txt holds no date: 'yesterday, I think'"),
    ],
)
def test_what_cannot_be_graded_has_a_reason_and_no_score(graded, student, reason):
    mark = graded.marks[student]
    assert re.search(reason, mark.problem)
    assert mark.cells == ()
    [page] = mark.feedback  # the only one: no page of last week
    assert [page] == list((graded.data / "feedback" / student / ASSIGNMENT).iterdir())
    assert "This could not be graded yet" in page.read_text()
    assert not (graded.data / "autograded" / student).joinpath(ASSIGNMENT).exists()
    assert auto_scores(graded, student) <= {None}  # not in the gradebook either


def auto_scores(graded: Graded, student: str) -> set[float | None]:
    query = """select g.auto_score from grade g join submitted_notebook n on g.notebook_id = n.id
               join submitted_assignment a on n.assignment_id = a.id where a.student_id = ?"""
    with sqlite3.connect(graded.data / "gradebook.db") as connection:
        return {score for (score,) in connection.execute(query, [student])}


def test_everybody_has_a_line_and_nobody_else(graded):
    assert list(graded.marks) == sorted(p.name for p in graded.inbox.iterdir() if p.name != ".hidden")


def test_links_and_pipes_are_left_out_and_other_files_kept(graded):
    for step in ("submitted", "autograded"):
        folder = graded.data / step / "good" / ASSIGNMENT
        assert not (folder / "peek").exists() and not (folder / "pipe").exists()
        assert (folder / "data" / "table.csv").read_text() == "1,2"
    assert {note for note in graded.marks["good"].notes if "left out" in note} == {
        "peek was left out: a link",
        "pipe was left out: not a file (a pipe, a socket, or a device)",
    }
    assert any("a second name" in note for note in graded.marks["hard_link"].notes)


def test_formgrader_finds_the_executed_notebook(graded):
    path = graded.data / "autograded" / "half_good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    cells = {c.metadata.nbgrader.grade_id: c for c in nbformat.read(path, as_version=4).cells if c.metadata}
    assert [o.ename for o in cells["test_norm__value"].outputs] == ["AssertionError"]
    assert path.stat().st_mode & 0o777 == 0o444
    with graded.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "blank")
        assert {comment.name: comment.auto_comment for comment in notebook.comments} == dict.fromkeys(
            ("double", "norm", "why"), "No response."
        )


def test_table_and_csv(graded, tmp_path):
    marks = list(graded.marks.values())
    console = Console(record=True, width=160)
    show(marks, console)
    lines = console.export_text().splitlines()
    row = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.split()[:1] and line.startswith("  ")}
    assert row["half_good"] == "3 / 10 3 / 6 1 of 3 nothing"
    assert row["good"] == "6 / 10 6 / 6 0 of 3 why"
    assert row["broken"].startswith("– – – could not grade: ")
    assert row["test_norm__value"] == "3 of 9 NameError: name 'norm' is not defined"  # half_good, blank, easier_test

    write_csv(marks, tmp_path / "scores" / "week1.csv")
    with (tmp_path / "scores" / "week1.csv").open(newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows["half_good"]["score"] == "3.0" and rows["half_good"]["max_score"] == "10.0"
    assert (rows["half_good"]["test_double__list"], rows["half_good"]["test_norm__value"]) == ("1.0", "0.0")
    assert (rows["good"]["needs_manual"], rows["good"]["why"]) == ("yes", "")
    assert rows["broken"]["status"] == "could not grade" and "JSON" in rows["broken"]["problem"]
    assert (rows["broken"]["score"], rows["broken"]["test_norm__value"]) == ("", "")


# --- seeds, keys, tables, commands --------------------------------------------------------------------------------


def test_seeds_differ_and_stay(week):
    seeds = {(s, a): student_seed(s, a) for s in ("ada", "bob", "ad") for a in ("a01", "a02", "aa01")}
    assert len(set(seeds.values())) == 9 and max(seeds.values()) < 2**32
    assert student_seed("ada", "a01") == 3434182905


def test_the_key_covers_all_that_a_mark_depends_on(week):
    task = a_task(week)
    key = task.key
    assert a_task(week).key == key
    assert a_task(week, options=ExecutionOptions(sandbox=True)).key != key
    other = dataclasses.replace(task.assignment, files={"table.csv": b""})
    assert hand_in(week.inbox / "good" / ASSIGNMENT, "good", other, task.options).key != key
    assert hand_in(week.inbox / "good" / ASSIGNMENT, "god", task.assignment, task.options).key != key
    answer(week, "good", "why", "Because.")
    assert a_task(week).key != key


def a_task(week: Graded, options: ExecutionOptions | None = None) -> Submission:
    course = Course.at(week.root)
    ours = instructors_part(course, generate(course, [ASSIGNMENT], week.root / "released") / ASSIGNMENT)
    return hand_in(week.inbox / "good" / ASSIGNMENT, "good", ours, options or ExecutionOptions(sandbox=False))


def test_large_and_many_files_are_refused(week):
    folder = week.inbox / "good" / ASSIGNMENT
    with (folder / "large.bin").open("wb") as file:
        file.truncate(51 * 2**20)
    task = a_task(week)
    assert "large.bin was left out: larger than 50 MiB" in task.notes and "large.bin" not in task.files
    for number in range(5):
        with (folder / f"{number}.bin").open("wb") as file:
            file.truncate(45 * 2**20)
    assert "holds more than 200 MiB" in a_task(week).problem
    for path in folder.glob("*.bin"):
        path.unlink()
    for number in range(2001):
        (folder / f"{number}.txt").touch()
    assert "holds more than 2000 files" in a_task(week).problem


def test_a_large_class_is_summed_up():
    cells = (Cell("test_f", 1.0, 2.0, False, False, "AssertionError: no"), Cell("why", 0.0, 4.0, True, True, ""))
    marks = [Mark(f"s{i:04d}", "a01", cells=cells, penalty=float(i % 2)) for i in range(MOST_ROWS)]
    marks += [Mark("broken", "a01", problem="not JSON")] * 30
    console = Console(record=True, width=120)
    show(iter(marks), console)
    text = console.export_text()
    assert f"{MOST_ROWS} of {MOST_ROWS + 30} submissions graded, mean 50.0% of the automatic points" in text
    assert f"to mark by hand: {MOST_ROWS}; with a penalty for lateness: {MOST_ROWS // 2}" in text
    assert text.count("could not grade broken: not JSON") == 20 and "10 more" in text
    assert f"{MOST_ROWS} of {MOST_ROWS}" in text and "AssertionError: no" in text


def test_reference_must_reach_every_automatic_point(tmp_path):
    notebook = tiny_notebook()
    notebook.cells[5].source = "assert norm([3, 4]) == 6, 'wrong key'"
    root = make_course(tmp_path, notebook)
    [mark] = grade_reference(root, execute=execute_here)
    assert problems_of(mark) == [f"{ASSIGNMENT}: test_norm__value 0 / 3: AssertionError: wrong key"]
    assert not (root / "assignments").exists() and not (root / "classroom_data" / "gradebook.db").exists()
    [kept] = grade_reference(root, data=tmp_path / "data", execute=execute_here)
    assert automatic(kept) == (3, 6) and (tmp_path / "data" / "gradebook.db").is_file()


def test_bad_requests_are_answered(graded, tmp_path):
    with pytest.raises(CourseError, match=f"unknown assignment a99; there are: {ASSIGNMENT}"):
        grade(graded.root, "a99", graded.inbox)
    with pytest.raises(CourseError, match=r"no folder .*inboks"):
        grade(graded.root, ASSIGNMENT, graded.root / "inboks")
    with pytest.raises(CourseError, match="no submissions in"):
        grade(graded.root, ASSIGNMENT, tmp_path)


def test_by_default_what_nbgrader_collected_is_graded_where_it_is(week):
    submitted = week.data / "submitted"
    (submitted / "of_another_assignment" / "a91_other").mkdir(parents=True)
    (submitted / "good" / ASSIGNMENT / "timestamp.txt").write_text("2026-09-05 12:00:00 UTC")
    before = {path: path.stat().st_mtime_ns for path in submitted.rglob("*")}
    class_ = class_of(week.root, None, commit=True)
    assert {mark.student: mark.problem for mark in class_} == {"good": "", "half_good": ""}
    assert {path: path.stat().st_mtime_ns for path in submitted.rglob("*")} == before
    with week.gradebook() as gradebook:
        assert gradebook.find_submission(ASSIGNMENT, "good").timestamp == datetime.datetime(2026, 9, 5, 12)


def test_command_line(tmp_path, monkeypatch):
    root = make_course(tmp_path / "course")
    for folder in ("lectures", "course_lib"):
        (root / folder).mkdir()
    monkeypatch.chdir(root)
    shutil.copytree(BY_HAND / "half_good", root / "inbox" / "half_good")
    command = ["grade", "a90", "--submissions", "inbox", "--data", str(tmp_path / "private"), "--csv", "scores.csv"]
    command += ["--no-sandbox", "--workers", "1"]
    fine = CliRunner().invoke(app, command)
    assert fine.exit_code == 0, fine.output
    assert "WITHOUT A SANDBOX" in fine.output and "3 / 10" in fine.output
    assert str(tmp_path / "private" / "feedback" / "half_good") in fine.output
    assert (root / "scores.csv").is_file() and not (root / "classroom_data" / "gradebook.db").exists()

    (root / "inbox" / "nobody").mkdir()
    shutil.rmtree(root / "inbox" / "half_good")
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 1 and "could not grade" in failed.output and "WITHOUT A SANDBOX" in failed.output
    for wrong in (["grade"], ["grade", "a90", "--submissions", "inbox", "--reference"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2
    assert CliRunner().invoke(app, ["grade", "a99", "--submissions", "inbox"]).exit_code == 1


def test_configuration():
    course = Course.at(ROOT)
    assert course.folder("source") == ROOT / "solutions" and course.folder("release") == ROOT / "assignments"
    assert course.config.Execute.timeout == 120
    for step in ("submitted", "autograded", "feedback", "solution", "source_with_tests"):
        assert course.folder(step).is_relative_to(ROOT / "classroom_data")


def test_reference_solutions_are_graded_in_the_quick_budget():
    release, source = (nbformat.read(ROOT / f / REAL[0] / f"{REAL[0]}.ipynb", 4) for f in ("assignments", "solutions"))
    [parameters] = [
        c.source for c in in_quick_budget(answered(release, source)).cells if "parameters" in c.metadata.get("tags", [])
    ]
    assert 'BUDGET = "quick"' in parameters


@pytest.mark.slow
@pytest.mark.parametrize("assignment", REAL)
def test_real_assignment_good_half_good_and_blank(assignment, tmp_path):
    """In real kernels; the good one of each, since answers of every kind are tested without kernels elsewhere."""
    students = ("good", "half_good", "blank") if assignment in REAL[:2] else ("good",)
    course = Course.at(ROOT, tmp_path / "data")
    generate(course, [assignment], tmp_path / "release")
    released = in_quick_budget(nbformat.read(tmp_path / "release" / assignment / f"{assignment}.ipynb", as_version=4))
    source = course.sources(assignment)[assignment]
    marked = [
        c.metadata.nbgrader | {"is_code": c.cell_type == "code"} for c in source.cells if "nbgrader" in c.metadata
    ]
    points = {m["grade_id"]: m["points"] for m in marked if m["grade"] and not m["solution"]}
    functions = [m["grade_id"] for m in marked if m["solution"] and m["is_code"]]
    filled = functions[::2]
    answers = {"good": None, "half_good": filled, "blank": []}
    for student in students:
        only = answers[student]
        write(tmp_path / "inbox" / student / assignment / f"{assignment}.ipynb", answered(released, source, only))

    class_ = grade(ROOT, assignment, tmp_path / "inbox", tmp_path / "data", Choices(Place(1), sandbox=False))
    marks = {mark.student: mark for mark in class_}
    assert {mark.problem for mark in marks.values()} == {""}
    full = sum(points.values())
    expected = sum(p for test, p in points.items() if test.removeprefix("test_").split("__")[0] in filled)
    assert 0 < expected < full
    for student, score in zip(students, (full, expected, 0), strict=False):
        assert automatic(marks[student]) == (score, full), marks[student].failures
        assert marks[student].needs_manual is (student == "good")
