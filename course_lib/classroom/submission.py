"""One submission from its files to marks: what a Dask task does, with plain data in and plain data out.

The task sees neither gradebook nor course folder: the submitted files and the instructor's notebooks come with it, so a
worker on another machine needs nothing but the same version of this package.
"""

from __future__ import annotations

import compileall
import contextlib
import copy
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import determine_grade, is_grade, is_solution, is_task

import course_lib
from course_lib.classroom.course import CourseError
from course_lib.classroom.execution import Executed, ExecutionOptions, execute_submission
from course_lib.classroom.normalize import harmless_outputs, normalize, quarantine, read_submission, unwanted
from course_lib.classroom.pages import printable
from course_lib.classroom.results import from_plain, to_plain
from course_lib.classroom.scores import Cell, Mark
from course_lib.core import thread_limit

TIMESTAMP = "timestamp.txt"  # as `nbgrader collect` writes it
MOST_FILES = 2000
LONGEST_PATH = 500
MOST_MIB_A_FILE = 50
MOST_MIB = 200
LONGEST_NAME = 128  # of a student, in nbgrader's gradebook
LONGEST_MESSAGE = 2000
MOST_PASSED = 100
MOST_NOTES = 50
# Modules of this package that come before grading or after it: changing them leaves every mark as it is.
NO_MARKS = {
    *("attack", "attacks", "bundle", "class_report", "cli", "doctor", "execute", "exports", "feedback"),
    *("item_analysis", "lab", "pages", "progress", "report", "run", "similarity", "train", "worker"),
}
UNDATED = f"{TIMESTAMP} was left out: it says when the work was handed in, and must not come with it"
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

Execute = Callable[[NotebookNode, NotebookNode, Path, int, ExecutionOptions], Executed]


@dataclass(frozen=True)
class Assignment:
    """What the instructor has, as it was when the run began.

    Attributes:
        name: of the assignment.
        notebooks: source notebooks with solutions and hidden tests, as JSON, by name.
        blank: by notebook, the released text of each solution cell by grade_id: who hands that in has not answered.
        files: the other files of the source folder; they replace submitted ones of the same name.
    """

    name: str
    notebooks: dict[str, str]
    blank: dict[str, dict[str, str]]
    files: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Submission:
    """A task for `grade_one`.

    Attributes:
        student: whose.
        assignment: of what.
        files: what was handed in, by relative path.
        notes: what of it was left out.
        options: how to execute it.
        key: see `key_of`.
        problem: why it could not even be read; empty if it could.
    """

    student: str
    assignment: Assignment
    files: dict[str, bytes] = field(repr=False)
    notes: tuple[str, ...]
    options: ExecutionOptions
    key: str
    problem: str = ""


@dataclass(frozen=True)
class Graded:
    """What `grade_one` found.

    Attributes:
        mark: the student's, with automatic scores only.
        scores: (notebook, cell, automatic score or None where a person marks) in the order of `mark.cells`.
        unanswered: (notebook, cell) of the solution cells that are as they were released.
        notebooks: executed notebooks as JSON, by name.
    """

    mark: Mark
    scores: tuple[tuple[str, str, float | None], ...] = ()
    unanswered: tuple[tuple[str, str], ...] = ()
    notebooks: dict[str, str] = field(default_factory=dict, repr=False)

    def to_plain(self) -> dict[str, Any]:
        """As dictionaries, lists, strings and numbers."""
        return asdict(self) | {"mark": to_plain(self.mark)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Graded:
        """Inverse of `to_plain`, also after JSON has turned its tuples into lists."""
        pairs = {name: tuple(map(tuple, plain[name])) for name in ("scores", "unanswered")}
        return cls(**{**plain, **pairs, "mark": from_plain(plain["mark"])})


def student_seed(student: str, assignment: str) -> int:
    """Seed of a student's hidden inputs, below 2³²: the same whenever and wherever the submission is graded."""
    return int.from_bytes(hashlib.sha256(f"{student}\0{assignment}".encode()).digest()[:4], "big")


@cache
def grader_version() -> str:
    """Digest of what can change a mark beside the notebooks: this library (students import it) and nbgrader."""
    digest = hashlib.sha256()
    package = Path(course_lib.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.parent.name == "classroom" and path.stem in NO_MARKS:
            continue
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    for name in ("nbgrader", "numpy", "torch"):
        digest.update(f"{name} {version(name)}\0".encode())
    return digest.hexdigest()


def key_of(student: str, assignment: Assignment, files: Mapping[str, bytes], options: ExecutionOptions) -> str:
    """Digest of all that a submission's automatic marks depend on: who (for the seed), what, the tests, the grader."""
    digest = hashlib.sha256()
    for text in (student, assignment.name, json.dumps(assignment.notebooks, sort_keys=True), repr(options)):
        digest.update(text.encode() + b"\0")
    for kind, named in (("theirs", files), ("ours", assignment.files)):
        for name in sorted(named):
            digest.update(f"{kind} {name}\0{len(named[name])}\0".encode() + named[name])
    digest.update(grader_version().encode())
    return digest.hexdigest()


def hand_in(
    folder: Path, student: str, assignment: Assignment, options: ExecutionOptions, dated: bool = False
) -> Submission:
    """Read `folder` without following a link, and make it a task; what cannot be read is a task with a problem.

    Args:
        folder: of one student and assignment.
        student, assignment, options: see `Submission`.
        dated: the instructor's side wrote the `timestamp.txt`; otherwise whoever handed in could have done so.
    """
    try:
        files, notes = read_files(folder, f"{student}/{assignment.name}")
        if len(student) > LONGEST_NAME:
            raise CourseError(f"the folder's name is longer than the gradebook's {LONGEST_NAME} characters")
    except CourseError as error:
        key = key_of(student, assignment, {"problem": str(error).encode()}, options)
        return Submission(student, assignment, {}, (), options, key, str(error))
    if not dated and files.pop(TIMESTAMP, None) is not None:
        notes = (*notes, UNDATED)
    return Submission(student, assignment, files, notes, options, key_of(student, assignment, files, options))


def read_files(folder: Path, shown: str) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Every regular file below `folder` by relative path, and in words what was left out.

    A link could lead to the solutions or to another student's work; a second name of a file (a hard link) as well.

    Args:
        folder: of one student and assignment.
        shown: what to call it in messages.

    Raises:
        CourseError: no such folder, or more in it than anybody hands in.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise CourseError(f"nothing submitted: no folder {shown}")
    files: dict[str, bytes] = {}
    notes, total = [], 0
    for path in _walk(folder, shown):
        name = path.relative_to(folder).as_posix()
        if len(name) > LONGEST_PATH or not name.isprintable():
            notes.append(f"{_short(ascii(name))} was left out: its name is too long, or not plain text")
            continue
        try:  # whatever it is replaced by meanwhile: a link is not followed, and a pipe not waited for
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            notes.append(f"{name} was left out: {unwanted(path.lstat(), MOST_MIB_A_FILE) or error.strerror}")
            continue
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            why = unwanted(status, MOST_MIB_A_FILE)
            if why:
                notes.append(f"{name} was left out: {why}")
                continue
            total += status.st_size
            if total > MOST_MIB * 2**20:
                raise CourseError(f"{shown} holds more than {MOST_MIB} MiB")
            files[name] = file.read(MOST_MIB_A_FILE * 2**20)
    return files, tuple(notes)


def _walk(folder: Path, shown: str) -> Iterator[Path]:
    number = 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in (".ipynb_checkpoints", "__pycache__")]
        number += len(folders) + len(names)
        if number > MOST_FILES:
            raise CourseError(f"{shown} holds more than {MOST_FILES} files")
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in sorted(names + linked))


@cache
def compiled() -> None:
    """Write the library's byte code where that is possible: a sandboxed kernel cannot, and would compile every time."""
    compileall.compile_dir(Path(course_lib.__file__).parent, quiet=2)


def grade_one(submission: Submission, execute: Execute = execute_submission) -> Graded:
    """Grade a submission in a temporary folder of its own.

    Whatever the submission does, this returns; an exception means that the machinery around it failed.

    Args:
        submission: the task.
        execute: what runs a normalized notebook.
    """
    mark = Mark(submission.student, submission.assignment.name, notes=submission.notes, key=submission.key)
    compiled()
    try:
        if submission.problem:
            raise CourseError(submission.problem)
        with tempfile.TemporaryDirectory(prefix="course-grade-", ignore_cleanup_errors=True) as temporary:
            graded = _as_unicode(_grade_in(Path(temporary), submission, mark, execute))
    except CourseError as error:
        graded = Graded(replace(mark, problem=str(error)[:LONGEST_MESSAGE]))
    except Exception as error:  # a submission that our own code stumbles over must not cost the others their marks
        what = f"{type(error).__name__}: {_first_line(str(error))}"
        graded = Graded(replace(mark, problem=f"the grader itself failed on it: {what}", key=""))
    return replace(graded, mark=from_plain(_printable(to_plain(graded.mark))))


def _grade_in(folder: Path, submission: Submission, mark: Mark, execute: Execute) -> Graded:
    notes, ours = [*mark.notes], submission.assignment.files
    for name, data in {**submission.files, **ours}.items():
        if any(own.startswith(f"{name}/") or name.startswith(f"{own}/") for own in ours):
            notes.append(f"{name} was left out: the assignment has a file of its own there")
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    notes, attempts = notes + quarantine(folder), [*mark.attempts]
    prepared = {}
    for name, text in submission.assignment.notebooks.items():
        source = nbformat.reads(text, as_version=4)
        notebook, more_notes, more_attempts = normalize(read_submission(folder / f"{name}.ipynb"), source)
        notes += more_notes
        attempts += more_attempts
        prepared[name] = (notebook, source)
    seed = student_seed(submission.student, submission.assignment.name)
    cells: list[Cell] = []
    scores, unanswered, executed_notebooks = [], [], {}
    seconds, peak = 0.0, 0.0
    for name, (notebook, source) in prepared.items():
        try:
            executed = execute(notebook, source, folder, seed, submission.options)
        except CourseError as error:
            executed = Executed(notebook, 0.0, 0.0, (), str(error))
        seconds, peak = seconds + executed.seconds, max(peak, executed.peak_mib)
        attempts += executed.attempts
        if executed.problem:
            mark = replace(mark, problem=executed.problem, key="")  # it may well go through the next time
            break
        blank = submission.assignment.blank[name]
        for cell in executed.notebook.cells:
            harmless_outputs(cell)  # formgrader shows them
            if is_grade(cell) or is_task(cell):
                found, score = marked(cell, blank)
                cells.append(found)
                scores.append((name, found.name, score))
            if is_solution(cell) and is_untouched(cell, blank):
                unanswered.append((name, cell.metadata.nbgrader.grade_id))
        executed_notebooks[name] = nbformat.writes(executed.notebook)
    mark = replace(mark, seconds=seconds, peak_mib=peak, notes=_once(notes), attempts=_once(attempts))
    if mark.problem:
        return Graded(mark)
    return Graded(replace(mark, cells=tuple(cells)), tuple(scores), tuple(unanswered), executed_notebooks)


def _as_unicode(graded: Graded) -> Graded:
    """With question marks for lone surrogates: a notebook may contain them, but no file or gradebook takes them."""
    text = json.dumps(graded.to_plain(), ensure_ascii=False)
    return Graded.from_plain(json.loads(text.encode(errors="replace")))


def is_untouched(cell: NotebookNode, blank: Mapping[str, str]) -> bool:
    """Whether a solution cell is as it was released, or empty."""
    return cell.source.strip() in ("", blank.get(cell.metadata.nbgrader.grade_id, "").strip())


def marked(cell: NotebookNode, blank: Mapping[str, str]) -> tuple[Cell, float | None]:
    """The mark of an executed cell, and its automatic score: None where a person marks what was answered.

    Raises:
        CourseError: the instructor's test gives more points than the cell has.
    """
    name, points = cell.metadata.nbgrader.grade_id, float(cell.metadata.nbgrader.points)
    if is_task(cell) or is_solution(cell) or cell.cell_type != "code":
        score = 0.0 if is_grade(cell) and is_solution(cell) and is_untouched(cell, blank) else None
        return Cell(name, score or 0.0, points, manual=True, waiting=score is None, reason=""), score
    try:
        score, _ = determine_grade(_forgiven(cell))
    except ValueError as error:
        raise CourseError(f"the test {name} is wrong: {error}") from error
    reason, message = explain(cell) if score < points else ("", "")
    passed = [line for line in _printed(cell).splitlines() if line.startswith("✓")]
    mark = Cell(name, float(score), points, False, False, reason, message, tuple(map(_short, passed[:MOST_PASSED])))
    return mark, float(score)


def _forgiven(cell: NotebookNode) -> NotebookNode:
    """The cell without what it wrote to stderr, which costs all points in nbgrader: a warning is not a wrong answer."""
    cell = copy.copy(cell)
    cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    return cell


def explain(cell: NotebookNode) -> tuple[str, str]:
    """Why a test cell did not get its points: on one line, and in full."""
    for output in cell.outputs:
        if output.output_type == "error":
            text = COLOURS.sub("", str(output.evalue)).strip()
            if not text.startswith("✗"):  # the course's own checks say all there is to say
                text = f"{output.ename}: {text}".removesuffix(": ")
            return _first_line(text), text[:LONGEST_MESSAGE]
        if output.output_type == "execute_result":
            text = f"its last value was read as points: {_first_line(output.data.get('text/plain', ''))}"
            return text, text
    return "", ""


def _printed(cell: NotebookNode) -> str:
    streams = [o for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"]
    return COLOURS.sub("", "".join(str(output.text) for output in streams))


def _first_line(text: str) -> str:
    return _short(next((line.strip() for line in text.splitlines() if line.strip()), ""))


def _short(line: str) -> str:
    return line if len(line) <= 160 else line[:159] + "…"


def _once(texts: list[str]) -> tuple[str, ...]:
    """Each text once, and no more than anybody reads."""
    different = list(dict.fromkeys(text[:LONGEST_MESSAGE] for text in texts))
    more = len(different) - MOST_NOTES
    return (*different[:MOST_NOTES], *([f"… and {more} more of this kind"] if more > 0 else []))


def _printable(plain: Any) -> Any:
    """Without control characters: a message of the student's code must not steer the instructor's terminal."""
    if isinstance(plain, dict):
        return {key: _printable(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_printable(value) for value in plain]
    return printable(plain) if isinstance(plain, str) else plain


@contextlib.contextmanager
def kernel_environment() -> Iterator[None]:
    """What kernels started inside inherit: one core's threads, and this environment's kernel before any other."""
    changes = {**thread_limit(1), "COURSE_HEADLESS": "1", "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": ""}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
