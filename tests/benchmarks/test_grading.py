"""Grading: the price of the sandbox and the seal against stock nbgrader, and what a second worker brings.

Wall time, because the work is done in kernels: run it on a quiet machine. Both sides alternate in one run. The number
of students of the large class is in COURSE_BENCHMARK_CLASS (200).
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbgrader.converters import Autograde

from course_lib.classroom import grade as grading
from course_lib.classroom import sandbox
from course_lib.classroom.course import Course
from course_lib.classroom.grade import Choices, grade
from course_lib.classroom.release import generate, release
from course_lib.classroom.submission import kernel_environment
from course_lib.classroom.workforce import Place
from tests.classroom.tiny_course import ASSIGNMENT, make_course, tiny_notebook, write

ROUNDS = 3
TORCH = "import torch\n\n"

pytestmark = pytest.mark.skipif(
    bool(sandbox.missing_parts()), reason="the sandbox lacks: " + str(sandbox.missing_parts())
)


def a_course(folder: Path, torch: bool, students: int) -> tuple[Path, Path]:
    """A course of one small assignment and a folder of good submissions, each a little different."""
    notebook = tiny_notebook()
    if torch:
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") in ("double", "test_double__value"):
                cell.source = TORCH + cell.source
    root = make_course(folder / "course", notebook)
    release(root)
    inbox = folder / "inbox"
    for number in range(students):
        answered = nbformat.from_dict(notebook)
        answered.cells[0].source = f"# I am number {number}"
        write(inbox / f"student{number:04d}" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", answered)
    return root, inbox


def stock(root: Path, inbox: Path, data: Path) -> None:
    """nbgrader's own autograde, one student after the other, kernels ended at once."""
    course = Course.at(root, data)
    generate(course, [ASSIGNMENT], data / "release", remember=True)
    for student in sorted(p.name for p in inbox.iterdir()):
        shutil.copytree(inbox / student / ASSIGNMENT, course.folder("submitted", student, ASSIGNMENT))
        with kernel_environment():
            course.nbgrader(Autograde, ASSIGNMENT, student)


def seconds(run, *arguments) -> float:
    begin = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - begin


def sealed(root: Path, inbox: Path, data: Path, workers: int = 1) -> None:
    """Ours; every submission must get its points, or the time means nothing."""
    marks = list(grade(root, ASSIGNMENT, inbox, data, Choices(Place(workers))))
    assert [mark.problem for mark in marks] == [""] * len(marks)
    assert {mark.score(manual=False) for mark in marks} == {6.0}


@pytest.mark.parametrize("torch", [False, True], ids=["plain", "torch"])
def test_sealed_against_stock(torch, tmp_path):
    """At most twice stock nbgrader's time for a submission that imports torch."""
    count = 4
    root, inbox = a_course(tmp_path, torch, count)
    pairs = []
    for number in range(ROUNDS):
        ours = seconds(sealed, root, inbox, tmp_path / f"sealed{number}") / count
        theirs = seconds(stock, root, inbox, tmp_path / f"stock{number}") / count
        pairs.append((ours, theirs))
    ratio = statistics.median(a / b for a, b in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"\n{'torch' if torch else 'plain'}: sealed {ours:.2f} s, stock {theirs:.2f} s, ratio {ratio:.2f}")
    assert ratio <= 2.0 or not torch


def rate(root: Path, inbox: Path, data: Path, workers: int) -> tuple[float, float]:
    """Submissions a second once the first are done, and seconds until then."""
    begin, times = time.perf_counter(), []
    choices = Choices(Place(workers))
    grade(root, ASSIGNMENT, inbox, data, choices, lambda *_: times.append(time.perf_counter() - begin))
    return (len(times) - workers) / (times[-1] - times[workers - 1]), times[workers - 1]


def test_two_workers_against_one(tmp_path):
    """Two workers do at least 1.7 times the work of one; what it takes to start them is shown."""
    if len(psutil.Process().cpu_affinity()) < 2:
        pytest.skip("one core only")
    root, inbox = a_course(tmp_path, True, 24)
    ratios, starts = [], []
    for number in range(ROUNDS):
        one, begun = rate(root, inbox, tmp_path / f"one{number}", 1)
        two, both_begun = rate(root, inbox, tmp_path / f"two{number}", 2)
        ratios.append(two / one)
        starts.append(both_begun - begun)
    print(f"\ntwo workers: {statistics.median(ratios):.2f} times one; {statistics.median(starts):.1f} s more to start")
    assert statistics.median(ratios) >= 1.7


def test_a_class_in_one_go(tmp_path, monkeypatch):
    """Every one of many students gets a mark; figures for docs/grading.md."""
    count = int(os.environ.get("COURSE_BENCHMARK_CLASS", "200"))
    root, inbox = a_course(tmp_path, True, count)
    decide, writing, memory = grading._decide, [], []

    def timed(*arguments):
        begin = time.perf_counter()
        kind = decide(*arguments)
        writing.append(time.perf_counter() - begin)
        memory.append(psutil.Process().memory_info().rss / 2**20)
        return kind

    monkeypatch.setattr(grading, "_decide", timed)
    took = seconds(sealed, root, inbox, tmp_path / "data", 2)
    again = seconds(resumed, root, inbox, tmp_path / "data")
    first, last = (statistics.median(part) for part in (writing[: count // 10], writing[-count // 10 :]))
    print(
        f"\n{count} submissions: {took:.0f} s, {took / count:.2f} s each on two workers; {again:.1f} s to find all done"
    )
    print(
        f"the writer: {sum(writing) / took:.1%} of it, {first * 1e3:.0f} ms each at first, {last * 1e3:.0f} in the end"
    )
    print(f"memory of the parent: {memory[count // 10]:.0f} MiB after a tenth, at most {max(memory):.0f} MiB")
    assert len(writing) == count  # nobody was graded again by the second run


def resumed(root: Path, inbox: Path, data: Path) -> None:
    class_ = grade(root, ASSIGNMENT, inbox, data, Choices(Place(2), resume=True))
    assert set(class_.outcome) == {"kept"}
