"""`course grade`: a class's submissions to marks, feedback and tables, with one task a student and one writer."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import find_all_files, is_solution
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_lib.classroom import results, sandbox
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.execution import ExecutionOptions, execute_submission
from course_lib.classroom.feedback import write_feedback
from course_lib.classroom.register import Register
from course_lib.classroom.regrade import SHOWN, Change, Waiting, changes, show_changes
from course_lib.classroom.release import generate
from course_lib.classroom.run import INTERRUPTED, interruptible
from course_lib.classroom.scores import Mark, show, write_csv
from course_lib.classroom.submission import UNDATED, Assignment, Execute, Graded, Submission, hand_in
from course_lib.classroom.workforce import Place, carry_out

REFERENCE = "reference"

Announce = Callable[[str, int, int], None]  # whose mark is there, how many there are now, of how many

UNTRUSTED = (
    "[bold]The submissions run WITHOUT A SANDBOX.[/bold]\n"
    "A submitted notebook is a program: it can read and change your files, the solutions and the gradebook, use the "
    "network, and fake its own marks. Grade only what you trust, on a machine that has nothing to lose."
)


@dataclass(frozen=True)
class Choices:
    """The command line of `course grade`; see there.

    Attributes:
        place: who grades.
        resume: what has a result of equal key is not graded again.
        commit: write marks that differ from those in the gradebook.
        sandbox: contain the submissions.
        dated: believe the `timestamp.txt` beside the notebooks; those that nbgrader collected are believed anyway.
    """

    place: Place = field(default_factory=Place)
    resume: bool = False
    commit: bool = False
    sandbox: bool = True
    dated: bool = False


@dataclass
class Class:
    """What became of a class; iterate over it for the marks, which are read one at a time, as often as wanted.

    Attributes:
        students: in the order of their names.
        outcome: how many were committed, kept (nothing to do), waiting (they differ, and were not committed).
        changed: the first changes of marks; `changes` counts them all, and `waiting.table` has them.
        undated: how many brought a `timestamp.txt` that was not believed.
        troubles: what else needs somebody's attention.
    """

    assignment: str
    students: Sequence[str]
    folder: Path
    waiting: Waiting
    outcome: Counter[str] = field(default_factory=Counter)
    changed: list[Change] = field(default_factory=list)
    changes: int = 0
    undated: int = 0
    troubles: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Mark]:
        for student in self.students:
            new = self.waiting.get(student)
            mark = new.mark if new else results.find(self.folder, student)
            if mark is not None:  # None: the run was interrupted before
                yield mark


def grade(
    root: Path | str,
    assignment: str,
    submissions: Path | str | None = None,
    data: Path | str | None = None,
    choices: Choices | None = None,
    announce: Announce = lambda student, number, of: None,
    execute: Execute = execute_submission,
) -> Class:
    """Grade `submissions/<student>/<assignment>/*.ipynb`.

    A first grading is written to the gradebook at once; where a student has marks that would change, the new ones wait
    for `choices.commit`. Stopped in the middle, all that is written stays good: `choices.resume` goes on from there.

    Args:
        root: the course folder.
        assignment: its name.
        submissions: one folder a student, hidden ones are left out; default: what nbgrader collected.
        data: where gradebook, results and feedback go; default: the configured folder.
        choices: how.
        announce: called with each student's name when the mark is there, with how many are and the total.
        execute: what runs a normalized notebook.

    Raises:
        CourseError: unknown assignment, no submissions, a sandbox without its parts, or marks that would be lost.
    """
    choices = choices or Choices()
    if choices.sandbox and choices.place.scheduler is None:  # a scheduler's workers are asked for themselves
        sandbox.require()
    course = Course.at(root, data)
    [assignment] = course.assignments([assignment])
    students, folders, troubles = _students(course, assignment, submissions)
    options = _options(course, choices.sandbox)
    dated = choices.dated or folders.resolve() == course.folder("submitted").resolve()
    with Register(course, assignment, write_feedback) as register:
        register.check_change(set(students))
        with tempfile.TemporaryDirectory(prefix="course_grade_") as work:
            ours = instructors_part(course, generate(course, [assignment], Path(work)) / assignment)
        waiting = Waiting(course.data / "regrades" / assignment)
        waiting.start()
        class_ = Class(assignment, students, register.results, waiting, troubles=troubles)
        done = 0

        def settle(student: str, kind: str) -> None:
            nonlocal done
            done += 1
            class_.outcome[kind] += 1
            announce(student, done, len(students))

        def tasks() -> Iterator[Submission]:
            for student in students:
                task = hand_in(folders / student / assignment, student, ours, options, dated)
                class_.undated += UNDATED in task.notes
                new = waiting.get(student) if choices.resume or choices.commit else None
                old = results.find(register.results, student) if choices.resume else None
                if new is not None and new.mark.key == task.key:
                    settle(student, _decide(register, class_, task, new, choices.commit))
                elif old is not None and old.key == task.key and register.is_kept(old):
                    waiting.drop(student)
                    register.refresh(old)
                    settle(student, "kept")
                else:
                    yield task

        with contextlib.closing(carry_out(tasks(), choices.place, execute)) as graded:
            for task, result in graded:
                settle(task.student, _decide(register, class_, task, result, choices.commit))
        class_.troubles += register.troubles
    return class_


def _decide(register: Register, class_: Class, task: Submission, graded: Graded, commit: bool) -> str:
    """Write a result, or keep it waiting if it changes marks and nobody has said that it may."""
    found = changes(register, graded, task.files)
    class_.waiting.note(found)
    class_.changes += len(found)
    class_.changed += found[: SHOWN - len(class_.changed)]
    if (found or register.stale) and not commit:
        class_.waiting.put(replace(graded, mark=register.preview(graded)))
        return "waiting"
    register.record(graded, task.files)
    class_.waiting.drop(task.student)
    return "committed"


def _students(course: Course, assignment: str, submissions: Path | str | None) -> tuple[list[str], Path, list[str]]:
    """Names of the students, the folder that holds theirs, and what is wrong with names that are left out."""
    collected = course.folder("submitted")
    folders = Path(submissions) if submissions is not None else collected
    expected = f"<student>/{assignment}/{assignment}.ipynb"
    if not folders.is_dir():
        raise CourseError(f"no folder {folders}; it should hold {expected}")
    names = sorted(p.name for p in folders.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders.resolve() == collected.resolve():  # of all assignments: who is not in it has handed in nothing
        names = [name for name in names if (folders / name / assignment).is_dir()]
    excluded = course.config.CourseDirectory.get("student_id_exclude", "").split(",")
    students = [name for name in names if name.isprintable() and name not in excluded]
    odd = [f"left out the folder {name!a}: its name is not plain text" for name in names if not name.isprintable()]
    if not students:
        raise CourseError(f"no submissions in {folders}; expected {expected}")
    return students, folders, odd


def _options(course: Course, sandboxed: bool) -> ExecutionOptions:
    options = ExecutionOptions(sandbox=sandboxed)
    timeout = course.config.Execute.get("timeout", None)
    return options if timeout is None else replace(options, cell_timeout=float(timeout))


def instructors_part(course: Course, released: Path) -> Assignment:
    """The assignment released in a folder of its name, as tasks need it: sources, released blanks, other files."""
    assignment = released.name
    blank = {
        path.stem: {
            cell.metadata.nbgrader.grade_id: cell.source
            for cell in nbformat.read(path, as_version=4).cells
            if is_solution(cell)
        }
        for path in released.glob("*.ipynb")
    }
    folder = course.folder("source", assignment=assignment)
    ignore = [*course.config.CourseDirectory.get("ignore", [".ipynb_checkpoints", "*.pyc", "__pycache__"]), "*.ipynb"]
    theirs = course.config.Autograde.get("exclude_overwriting", {}).get(assignment, [])
    names = [Path(path).relative_to(folder).as_posix() for path in find_all_files(str(folder), ignore)]
    return Assignment(
        assignment,
        {name: nbformat.writes(notebook) for name, notebook in course.sources(assignment).items()},
        blank,
        {name: (folder / name).read_bytes() for name in sorted(names) if name not in theirs},
    )


def answered(release: NotebookNode, source: NotebookNode, only: Collection[str] | None = None) -> NotebookNode:
    """A submission: the released notebook with solution cells filled from the source.

    Args:
        release, source: the two versions of a notebook.
        only: grade_ids of the cells to fill; default: all.
    """
    answers = {c.metadata.nbgrader.grade_id: c.source for c in source.cells if is_solution(c)}
    submission = copy.deepcopy(release)
    for cell in filter(is_solution, submission.cells):
        name = cell.metadata.nbgrader.grade_id
        if only is None or name in only:
            cell.source = answers[name]
    return submission


def in_quick_budget(notebook: NotebookNode) -> NotebookNode:
    """The notebook, changed to do as little training as it can: nothing that is graded depends on it."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('BUDGET = "full"', 'BUDGET = "quick"')
    return notebook


def grade_reference(
    root: Path | str,
    chosen: Sequence[str] = (),
    data: Path | str | None = None,
    workers: int | None = None,
    announce: Announce = lambda assignment, number, of: None,
    execute: Execute = execute_submission,
) -> list[Mark]:
    """Hand in the reference solutions as student `reference` and grade them, with sealed tests like anybody's.

    They are the instructor's own programs, so they run without the sandbox: this works on any machine.

    Args:
        root: the course folder.
        chosen: names of assignments; default: all.
        data: keep gradebook, results and feedback here; default: no gradebook learns of it.
        workers: how many at a time; default: one a core.
        announce: called with each assignment's name when its mark is there, with how many are and the total.
        execute: what runs a normalized notebook.
    """
    course = Course.at(root)
    options = _options(course, sandboxed=False)
    names = course.assignments(chosen)
    marks: dict[str, Mark] = {}
    with tempfile.TemporaryDirectory(prefix="course_reference_") as temporary:
        handed_in = generate(course, names, Path(temporary, REFERENCE))
        parts = {name: instructors_part(course, handed_in / name) for name in names}
        for name in names:
            for stem, source in course.sources(name).items():
                path = handed_in / name / f"{stem}.ipynb"
                nbformat.write(in_quick_budget(answered(nbformat.read(path, as_version=4), source)), path)
        if data is not None:
            choices = Choices(Place(workers), commit=True, sandbox=False)
            for number, name in enumerate(names):
                [marks[name]] = grade(root, name, temporary, data, choices, execute=execute)
                announce(name, number + 1, len(names))
            return [marks[name] for name in names]
        tasks = (hand_in(handed_in / name, REFERENCE, parts[name], options) for name in names)
        with contextlib.closing(carry_out(tasks, Place(workers), execute)) as graded:
            for task, result in graded:
                marks[task.assignment.name] = result.mark
                announce(task.assignment.name, len(marks), len(names))
    return [marks[name] for name in names]


def problems_of(mark: Mark) -> list[str]:
    """What keeps a reference solution from being one: every automatic point must be reached."""
    if mark.problem:
        return [f"{mark.assignment}: could not grade: {mark.problem}"]
    if not mark.points(manual=False):
        return [f"{mark.assignment}: no autograded points"]
    return [f"{mark.assignment}: {c.name} {c.score:g} / {c.points:g}: {c.reason}" for c in mark.failures]


def reference_with_report(
    root: Path,
    chosen: Sequence[str],
    csv_file: Path | None,
    data: Path | None,
    workers: int | None,
    console: Console,
    execute: Execute = execute_submission,
) -> int:
    """What `course grade --reference` does; returns its exit code: 1 unless every automatic point was reached."""
    try:
        with interruptible(), _progress(console) as announce:
            marks = grade_reference(root, chosen, data, workers, announce, execute)
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    show(marks, console)
    if csv_file is not None:
        _save_csv(marks, csv_file, console)
    problems = [problem for mark in marks for problem in problems_of(mark)]
    for problem in problems:
        console.print(f"the reference fails its own test: {problem}", style="red", markup=False, soft_wrap=True)
    return 1 if problems else 0


def grade_with_report(
    root: Path,
    assignment: str,
    submissions: Path | None,
    csv_file: Path | None,
    data: Path | None,
    choices: Choices,
    console: Console,
    execute: Execute = execute_submission,
) -> int:
    """What `course grade ASSIGNMENT` does; returns its exit code: 1 if something could not be graded.

    Args:
        root, assignment, submissions, data, choices, execute: as for `grade`.
        csv_file: write the scores here, if given.
        console: where to print.

    Raises:
        CourseError: as `grade`.
    """
    if not choices.sandbox:
        console.print(Panel(UNTRUSTED, title="untrusted code", style="red", box=box.HEAVY))
    try:
        with interruptible(), _progress(console) as announce:
            class_ = grade(root, assignment, submissions, data, choices, announce, execute)
    except KeyboardInterrupt:
        console.print("interrupted: what was graded is written; the same command with --resume goes on from there")
        return INTERRUPTED
    show(class_, console)
    show_changes(class_.changed, class_.changes, class_.waiting.table, choices.commit, console)
    if csv_file is not None:
        _save_csv(class_, csv_file, console)
    for trouble in class_.troubles:
        console.print(trouble, style="red", markup=False, soft_wrap=True)
    if class_.undated:
        console.print(
            f"timestamp.txt not believed, nobody late by it: {class_.undated} of {len(class_.students)}. If you (or "
            "your learning platform) wrote them, and not the students, say --timestamps",
            highlight=False,
            soft_wrap=True,
        )
    kinds = {
        "committed": "written to the gradebook",
        "kept": "unchanged, not graded again",
        "waiting": "with marks that would change: not written; --resume --commit writes exactly these",
    }
    for kind, words in kinds.items():
        if class_.outcome[kind]:
            console.print(f"{class_.outcome[kind]} {words}", highlight=False, soft_wrap=True)
    return 1 if class_.troubles or any(mark.problem for mark in class_) else 0


def _save_csv(marks: Iterable[Mark], path: Path, console: Console) -> None:
    write_csv(marks, path)
    console.print(f"scores as CSV: {path}", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Announce]:
    """A bar with the time left on a terminal; elsewhere a line after every twentieth of the class."""
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bars = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=600
    )
    with bars:
        bar = bars.add_task("grading", total=None)

        def announce(name: str, number: int, of: int) -> None:
            bars.update(bar, completed=number, total=of)
            if not console.is_terminal and of > 20 and number * 20 // of > (number - 1) * 20 // of:
                console.print(f"{number} of {of} graded", highlight=False)

        yield announce
