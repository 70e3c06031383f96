"""From solutions to what students get: generate it with nbgrader, compare it, and look for leaks.

`solutions/<assignment>/<assignment>.ipynb` is the source, `assignments/<assignment>/` the release, a mirror that nobody
edits by hand. A release never touches the gradebook.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.utils import is_grade

from course_lib.classroom.course import Course, CourseError, is_assignment
from course_lib.classroom.seal.cells import UNSEALED, plan

MARKERS = re.compile(r"(BEGIN|END)\s+(SOLUTION|HIDDEN|MARK\s+SCHEME)", re.IGNORECASE)
SHORTEST_LEAK = 12  # characters: "return x" or "x = 0" prove nothing
DIFF_LINES = 20


@dataclass(frozen=True)
class Release:
    """What `release` did or found.

    Attributes:
        written: released files that changed on disk.
        problems: drift, leaks, and names in tests that no cell defines, each naming its file; empty when all is well.
        unsealed: test cells that run in the student's process, where they can be tampered with: each with its points.
    """

    written: list[Path]
    problems: list[str]
    unsealed: list[str] = field(default_factory=list)


def release(root: Path | str, chosen: Sequence[str] = (), check: bool = False) -> Release:
    """Regenerate the released assignments, or (`check`) only compare them with what would be generated.

    Nothing is written if the generated files leak a solution or a hidden test.

    Args:
        root: the course folder.
        chosen: names of assignments; default: all.
        check: write nothing.

    Raises:
        CourseError: unknown assignment, or a source that nbgrader cannot release.
    """
    course = Course.at(root)
    names = course.assignments(chosen)
    problems, written, unsealed = [], [], []
    for name in names:
        for notebook, source in course.sources(name).items():
            found, open_cells = lint(source)
            problems += [f"{notebook}.ipynb: {line}" for line in found]
            unsealed += [f"{notebook}.ipynb: {line}" for line in open_cells]
    with tempfile.TemporaryDirectory(prefix="course_release_") as temporary:
        fresh = generate(course, names, Path(temporary))
        for name in names:
            target = course.folder("release", assignment=name)
            found = leaks(course.sources(name), fresh / name)
            problems += [f"generating {name} would leak: {leak}" for leak in found]
            if check:
                problems += _drift(fresh / name, target)
                problems += [f"{target}/{leak}" for leak in leaks(course.sources(name), target)] if not found else []
            elif not found:
                written += _mirror(fresh / name, target)
    if not chosen and course.folder("release").is_dir():
        orphans = {p.name for p in course.folder("release").iterdir() if is_assignment(p)} - set(names)
        problems += [
            f"{course.folder('release', assignment=name)} has no source in {course.folder('source')}: delete it, or "
            "bring its source back"
            for name in sorted(orphans)
        ]
    return Release(written, problems, unsealed)


def lint(source: NotebookNode) -> tuple[list[str], list[str]]:
    """What is wrong with the tests of an instructor's notebook, and which of them are not sealed."""
    cells = plan(source)
    points = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader.points for c in source.cells if is_grade(c)}
    problems = [
        f"the test {key} reads {', '.join(names)}, which no cell defines" for key, names in cells.unresolved.items()
    ]
    problems += [
        f"the test {key} ends with a value of the student's, which nbgrader would take for its points: assign it"
        for key in cells.given_away
    ]
    return problems, [f"{key} ({points[key]:g} points) is marked {UNSEALED!r}" for key in cells.unsealed]


def generate(course: Course, names: Sequence[str], folder: Path, *, remember: bool = False) -> Path:
    """Generate released assignments with nbgrader in `folder`, which is returned.

    Args:
        course: whose sources.
        names: of assignments.
        folder: made if missing.
        remember: let the course's gradebook learn of the assignments, which grading needs.

    Raises:
        CourseError: a source that is no notebook of format 4.5, or that nbgrader refuses.
    """
    course = course.releasing_to(folder, remember=remember)
    for name in names:
        course.sources(name)  # raises where nbgrader would silently convert
        try:
            course.nbgrader(GenerateAssignment, name)
        except CourseError as error:
            raise CourseError(f"{name} cannot be released: {error}") from error
    return folder


def is_junk(path: Path) -> bool:
    """Whether Jupyter or Python leave such a relative path behind when somebody opens or runs the course."""
    return any(fnmatch(part, pattern) for part in path.parts for pattern in (".*", "__pycache__", "*.pyc"))


def _files(folder: Path) -> dict[Path, bytes]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: (folder / path).read_bytes() for path in paths if not is_junk(path)}


def _drift(fresh: Path, target: Path) -> list[str]:
    want, have = _files(fresh), _files(target)
    problems = [f"{target / path} is missing: run `course release {target.name}`" for path in want if path not in have]
    problems += [f"{target / path} is not generated from the source: delete it" for path in have if path not in want]
    for path in want:
        if path in have and want[path] != have[path]:
            problems.append(
                f"{target / path} is not what `course release {target.name}` generates:\n"
                + _short_diff(have[path], want[path])
            )
    return problems


def _short_diff(have: bytes, want: bytes) -> str:
    before, after = (data.decode("utf-8", errors="replace").splitlines() for data in (have, want))
    lines = list(difflib.unified_diff(before, after, "on disk", "generated", lineterm="", n=1))
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"… and {len(lines) - DIFF_LINES} more lines"]
    return "\n".join(lines) or "only line ends differ"


def _mirror(fresh: Path, target: Path) -> list[Path]:
    want, have = _files(fresh), _files(target)
    for path in have.keys() - want.keys():
        (target / path).unlink()
    changed = [path for path in want if have.get(path) != want[path]]
    for path in changed:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / path, target / path)
    return [target / path for path in changed]


def secrets(notebook: NotebookNode) -> set[str]:
    """Lines of a source notebook that no student may see: those of its solutions, hidden tests and mark schemes.

    Left out are lines shorter than `SHORTEST_LEAK` and lines that stand in the public part as well. White space is
    reduced to single blanks.
    """
    hidden, public = set(), []
    for cell in notebook.cells:
        inside = False
        # nbgrader replaces a solution cell without markers as a whole
        whole = cell.metadata.get("nbgrader", {}).get("solution", False) and "BEGIN SOLUTION" not in cell.source
        for line in cell.source.splitlines():
            marker = MARKERS.search(line)
            if marker:
                inside = marker[1].upper() == "BEGIN"
            elif inside or whole:
                hidden.add(_squeeze(line))
            else:
                public.append(_squeeze(line))
    shown = "\n".join(public)
    return {line for line in hidden if len(line) >= SHORTEST_LEAK and line not in shown}


def leaks(sources: dict[str, NotebookNode], folder: Path) -> list[str]:
    """Every marker and every secret line of `sources` in the files of `folder`, as `file: what`."""
    forbidden = set().union(*map(secrets, sources.values()))
    found = []
    for path, data in _files(folder).items():
        for text in _texts(path, data):
            for line in map(_squeeze, text.splitlines()):
                marker = MARKERS.search(line)
                if marker:
                    found.append(f"{path}: the marker {marker[0]!r}")
                found += [
                    f"{path}: the line {secret!r} of a solution or hidden test"
                    for secret in forbidden
                    if secret in line
                ]
    return sorted(set(found))


def _texts(path: Path, data: bytes) -> Iterator[str]:
    """The file's text; for notebooks every string in it, so that outputs and metadata are searched too."""
    text = data.decode("utf-8", errors="replace")
    if path.suffix != ".ipynb":
        yield text
        return
    try:
        yield from _strings(json.loads(text))
    except json.JSONDecodeError:
        yield text  # no notebook any more, which the comparison says; a secret in it is one all the same


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield "".join(value)  # notebooks on disk keep a text as a list of lines
        else:
            for item in value:
                yield from _strings(item)


def _squeeze(line: str) -> str:
    return " ".join(line.split())
