"""The course folder as nbgrader sees it: configuration, folders, sources, and one door to nbgrader's converters."""

from __future__ import annotations

import copy
import json
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader


class CourseError(Exception):
    """Something the caller has to put right; the message says what."""


class _CourseDirectory(CourseDirectory):
    """nbgrader's, for folders outside the root whose names mean something in a regular expression ("C++")."""

    def format_path(self, nbgrader_step: str, student_id: str, assignment_id: str, escape: bool = False) -> str:
        step = re.escape(nbgrader_step) if escape else nbgrader_step
        return super().format_path(step, student_id, assignment_id, escape=escape)


@dataclass(frozen=True)
class Course:
    """A course folder as its `nbgrader_config.py` describes it.

    Attributes:
        root: the folder with `nbgrader_config.py`, `solutions/`, `assignments/`.
        config: nbgrader's configuration.
    """

    root: Path
    config: Config

    @classmethod
    def at(cls, root: Path | str, data: Path | str | None = None) -> Course:
        """Read the configuration of the course at `root`.

        Args:
            root: the course folder.
            data: another place for submissions, gradebook and feedback than the configured one; made if missing.

        Raises:
            CourseError: no configuration there, or one that does not run: grading must not go on without it.
        """
        root = Path(root).resolve()
        if not (root / "nbgrader_config.py").is_file():
            raise CourseError(f"no nbgrader_config.py in {root}: only the instructors' copy of the course can do this")
        try:
            config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
        except Exception as error:
            raise CourseError(f"{root / 'nbgrader_config.py'} does not run: {type(error).__name__}: {error}") from error
        config.CourseDirectory.root = str(root)
        if data is not None:
            data = Path(data).resolve()
            data.mkdir(parents=True, exist_ok=True)
            for step in ("submitted", "autograded", "feedback", "solution", "source_with_tests"):
                config.CourseDirectory[f"{step}_directory"] = str(data / step)
            config.CourseDirectory.db_url = f"sqlite:///{data / 'gradebook.db'}"
        return cls(root, config)

    def releasing_to(self, folder: Path, *, remember: bool) -> Course:
        """The same course with another folder for released assignments; the gradebook may learn of them or not."""
        config = copy.deepcopy(self.config)
        config.CourseDirectory.release_directory = str(folder.resolve())
        config.GenerateAssignment.no_database = not remember
        config.SaveCells.enabled = remember
        return Course(self.root, config)

    def gradebook(self) -> Gradebook:
        """The gradebook, opened: use it in a `with`."""
        return Gradebook(self.config.CourseDirectory.db_url, self.config.CourseDirectory.course_id)

    def folder(self, step: str, student: str = ".", assignment: str = "") -> Path:
        """Folder of a step (`source`, `release`, `submitted`, `autograded`, `feedback`), as nbgrader lays it out."""
        return self.root / self.config.CourseDirectory[f"{step}_directory"] / student / assignment

    @property
    def data(self) -> Path:
        """Folder that holds submissions, gradebook, results and feedback."""
        return self.folder("autograded").parent

    def assignments(self, chosen: Sequence[str] = ()) -> list[str]:
        """Full names of the chosen assignments (`a04` is enough for `a04_vae`), or of all that have a source.

        Raises:
            CourseError: an unknown one, or none at all.
        """
        source = self.folder("source")
        found = sorted(p.name for p in source.iterdir() if is_assignment(p)) if source.is_dir() else []
        if not found:
            raise CourseError(f"no assignments in {source}: only the instructors' copy of the course has them")
        names = []
        for name in chosen:
            fitting = [known for known in found if name in (known, known.split("_")[0])]
            if len(fitting) != 1:
                raise CourseError(f"unknown assignment {name}; there are: {', '.join(found)}")
            names += fitting
        return names or found

    def sources(self, assignment: str) -> dict[str, NotebookNode]:
        """Notebooks of an assignment's source, by name.

        Raises:
            CourseError: not a notebook of format 4.5 with cell ids (their ids would be new at every release).
        """
        found = {}
        for path in sorted(self.folder("source", assignment=assignment).glob("*.ipynb")):
            try:
                plain = json.loads(path.read_text(encoding="utf-8"))
                version, ids = (plain["nbformat"], plain["nbformat_minor"]), [cell.get("id") for cell in plain["cells"]]
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CourseError(f"{path} is not a notebook: {type(error).__name__}: {error}") from error
            if version != (4, 5) or None in ids or len(set(ids)) < len(ids):
                raise CourseError(
                    f"{path} must be notebook format 4.5, each cell with an id of its own; it is {version}"
                )
            found[path.stem] = nbformat.reads(json.dumps(plain), as_version=4)
        return found

    def nbgrader(self, converter: type, assignment: str, student: str = ".") -> None:
        """Run one of nbgrader's converters on one assignment of one student, replacing what it made before.

        Raises:
            CourseError: it failed; the message is the error in nbgrader's log.
        """
        directory = _CourseDirectory(config=self.config, assignment_id=assignment, student_id=student)
        app = converter(coursedir=directory, config=self.config)
        app.force = True
        errors = _Errors(logging.ERROR)
        app.log.addHandler(errors)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy; no loss comes of it
                app.start()
        except Exception as error:
            raise CourseError(errors.reason() or f"{type(error).__name__}: {error}") from error
        finally:
            app.log.removeHandler(errors)


class _Errors(logging.Handler):
    """Keeps what nbgrader logs: its exceptions say only "see the traceback above"."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().strip())

    def reason(self) -> str:
        for message in self.messages:
            if message.startswith("Traceback"):
                raised = [line for line in message.splitlines() if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
                name, colon, rest = (raised or message.splitlines())[-1].partition(":")
                return name.rpartition(".")[2] + colon + rest
        return self.messages[0] if self.messages else ""


def is_assignment(path: Path) -> bool:
    """A folder with notebooks in it."""
    return path.is_dir() and not path.name.startswith(".") and any(path.glob("*.ipynb"))
