"""Submissions that gain nothing but cost others something: time, memory, disk, a terminal, the right reason."""

from __future__ import annotations

import threading
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.execution import (
    LONGEST_MESSAGE,
    MOST_OUTPUT,
    MOST_OUTPUTS,
    ExecutionOptions,
    _Guarded,
    execute_submission,
)
from course_lib.classroom.grade import instructors_part
from course_lib.classroom.normalize import MOST_CELLS, read_submission
from course_lib.classroom.release import generate, release
from course_lib.classroom.safe_html import LONGEST, markdown2html
from course_lib.classroom.similarity import Piece, tokens
from course_lib.classroom.submission import MOST_NOTES, grade_one, hand_in
from course_lib.classroom.watchdog import Watchdog
from tests.classroom.hostile import HONEST, answered, source
from tests.classroom.sandboxes import needs_sandbox
from tests.classroom.stand_in import execute_here
from tests.classroom.tiny_course import ASSIGNMENT, make_course, tiny_notebook, write

# the other end of the seal, with one byte a second: each wait for the next byte is short
DRIBBLES = """\
import struct
import time

from course_lib.classroom.seal import student


def dribbled(self, head, buffers):
    self.frames.stream.sendall(struct.pack("!II", 1000, 0))  # 1,000 bytes will come
    for byte in bytes(1000):
        self.frames.stream.sendall(bytes([byte]))
        time.sleep(1)


student.Student._answer = dribbled"""
# honest until the test is over
DRIBBLES_LATE = DRIBBLES.replace(
    "student.Student._answer = dribbled",
    """\
forget = student.Student.forget


def late(self):
    if hasattr(self, "kept"):  # it is not just being made
        dribbled(self, None, None)
    forget(self)


student.Student.forget = late""",
)


@needs_sandbox
@pytest.mark.parametrize("why", [DRIBBLES, DRIBBLES_LATE], ids=["at once", "when the test is over"])
def test_who_answers_byte_by_byte_loses_the_tests_and_is_graded(why, tmp_path):
    options = ExecutionOptions(cell_timeout=3.0)
    executed = execute_submission(answered(setup=why, **HONEST), source(), tmp_path, 0, options)
    assert executed.problem == ""
    failed = [o.evalue for c in executed.notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert len(failed) >= 4
    assert "not run: " in failed[-1] or "no answer" in failed[-1]


def test_time_used_up_in_an_instructors_cell_is_no_failure_of_the_grader(tmp_path):
    """Also if it is over while the checker runs a cell of the instructor's: no "could not grade" for who is slow."""
    theirs = source()
    test = next(i for i, c in enumerate(theirs.cells) if c.metadata.get("nbgrader", {}).get("grade"))
    slow = 'import time\n\nclose_to = 1\ntime.sleep(30 if "__course_desk__" in globals() else 0)'
    theirs.cells.insert(test, new_code_cell(slow))
    theirs.cells[test + 1].source = "assert close_to\n" + theirs.cells[test + 1].source
    executed = execute_submission(theirs, theirs, tmp_path, 0, ExecutionOptions(sandbox=False, total_timeout=8.0))
    assert executed.problem == ""
    errors = [o.evalue for o in executed.notebook.cells[test + 1].outputs if o.output_type == "error"]
    assert errors == ["the notebook took longer than 8 s"]


@needs_sandbox
def test_nothing_stays_open_after_a_submission(tmp_path):
    """A worker grades hundreds; with what stayed open of each, the watchdog gave up after forty."""
    counts = []
    for _ in range(3):
        execute_submission(source(), source(), tmp_path, 0, ExecutionOptions())
        counts.append((psutil.Process().num_fds(), threading.active_count()))
    assert counts[0] == counts[1] == counts[2]


@needs_sandbox
def test_code_that_cannot_be_watched_does_not_run_on(tmp_path, monkeypatch):
    def gives_up(self: Watchdog) -> None:
        raise ValueError("out of order")

    monkeypatch.setattr(Watchdog, "_judge", gives_up)
    with pytest.raises(CourseError, match=r"does not start.*out of order"):
        execute_submission(source(), source(), tmp_path, 0, ExecutionOptions())
    monkeypatch.undo()
    judge, looks = Watchdog._judge, []

    def gives_up_later(self: Watchdog) -> None:
        looks.append(judge(self))
        if len(looks) > 30:
            raise ValueError("out of order")

    monkeypatch.setattr(Watchdog, "_judge", gives_up_later)
    waits = answered(setup="import time\ntime.sleep(60)", **HONEST)
    executed = execute_submission(waits, source(), tmp_path, 0, ExecutionOptions())
    assert executed.problem == "could not be watched: ValueError: out of order"


class _Iopub:
    """Messages as a kernel sends them, handed to the client without one."""

    def __init__(self) -> None:
        self.cells = [new_code_cell("") for _ in range(40)]
        self.client = _Guarded(new_notebook(cells=self.cells), None)
        self.client.clear_before_next_output = False  # as before a cell

    def send(self, index: int, kind: str, **content: object) -> None:
        self.client._seen = 0
        message = {"msg_type": kind, "header": {"msg_type": kind}, "content": content, "parent_header": {}}
        self.client.process_message(message, self.cells[index], index)

    def size(self) -> int:
        return len(nbformat.writes(new_notebook(cells=self.cells)))


def test_outputs_of_many_cells_are_cut_together():
    kernel = _Iopub()
    for index in range(40):
        kernel.send(index, "stream", name="stdout", text="x" * MOST_OUTPUT)
    assert MOST_OUTPUTS <= kernel.size() < 1.1 * MOST_OUTPUTS
    kernel.send(39, "error", ename="ValueError", evalue="told", traceback=["y" * MOST_OUTPUT])
    [error] = [o for o in kernel.cells[39].outputs if o.output_type == "error"]
    assert (error.evalue, error.traceback) == ("told", [])  # without it, the cell would pass for one that ran


def test_a_huge_error_is_cut():
    kernel = _Iopub()
    kernel.send(0, "error", ename="E" * 10_000, evalue="x" * (5 << 20), traceback=["t"])
    assert kernel.size() < 10 * LONGEST_MESSAGE
    assert kernel.cells[0].outputs


def _graded(tmp_path: Path, notebook: nbformat.NotebookNode, ours: dict[str, str], theirs: dict[str, str]):
    root = make_course(tmp_path / "course")
    for name, text in ours.items():
        path = root / "solutions" / ASSIGNMENT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    course = Course.at(root)
    part = instructors_part(course, generate(course, [ASSIGNMENT], tmp_path / "out") / ASSIGNMENT)
    folder = write(tmp_path / "in" / f"{ASSIGNMENT}.ipynb", notebook).parent
    for name, text in theirs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return grade_one(hand_in(folder, "s", part, ExecutionOptions(sandbox=False)), execute_here).mark


def test_messages_do_not_steer_a_terminal(tmp_path):
    """Clearing the screen, setting the title or the clipboard, also hidden from a filter that runs once."""
    notebook = tiny_notebook()
    spiteful = "\x1b\x1b[0m[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\u202e"
    notebook.cells[1].source = f"def double(x):\n    raise ValueError({spiteful!r} + 'said')"
    mark = _graded(tmp_path, notebook, {}, {})
    cell = mark.cells[0]
    for text in (cell.reason, cell.message):
        assert "said" in text
        assert text.isprintable()


def test_notes_are_no_more_than_anybody_reads(tmp_path):
    notebook = tiny_notebook()
    for number in range(5 * MOST_NOTES):
        cell = new_code_cell("")
        cell.metadata["nbgrader"] = {"grade_id": f"unknown{number}"}
        notebook.cells.append(cell)
    mark = _graded(tmp_path, notebook, {}, {})
    assert len(mark.notes) == MOST_NOTES + 1
    assert "more" in mark.notes[-1]
    assert mark.score(manual=False) == 6


def test_files_in_the_place_of_the_instructors_are_left_out(tmp_path):
    ours = {"data/table.csv": "1", "plain.txt": "2"}
    mark = _graded(tmp_path, tiny_notebook(), ours, {"data": "3", "plain.txt/x": "4"})
    assert mark.problem == ""
    left_out = [note for note in mark.notes if "was left out" in note]
    assert sorted(note.partition(" ")[0] for note in left_out) == ["data", "plain.txt/x"]
    assert mark.score(manual=False) == 6


def test_a_notebook_of_too_many_cells_is_not_built(tmp_path):
    """Two million cells are 50 MB of text, and gigabytes as objects of the grader."""
    path = tmp_path / "many.ipynb"
    path.write_text('{"nbformat": 4, "cells": [' + ",".join(['{"cell_type":"raw"}'] * (MOST_CELLS + 1)) + "]}")
    with pytest.raises(CourseError, match=r"20,001 cells; 20,000 are looked at"):
        read_submission(path)
    old = '{"nbformat": 3, "worksheets": [{"cells": [' + ",".join(['{"cell_type":1}'] * 100_000) + "]}]}"
    path.write_text(old)
    with pytest.raises(CourseError, match="old notebook format"):
        read_submission(path)


@pytest.mark.parametrize("quote", ['"', "'", '"""', "'''"])
def test_a_quotation_without_end_is_looked_for_once(quote):
    """Each of its inner quotation marks could begin another one: 200,000 characters took three minutes."""
    text = quote + f"\\{quote}" * 50_000
    assert len(tokens(Piece("c", True, text, text))) < 3
    assert [t for t, _, _ in tokens(Piece("c", True, "", "f('a', \"b\\\"c\") + '''d\n'e'''"))] == [
        *("f", "(", "'a'", ",", '"b\\"c"', ")", "+", "'''d\n'e'''")
    ]


def test_a_very_long_text_is_shown_as_it_is():
    """What nbconvert makes of it takes time with the square of its length: formgrader would stand still."""
    assert "<em>" in markdown2html("*a* " + "b" * (LONGEST - 4))
    long = markdown2html("<script>" + "\\begin{a}" * (LONGEST // 9))
    assert long.startswith("<pre>&lt;script&gt;")


def test_a_test_must_not_end_with_a_value_of_the_students(tmp_path):
    notebook = tiny_notebook()
    test = notebook.cells[2]
    for line, found in {
        "double(4)": 1,
        "[double(4)]": 1,
        "double": 1,
        "y = double(4)": 0,
        "double.x(4)": 1,
        "print(double(4))": 0,
        "check.close(double(4), 8)": 0,
    }.items():
        test.source = f"import check\nassert double(2) == 4\n{line}"
        problems = release(make_course(tmp_path / "course", notebook)).problems
        assert [("test_double__value ends with a value" in p) for p in problems] == found * [True], line
