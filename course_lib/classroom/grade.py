"""Grade a folder of submissions with nbgrader: marks, what failed and why, feedback, a table, CSV.

There is no sandbox here: the submitted code runs with the rights of whoever grades it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode, ValidationError
from nbgrader.api import MissingEntry
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.utils import is_grade, is_locked, is_solution, is_task, rmtree
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.release import generate
from course_lib.classroom.scores import Cell, Mark, show, write_csv
from course_lib.core import thread_limit

REFERENCE = "reference"
GLOB_CHARACTERS = "*?["  # nbgrader takes a student's name for a pattern

Announce = Callable[[str, int, int], None]  # name, how many came before it, of how many

UNTRUSTED = (
    "[bold]The submissions run WITHOUT A SANDBOX.[/bold]\n"
    "A submitted notebook is a program: it can read and change your files, the solutions and the gradebook, use the "
    "network, and fake its own marks. Grade only what you trust, on a machine that has nothing to lose."
)


def grade(
    root: Path | str,
    assignment: str,
    submissions: Path | str,
    data: Path | str | None = None,
    on_student: Announce = lambda student, number, of: None,
) -> list[Mark]:
    """Grade `submissions/<student>/<assignment>/*.ipynb`, in the order of the students' names.

    Args:
        root: the course folder.
        assignment: its name.
        submissions: one folder a student; hidden folders are left out.
        data: where gradebook, copies and feedback go; default: the configured folder.
        on_student: called with each student's name before that student is graded, with a number and the total.

    Raises:
        CourseError: unknown assignment, no submissions, or a gradebook whose marks would be lost.
    """
    course = Course.at(root, data)
    [assignment] = course.assignments([assignment])
    submissions = Path(submissions)
    if not submissions.is_dir():
        raise CourseError(f"no folder {submissions}; it should hold <student>/{assignment}/{assignment}.ipynb")
    students = sorted(p.name for p in submissions.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not students:
        raise CourseError(f"no submissions in {submissions}; expected <student>/{assignment}/{assignment}.ipynb")
    _teach_gradebook(course, assignment, students)
    marks = []
    for number, student in enumerate(students):
        on_student(student, number, len(students))
        marks.append(_grade_one(course, assignment, student, submissions / student / assignment))
    return marks


def _teach_gradebook(course: Course, assignment: str, students: Collection[str]) -> None:
    """Bring the gradebook's copy of the assignment up to date, without losing a mark that is not made anew now."""
    sources = course.sources(assignment)
    with course.gradebook() as gradebook:
        try:
            known = gradebook.find_assignment(assignment)
        except MissingEntry:
            known = None
        if (
            known
            and known.submissions
            and {n.name: _known_cells(n) for n in known.notebooks}
            != {name: _source_cells(notebook) for name, notebook in sources.items()}
        ):  # nbgrader refuses to change which cells there are once there are submissions
            grades = [grade for s in known.submissions for notebook in s.notebooks for grade in notebook.grades]
            if {s.student.id for s in known.submissions} - set(students) or any(
                grade.manual_score is not None or grade.extra_credit is not None for grade in grades
            ):
                raise CourseError(
                    f"the cells of {assignment} have changed since {course.config.CourseDirectory.db_url} got its "
                    "marks, and some of those (manual marks, or students who are not in this folder) would be lost. "
                    "Move the gradebook away, or grade into another folder with --data"
                )
            gradebook.remove_assignment(assignment)
    with tempfile.TemporaryDirectory(prefix="course_grade_") as work:
        generate(course, [assignment], Path(work), remember=True)


def _source_cells(notebook: NotebookNode) -> set[tuple[str, bool, bool, bool]]:
    marked = [c for c in notebook.cells if is_grade(c) or is_solution(c) or is_locked(c) or is_task(c)]
    return {(c.metadata.nbgrader.grade_id, bool(is_grade(c)), bool(is_solution(c)), bool(is_task(c))) for c in marked}


def _known_cells(notebook) -> set[tuple[str, bool, bool, bool]]:
    kinds = [
        {cell.name for cell in cells} for cells in (notebook.grade_cells, notebook.solution_cells, notebook.task_cells)
    ]
    return {(cell.name, *(cell.name in kind for kind in kinds)) for cell in notebook.source_cells}


def _grade_one(course: Course, assignment: str, student: str, submitted: Path) -> Mark:
    _forget(course, assignment, student)
    try:
        _check(course, assignment, student, submitted)
        _copy(submitted, course.folder("submitted", student, assignment))
        with _kernel_environment():
            course.nbgrader(Autograde, assignment, student)
        cells = _read_marks(course, assignment, student)
        course.nbgrader(GenerateFeedback, assignment, student)
    except CourseError as error:
        _forget(course, assignment, student)
        return Mark(student, assignment, problem=str(error))
    feedback = sorted(course.folder("feedback", student, assignment).glob("*.html"))
    return Mark(student, assignment, cells=tuple(cells), feedback=tuple(feedback))


def _forget(course: Course, assignment: str, student: str) -> None:
    """Clear the automatic marks and remove the feedback: what cannot be graded must not keep last week's."""
    for step in ("autograded", "feedback"):
        folder = course.folder(step, student, assignment)
        if folder.is_dir():
            rmtree(str(folder))
    with course.gradebook() as gradebook, contextlib.suppress(MissingEntry):
        for notebook in gradebook.find_submission(assignment, student).notebooks:
            for grade in notebook.grades:
                grade.auto_score, grade.needs_manual_grade = None, True
        gradebook.db.commit()


def _check(course: Course, assignment: str, student: str, submitted: Path) -> None:
    """Raises CourseError with the reason if nbgrader could not grade this, or would not grade all of it."""
    if any(character in student for character in GLOB_CHARACTERS) or student != student.strip():
        raise CourseError(f"nbgrader cannot handle the folder name {student!r} (blanks at the ends, or *, ?, [)")
    if not submitted.is_dir():
        raise CourseError(f"nothing submitted: no folder {student}/{assignment}")
    for name, source in course.sources(assignment).items():
        path = submitted / f"{name}.ipynb"
        if path.is_symlink():
            raise CourseError(f"{path.name} is a link, not a file")
        if not path.is_file():
            found = ", ".join(sorted(p.name for p in submitted.glob("*.ipynb"))) or "no notebook"
            raise CourseError(f"{path.name} is missing (found: {found})")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(plain, dict) or "cells" not in plain:
                raise CourseError(f"{path.name} is JSON, but not a notebook of format 4")
            cells = nbformat.reads(json.dumps(plain), as_version=4).cells
            ids = {cell.metadata.nbgrader.grade_id for cell in cells if is_grade(cell)}
        except ValueError as error:
            raise CourseError(f"{path.name} is not JSON: {error}") from error
        except (AttributeError, KeyError, TypeError, ValidationError) as error:
            raise CourseError(f"{path.name} is not a notebook: {type(error).__name__}: {error}") from error
        wanted = {c.metadata.nbgrader.grade_id for c in source.cells if is_grade(c)}
        if wanted - ids:
            raise CourseError(f"graded cells are missing from {path.name}: {', '.join(sorted(wanted - ids))}")
        if ids - wanted:
            surplus = ", ".join(sorted(map(str, ids - wanted)))
            raise CourseError(f"{path.name} has graded cells that are not in the assignment (any more): {surplus}")


def _copy(submitted: Path, target: Path) -> None:
    """Copy regular files; a link could point to the solutions."""
    if submitted.resolve() == target.resolve():
        return
    if target.exists():
        rmtree(str(target))

    def skipped(folder: str, names: list[str]) -> list[str]:
        paths = [Path(folder, name) for name in names]
        return [p.name for p in paths if p.is_symlink() or not (p.is_file() or p.is_dir())]

    shutil.copytree(submitted, target, ignore=skipped)


@contextlib.contextmanager
def _kernel_environment() -> Iterator[None]:
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


def _read_marks(course: Course, assignment: str, student: str) -> list[Cell]:
    cells = []
    with course.gradebook() as gradebook:
        for name in course.sources(assignment):
            path = course.folder("autograded", student, assignment) / f"{name}.ipynb"
            for cell in filter(is_grade, nbformat.read(path, as_version=4).cells):
                mark = gradebook.find_grade(cell.metadata.nbgrader.grade_id, name, assignment, student)
                manual = cell.cell_type != "code" or bool(is_solution(cell))
                if not manual and mark.auto_score is None:
                    raise CourseError(f"nbgrader gave no mark to {mark.name}")
                reason = "" if manual or mark.score >= mark.max_score else _reason(cell)
                cells.append(
                    Cell(mark.name, float(mark.score), float(mark.max_score), manual, mark.needs_manual_grade, reason)
                )
    return cells


def _reason(cell: NotebookNode) -> str:
    """Why nbgrader did not give a test cell its points; it goes through the outputs in the same order."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"{output.ename}: {_first_line(output.evalue)}".removesuffix(": ")
        if output.output_type == "stream" and output.name == "stderr":
            return f"wrote to stderr, which costs the points: {_first_line(output.text)}"
        if output.output_type == "execute_result":
            return f"its last value was read as points: {_first_line(output.data.get('text/plain', ''))}"
    return "changed by hand in the gradebook"


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 160 else line[:159] + "…"


def answered(release: NotebookNode, source: NotebookNode, only: Collection[str] | None = None) -> NotebookNode:
    """A submission: the released notebook with solution cells filled from the source.

    Args:
        release, source: the two versions of a notebook.
        only: grade_ids of the cells to fill; default: all.
    """
    answers = {c.metadata.nbgrader.grade_id: c.source for c in source.cells if is_solution(c)}
    submission = nbformat.from_dict(json.loads(nbformat.writes(release)))
    for cell in filter(is_solution, submission.cells):
        name = cell.metadata.nbgrader.grade_id
        if only is None or name in only:
            cell.source = answers[name]
    return submission


def grade_reference(
    root: Path | str,
    chosen: Sequence[str] = (),
    data: Path | str | None = None,
    on_assignment: Announce = lambda assignment, number, of: None,
) -> list[Mark]:
    """Hand in the reference solutions as student `reference` and grade them like anybody's.

    Args:
        root: the course folder.
        chosen: names of assignments; default: all.
        data: keep gradebook and feedback here; default: a temporary folder, gone afterwards.
        on_assignment: called with each assignment's name before it is graded, with a number and the total.
    """
    course = Course.at(root)
    marks = []
    with tempfile.TemporaryDirectory(prefix="course_reference_") as temporary:
        work = Path(temporary)
        names = course.assignments(chosen)
        released = generate(course, names, work / "release")
        for number, assignment in enumerate(names):
            on_assignment(assignment, number, len(names))
            folder = work / "submissions" / assignment / REFERENCE / assignment
            shutil.copytree(released / assignment, folder)
            for name, source in course.sources(assignment).items():
                path = folder / f"{name}.ipynb"
                nbformat.write(answered(nbformat.read(path, as_version=4), source), path)
            marks += grade(root, assignment, work / "submissions" / assignment, data or work / "data")
    return marks if data else [replace(mark, feedback=()) for mark in marks]


def problems_of(mark: Mark) -> list[str]:
    """What keeps a reference solution from being one: every automatic point must be reached."""
    if mark.problem:
        return [f"{mark.assignment}: could not grade: {mark.problem}"]
    if not mark.points(manual=False):
        return [f"{mark.assignment}: no autograded points"]
    return [f"{mark.assignment}: {c.name} {c.score:g} / {c.points:g}: {c.reason}" for c in mark.failures]


def grade_with_report(
    root: Path,
    assignment: str | None,
    submissions: Path | None,
    csv_file: Path | None,
    data: Path | None,
    console: Console,
) -> int:
    """What `course grade` does; returns its exit code.

    Args:
        root: the course folder.
        assignment: its name; with the reference solutions, None means all.
        submissions: the folder to grade; None: the reference solutions.
        csv_file: write the scores here, if given.
        data: another folder for gradebook and feedback than the configured one.
        console: where to print.

    Raises:
        CourseError: as `grade`.
    """
    if submissions is not None:
        console.print(Panel(UNTRUSTED, title="untrusted code", style="red", box=box.HEAVY))
    columns = (TextColumn("grading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("…", total=None)

        def tell(name: str, number: int, of: int) -> None:
            bar.update(task, description=escape(name), completed=number, total=of)

        if submissions is None:
            marks = grade_reference(root, [assignment] if assignment else (), data, tell)
        else:
            marks = grade(root, str(assignment), submissions, data, tell)
    show(marks, console)
    if csv_file is not None:
        write_csv(marks, csv_file)
        console.print(f"scores as CSV: {csv_file}", markup=False, highlight=False, soft_wrap=True)
    if submissions is None:
        problems = [problem for mark in marks for problem in problems_of(mark)]
        for problem in problems:
            console.print(f"the reference fails its own test: {problem}", style="red", markup=False, soft_wrap=True)
    else:
        problems = [mark.problem for mark in marks if mark.problem]
    return 1 if problems else 0
