"""The one writer of `course grade`: to the gradebook, the folders that formgrader reads, and the results."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry, Notebook, SubmittedAssignment
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, IgnorePattern, LimitOutput
from nbgrader.utils import is_grade, is_locked, is_solution, is_task, parse_utc, rmtree
from sqlalchemy.exc import SAWarning

from course_lib.classroom import results
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.release import generate
from course_lib.classroom.scores import Mark
from course_lib.classroom.submission import TIMESTAMP, Graded

BUSY_SECONDS = 60  # how long to wait for another program's lock on the gradebook (formgrader's, say)

WriteFeedback = Callable[[Mark, dict[str, NotebookNode], Path], tuple[Path, ...]]


class Register:
    """Marks of one assignment; use it in a `with`, which keeps a second `course grade` out.

    Args:
        course: whose.
        assignment: its name.
        write_feedback: makes a student's pages in a folder and returns their paths.

    Attributes:
        troubles: feedback that could not be written, and why.
        stale: the gradebook has marks of the assignment with other cells or points than it has now.

    Raises:
        CourseError: another `course grade` writes here, or the assignment has changed and marks would be lost.
    """

    def __init__(self, course: Course, assignment: str, write_feedback: WriteFeedback) -> None:
        self.course, self.assignment, self.write_feedback = course, assignment, write_feedback
        self.results = course.data / "results" / assignment
        self.sources = course.sources(assignment)
        self._exit = contextlib.ExitStack()
        self._taught = False
        self.troubles: list[str] = []
        self.stale = self._replaced = False
        for hook in ("pre_convert_hook", "post_convert_hook"):
            if hook in course.config.Autograde or hook in course.config.BaseConverter:
                raise CourseError(f"nbgrader_config.py sets {hook}, which `course grade` does not run: take it out")

    def __enter__(self) -> Register:
        self.course.data.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as entered:
            entered.enter_context(_alone(self.course.data / "grading.lock"))
            entered.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy; no loss comes of it
            url = self.course.config.CourseDirectory.db_url
            if url.startswith("sqlite:///") and "?" not in url:
                url += f"?timeout={BUSY_SECONDS}"
            self.url = url
            self.gradebook = Gradebook(url, self.course.config.CourseDirectory.course_id)
            entered.callback(self.gradebook.close)
            self._exit = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    # what the gradebook holds

    def scores(self, student: str) -> dict[tuple[str, str], tuple[float, float]]:
        """(Automatic score, possible points) by (notebook, cell); empty if the student has no automatic mark."""
        submission = self._submission(student)
        if submission is None:
            return {}
        return {
            (notebook.name, grade.name): (grade.auto_score, grade.max_score)
            for notebook in submission.notebooks
            for grade in notebook.grades
            if grade.auto_score is not None
        }

    def timestamp(self, student: str) -> datetime | None:
        """When the submission that has the marks was handed in, in UTC."""
        submission = self._submission(student)
        return submission and submission.timestamp

    def _submission(self, student: str) -> SubmittedAssignment | None:
        self.gradebook.db.rollback()  # see what formgrader has written meanwhile
        try:
            return self.gradebook.find_submission(self.assignment, student)
        except MissingEntry:
            return None

    # the assignment's cells

    def check_change(self, students: set[str]) -> None:
        """Compare the gradebook's cells of the assignment with those of the sources, and remember what differs.

        Args:
            students: who will be graded anew.

        Raises:
            CourseError: other cells, and marks would be lost that grading `students` does not make anew.
        """
        try:
            known = self.gradebook.find_assignment(self.assignment)
        except MissingEntry:
            return
        notebooks = {notebook.name: _known_cells(notebook) for notebook in known.notebooks}
        sources = {name: _source_cells(source) for name, source in self.sources.items()}
        self.stale = bool(known.submissions) and notebooks != sources
        if {name: set(cells) for name, cells in notebooks.items()} == {n: set(cells) for n, cells in sources.items()}:
            return
        # nbgrader refuses to change which cells there are once there are submissions
        self._replaced = self.stale
        marked = {submission.student.id for submission in known.submissions}
        by_hand = any(
            grade.manual_score is not None or grade.extra_credit is not None
            for submission in known.submissions
            for notebook in submission.notebooks
            for grade in notebook.grades
        )
        if by_hand or marked - students:
            url = self.course.config.CourseDirectory.db_url
            raise CourseError(
                f"the cells of {self.assignment} have changed since {url} got its marks, and some of those (manual "
                "marks, or students who are not in this folder) would be lost. Move the gradebook away, or grade into "
                "another folder with --data"
            )

    def _teach(self) -> None:
        """Bring the gradebook's copy of the assignment up to date; once, before the first mark is written."""
        if self._taught:
            return
        if self._replaced:
            self.gradebook.remove_assignment(self.assignment)
        self.gradebook.db.rollback()
        with tempfile.TemporaryDirectory(prefix="course_grade_") as work:
            generate(self.course, [self.assignment], Path(work), remember=True)
        self._taught = True

    # writing

    def record(self, graded: Graded, files: Mapping[str, bytes]) -> Mark:
        """Make `graded` the student's mark; manual scores stay.

        Args:
            graded: what the task returned.
            files: what was handed in, for `submitted/` and `autograded/`.

        Returns:
            The mark with what the gradebook adds: manual scores, penalty for lateness, feedback.
        """
        student, mark = graded.mark.student, graded.mark
        self._teach()
        if not mark.problem:
            try:
                when = timestamp_of(files)
            except CourseError as error:
                mark = replace(mark, problem=str(error), cells=())
        if mark.problem:
            self._clear(student)
        else:
            self._write_scores(graded, when, self._edited(graded))
            mark = self._with_gradebook(mark, [(notebook, cell) for notebook, cell, _ in graded.scores])
        self._write_folders(student, files, {} if mark.problem else graded.notebooks)
        return self._publish(mark)

    def preview(self, graded: Graded) -> Mark:
        """The mark that `record` would make, as far as scores by hand go; nothing is written."""
        submission = self._submission(graded.mark.student)
        by_hand = {
            (notebook.name, grade.name): grade.manual_score + (grade.extra_credit or 0.0)
            for notebook in (submission.notebooks if submission else ())
            for grade in notebook.grades
            if grade.manual_score is not None
        }
        cells = tuple(
            replace(cell, score=by_hand[notebook, name]) if (notebook, name) in by_hand else cell
            for cell, (notebook, name, _) in zip(graded.mark.cells, graded.scores, strict=True)
        )
        return replace(graded.mark, cells=cells)

    def refresh(self, mark: Mark) -> Mark:
        """The student's mark with what has changed in the gradebook since: manual marks, extensions, due date."""
        submission = None if mark.problem else self._submission(mark.student)
        if submission is None:
            return mark
        self._penalize(submission)
        names = [(notebook, cell) for notebook in self.sources for cell in self._order(notebook)]
        fresh = self._with_gradebook(mark, names)
        return mark if fresh == mark else self._publish(fresh)

    def is_kept(self, mark: Mark) -> bool:
        """Whether the gradebook (still) has the marks that `mark` says it has."""
        return bool(mark.problem) or len(mark.cells) == len(
            [grade for n in getattr(self._submission(mark.student), "notebooks", ()) for grade in n.grades]
        )

    def _order(self, notebook: str) -> list[str]:
        cells = self.sources[notebook].cells
        return [cell.metadata.nbgrader.grade_id for cell in cells if is_grade(cell) or is_task(cell)]

    def _publish(self, mark: Mark) -> Mark:
        """Feedback, then the result: what has one is done, and is not graded again by a run that is resumed."""
        feedback = self.course.folder("feedback", mark.student, self.assignment)
        if feedback.is_dir():
            rmtree(str(feedback))
        pages: tuple[Path, ...] = ()
        try:  # also where there is no mark: the page says why, and that it is no 0
            pages = self.write_feedback(mark, self.sources, feedback)
        except Exception as error:  # the mark is safe in the gradebook, and the others want theirs
            self.troubles.append(f"{mark.student}: no feedback page: {type(error).__name__}: {error}")
        mark = replace(mark, feedback=tuple(pages))
        results.save(self.results, mark)
        return mark

    def _write_scores(self, graded: Graded, when: datetime | None, edited: bool) -> None:
        student, scores = graded.mark.student, {(n, c): score for n, c, score in graded.scores}
        self.gradebook.update_or_create_student(student)
        timestamp = {} if when is None else {"timestamp": when}
        submission = self.gradebook.update_or_create_submission(self.assignment, student, **timestamp)
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                score = scores[notebook.name, grade.name]
                changed = edited or score != grade.auto_score
                by_hand = grade.manual_score is not None and (changed or grade.needs_manual_grade)
                grade.needs_manual_grade = by_hand or (score is None and grade.manual_score is None)
                grade.auto_score = score
            for comment in notebook.comments:
                blank = (notebook.name, comment.name) in graded.unanswered
                comment.auto_comment = "No response." if blank else None
        self._penalize(submission)

    def _edited(self, graded: Graded) -> bool:
        """Whether the student's work differs from what a person may have marked by hand."""
        folder = self.course.folder("autograded", graded.mark.student, self.assignment)
        for name, text in graded.notebooks.items():
            path = folder / f"{name}.ipynb"
            if not path.is_file():
                return True
            old, new = nbformat.read(path, as_version=4), nbformat.reads(text, as_version=4)
            if [cell.source for cell in old.cells] != [cell.source for cell in new.cells]:
                return True
        return False

    def _penalize(self, submission: SubmittedAssignment) -> None:
        """Late penalties as nbgrader's own step assigns them, by the configured plugin; commits."""
        names = [notebook.name for notebook in submission.notebooks]
        due = submission.assignment.duedate  # nbgrader fails on an extension of no due date
        late = due is not None and submission.total_seconds_late > 0
        if not late:
            for notebook in submission.notebooks:
                notebook.late_submission_penalty = None
        student = submission.student.id
        self.gradebook.db.commit()
        for name in names if late else ():
            place = {"notebook": name, "assignment": self.assignment, "student": student, "db_url": self.url}
            AssignLatePenalties(config=self.course.config).preprocess(nbformat.v4.new_notebook(), {"nbgrader": place})

    def _with_gradebook(self, mark: Mark, names: list[tuple[str, str]]) -> Mark:
        submission = self._submission(mark.student)
        grades = {(n.name, grade.name): grade for n in submission.notebooks for grade in n.grades}
        cells = tuple(
            replace(cell, score=float(grade.score), points=float(grade.max_score), waiting=grade.needs_manual_grade)
            for cell, grade in zip(mark.cells, (grades[name] for name in names), strict=True)
        )
        penalty = sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks)
        return replace(mark, cells=cells, penalty=float(penalty))

    def _clear(self, student: str) -> None:
        """Take back the automatic marks: what cannot be graded must not keep last week's."""
        submission = self._submission(student)
        for notebook in submission.notebooks if submission else ():
            notebook.late_submission_penalty = None
            for grade in notebook.grades:
                grade.auto_score, grade.needs_manual_grade = None, True
        self.gradebook.db.commit()

    def _write_folders(self, student: str, files: Mapping[str, bytes], executed: Mapping[str, str]) -> None:
        """`submitted/` and `autograded/`; the latter with nbgrader's permissions, and absent without notebooks."""
        submitted = self.course.folder("submitted", student, self.assignment)
        if not submitted.is_dir() or _content(submitted) != dict(files):
            _replace(submitted, files)
        autograded = self.course.folder("autograded", student, self.assignment)
        if not executed:
            if autograded.is_dir():
                rmtree(str(autograded))
            return
        others = {name: data for name, data in files.items() if ".ipynb" not in name}  # nor what is below x.ipynb/
        _replace(autograded, others | {f"{name}.ipynb": self._limited(text) for name, text in executed.items()})
        directory = CourseDirectory(config=self.course.config, assignment_id=self.assignment, student_id=student)
        Autograde(coursedir=directory, config=self.course.config).set_permissions(self.assignment, student)

    def _limited(self, text: str) -> bytes:
        """The executed notebook as nbgrader's `Autograde` leaves it for formgrader."""
        notebook = nbformat.reads(text, as_version=4)
        for step in (IgnorePattern, LimitOutput):
            notebook, _ = step(config=self.course.config).preprocess(notebook, {})
        return nbformat.writes(notebook).encode()


def timestamp_of(files: Mapping[str, bytes]) -> datetime | None:
    """When it was handed in, in UTC, if `timestamp.txt` says so.

    Raises:
        CourseError: it says something else: no lateness can be told from it.
    """
    text = files.get(TIMESTAMP, b"").decode(errors="replace").strip()
    try:
        return parse_utc(text) if text else None
    except (ValueError, OverflowError) as error:
        raise CourseError(f"{TIMESTAMP} holds no date: {text[:60]!r}") from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CourseError(f"another `course grade` is writing to {path.parent}; wait for it to end") from None
        yield


def _content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold `files` and nothing else."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        fresh = Path(temporary, "folder")
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(data)
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            rmtree(str(folder))
        fresh.rename(folder)


Kind = tuple[str, bool, bool, bool]  # grade_id; graded automatically, solution, task


def _source_cells(notebook: NotebookNode) -> dict[Kind, float | None]:
    """Points of a notebook's cells, None where there are none."""
    cells = [c for c in notebook.cells if is_grade(c) or is_solution(c) or is_locked(c) or is_task(c)]
    return {
        (c.metadata.nbgrader.grade_id, bool(is_grade(c)), bool(is_solution(c)), bool(is_task(c))): (
            float(c.metadata.nbgrader.points) if is_grade(c) or is_task(c) else None
        )
        for c in cells
    }


def _known_cells(notebook: Notebook) -> dict[Kind, float | None]:
    """The same of the gradebook's copy."""
    kinds = [
        {cell.name for cell in cells} for cells in (notebook.grade_cells, notebook.solution_cells, notebook.task_cells)
    ]
    points = {cell.name: float(cell.max_score) for cell in (*notebook.grade_cells, *notebook.task_cells)}
    return {(c.name, *(c.name in kind for kind in kinds)): points.get(c.name) for c in notebook.source_cells}
