"""Turn what was handed in into a notebook that can be graded: every claim it makes about itself is dropped.

A submission contributes text in its cells, and which cell is the answer to what. All else (points, what is locked,
types, order, names of kernels, tags) comes from the instructor's notebook.
"""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.utils import is_grade, is_locked, is_solution, is_task

from course_lib.classroom.course import CourseError

LARGEST_NOTEBOOK = 50  # MiB
MOST_CELLS = 20_000  # that are looked at; each takes memory of the grader
LARGEST_OLD = 1  # MiB of a notebook in an old format: converting takes long where it is broken
LONGEST_CELL = 200_000  # characters
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
FLAGS = ("grade", "solution", "locked", "task", "points")
TAGS_OF_CHEATS = {"skip-execution", "raises-exception"}  # nbclient: do not run this, do not mind its error
REMOVED_ON_RELEASE = re.compile(r"(HIDDEN TESTS|MARK SCHEME)")
REPAIRS = "course_repairs"  # in a notebook's metadata: what `read_submission` mended, for `normalize` to tell
HARMLESS_TAGS = "b|br|code|details|em|hr|i|kbd|li|ol|p|pre|s|small|strong|sub|summary|sup|u|ul"
TAG = re.compile(rf"<(?=[A-Za-z/!?])(?!/?(?:{HARMLESS_TAGS})\s*/?>)", re.IGNORECASE)
PICTURES = ("image/png", "image/jpeg", "image/gif")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def quarantine(folder: Path, max_mib: int = 50) -> list[str]:
    """Remove all but plain files from the copy of a submission that is made for grading.

    Args:
        folder: the copy.
        max_mib: the largest file that stays.

    Returns:
        What was removed and why, in words.
    """
    removed = []
    for parent, folders, names in os.walk(folder, topdown=True, followlinks=False):
        for name in sorted([*names, *(f for f in folders if Path(parent, f).is_symlink())]):
            path = Path(parent, name)
            reason = unwanted(path.lstat(), max_mib)
            if reason:
                path.unlink()
                removed.append(f"{path.relative_to(folder)} was left out: {reason}")
    return removed


def unwanted(status: os.stat_result, max_mib: int) -> str:
    """Why a file is no part of a submission; empty if it may stay."""
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    if not stat.S_ISREG(status.st_mode):
        return "not a file (a pipe, a socket, or a device)"
    if status.st_nlink > 1:
        return "a second name of another file (a hard link)"
    return f"larger than {max_mib} MiB" if status.st_size > max_mib << 20 else ""


def read_submission(path: Path) -> NotebookNode:
    """The submitted notebook at `path`, as cells with text, id and what they claim to be; nothing else.

    Repairs what has one meaning: an older format, another encoding's mark, twin or missing ids, and a single notebook
    under another name. Outputs are not read: the notebook will be executed.

    Raises:
        CourseError: no such notebook, or none that can be read; the message says what is wrong with it.
    """
    repairs = []
    if not path.is_symlink() and not path.exists():
        found = sorted(p for p in path.parent.glob("*.ipynb") if p.is_file() and not p.is_symlink())
        if len(found) != 1:
            names = ", ".join(p.name for p in found[:10]) or "no notebook"
            raise CourseError(f"{path.name} is missing (found: {names})")
        repairs.append(f"the file is called {found[0].name}, not {path.name}")
        path = found[0]
    status = path.lstat()
    reason = unwanted(status, LARGEST_NOTEBOOK)
    if reason:
        raise CourseError(f"{path.name} is {reason}")
    try:
        plain = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CourseError(f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise CourseError(f"{path.name} is not JSON: {error}") from error
    except RecursionError as error:
        raise CourseError(f"{path.name} is not a notebook: its JSON is nested too deeply") from error
    if not isinstance(plain, dict) or not ("cells" in plain or "worksheets" in plain):
        raise CourseError(f"{path.name} is JSON, but not a notebook")
    if "cells" not in plain:
        if status.st_size > LARGEST_OLD << 20:
            raise CourseError(f"{path.name} has an old notebook format; save it with JupyterLab")
        plain = _modern(plain, path.name)
        repairs.append("an old notebook format was converted")
    elif plain.get("nbformat", 4) != 4:
        raise CourseError(f"{path.name} has notebook format {plain.get('nbformat')!r}; it must be 4")
    if not isinstance(plain["cells"], list):
        raise CourseError(f"{path.name} is not a notebook: its cells are no list")
    if len(plain["cells"]) > MOST_CELLS:
        raise CourseError(f"{path.name} has {len(plain['cells']):,} cells; {MOST_CELLS:,} are looked at")
    cells = [_cell(cell, f"cell {number} of {path.name}") for number, cell in enumerate(plain["cells"], start=1)]
    _number(cells, set())
    changed = [cell for cell in cells if cell.metadata.pop("mended", False)]
    if changed:
        repairs.append(f"{len(changed)} cells had characters that are no text")
    kernel = _dig(plain, "metadata", "kernelspec", "name")
    if isinstance(kernel, str) and kernel not in ("python3", "python"):
        repairs.append(f"it was written for the kernel {kernel[:50]!r}; Python's was used")
    return new_notebook(cells=cells, metadata={REPAIRS: repairs})


def _modern(plain: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nbformat.convert(nbformat.reads(json.dumps(plain), as_version=nbformat.NO_CONVERT), 4)
    except Exception as error:  # whatever broken old notebooks make the converter raise
        raise CourseError(f"{name} is not a notebook: {type(error).__name__}: {str(error)[:300]}") from error


def _dig(plain: Any, *keys: str) -> Any:
    for key in keys:
        plain = plain.get(key) if isinstance(plain, dict) else None
    return plain


def _cell(plain: Any, where: str) -> NotebookNode:
    """One cell from JSON: text, id, tags and nbgrader's metadata, each only if it is of the right type."""
    if not isinstance(plain, dict):
        raise CourseError(f"{where} is not a cell")
    source = plain.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise CourseError(f"{where} has no text")
    text = source.encode("utf-8", errors="replace").decode()  # half a surrogate pair can be neither sent nor saved
    metadata: dict[str, Any] = {"mended": True} if text != source else {}
    claimed = _dig(plain, "metadata", "nbgrader")
    if isinstance(claimed, dict) and isinstance(claimed.get("grade_id"), str):
        metadata["nbgrader"] = {key: claimed[key] for key in ("grade_id", *FLAGS) if key in claimed}
    tags = _dig(plain, "metadata", "tags")
    if isinstance(tags, list):
        metadata["tags"] = [tag for tag in tags if isinstance(tag, str)]
    kind = plain.get("cell_type")
    if kind not in ("code", "markdown", "raw"):
        raise CourseError(f"{where} is of an unknown type")
    # nbconvert may put raw cells into HTML as they are
    cell = (new_code_cell if kind == "code" else new_markdown_cell)(text, metadata=metadata)
    cell.id = plain["id"] if isinstance(plain.get("id"), str) else ""
    return cell


def normalize(
    notebook: NotebookNode, sources: NotebookNode, max_cells: int = 500
) -> tuple[NotebookNode, list[str], list[str]]:
    """The submission's answers in the instructor's notebook; both arguments stay as they are.

    Known cells come in the instructor's order, each once, with the instructor's flags; locked ones with the
    instructor's text, also where they are missing. A student's own cells follow the known cell that they followed.

    Args:
        notebook: from `read_submission`.
        sources: the instructor's version, with hidden tests.
        max_cells: own cells of a student beyond this number (together with known ones) are cut.

    Returns:
        The notebook; what was mended, in words; what looks like tampering, in words.
    """
    notes = [str(note) for note in notebook.metadata.get(REPAIRS, [])]
    attempts: list[str] = []
    known = {cell.metadata.nbgrader.grade_id: cell for cell in sources.cells if _is_known(cell)}
    names = _names(notebook, known, notes)
    for cell, name in zip(notebook.cells, names, strict=True):
        if name is not None:
            attempts += _claims(cell, known[name])

    answers: dict[str, NotebookNode] = {}
    own: dict[str | None, list[NotebookNode]] = {}
    before: str | None = None
    for cell, name in zip(notebook.cells, names, strict=True):
        if name is None:
            own.setdefault(before, []).append(cell)
        else:
            answers[name] = cell
            before = name
    if [name for name in known if name in answers] != list(answers):
        notes.append("cells of the assignment had been moved; they are back in order")
    missing = [name for name in known if name not in answers]
    if missing:
        notes.append(f"missing cells were put back: {', '.join(missing)}")
    changed = [name for name in known if name in answers and _was_changed(answers[name], known[name])]
    if changed:
        notes.append(f"locked cells had been changed; the originals count: {', '.join(changed)}")
    room = max(0, max_cells - len(known))
    surplus = sum(map(len, own.values())) - room
    if surplus > 0:
        notes.append(f"{surplus} cells beyond {max_cells} were cut")

    cells: list[NotebookNode] = []
    for name in (None, *known):
        if name is not None:
            cells.append(_known_cell(known[name], answers.get(name), notes))
        for cell in own.get(name, []):
            if room > 0:
                room -= 1
                cells.append(_students(cell, notes))
    _number([cell for cell in cells if "nbgrader" not in cell.metadata], {cell.id for cell in known.values()})
    wanted = {key: sources.metadata[key] for key in ("kernelspec", "language_info") if key in sources.metadata}
    return new_notebook(cells=cells, metadata=wanted), list(dict.fromkeys(notes)), list(dict.fromkeys(attempts))


def _is_known(cell: NotebookNode) -> bool:
    return bool(is_grade(cell) or is_solution(cell) or is_locked(cell) or is_task(cell))


def _names(notebook: NotebookNode, known: dict[str, NotebookNode], notes: list[str]) -> list[str | None]:
    """For each cell the grade_id of the known cell that it is, each at most once, or None."""
    names: list[str | None] = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name is not None and name not in known:
            notes.append(f"the assignment has no cell {name[:50]!r} (any more); it was taken for one of the student's")
            name = None
        names.append(name)
    for name in dict.fromkeys(name for name in names if name is not None and names.count(name) > 1):
        places = [number for number, other in enumerate(names) if other == name]
        locked = is_locked(known[name])
        for number in places[1:] if locked else places[:-1]:  # the last answer is the one that is in force in the end
            names[number] = None
        notes.append(f"{name} is there {len(places)} times; the {'first' if locked else 'last'} one counts")
    by_id = {cell.id: name for name, cell in known.items() if name not in names}
    for number, cell in enumerate(notebook.cells):
        if names[number] is None and "nbgrader" not in cell.metadata and cell.id in by_id:  # an editor lost the rest
            names[number] = by_id.pop(cell.id)
    return names


def _claims(cell: NotebookNode, source: NotebookNode) -> list[str]:
    """Where a cell pretends to be something else than it is; nobody gets there by accident."""
    name = source.metadata.nbgrader.grade_id
    found = [f"{name} carries the tag {tag!r}" for tag in cell.metadata.get("tags", []) if tag in TAGS_OF_CHEATS]
    claimed, real = cell.metadata.get("nbgrader", {}), source.metadata.nbgrader
    for flag in FLAGS:
        if flag in claimed and flag in real and claimed[flag] != real[flag]:
            found.append(f"{name} claims {flag} = {str(claimed[flag])[:50]}; it is {real[flag]}")
    return found


def _was_changed(cell: NotebookNode, source: NotebookNode) -> bool:
    return is_locked(source) and cell.source.strip() != _released(source.source).strip()


def _released(text: str) -> str:
    """What students got of an instructor's cell."""
    kept, inside = [], False
    for line in text.splitlines():
        if REMOVED_ON_RELEASE.search(line):
            inside = "BEGIN" in line
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _known_cell(source: NotebookNode, answer: NotebookNode | None, notes: list[str]) -> NotebookNode:
    make = new_code_cell if source.cell_type == "code" else new_markdown_cell
    if is_locked(source) or is_task(source):
        text = source.source
    elif answer is None:
        text = ""
    else:
        text = _text(answer.source, source.cell_type, notes)
    flags = {key: source.metadata.nbgrader[key] for key in source.metadata.nbgrader}
    cell = make(text, metadata={"nbgrader": {**flags, "cell_type": source.cell_type}})
    cell.id = source.id
    return cell


def _students(cell: NotebookNode, notes: list[str]) -> NotebookNode:
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    copy = make(_text(cell.source, cell.cell_type, notes))
    copy.id = cell.id
    return copy


def _text(text: str, kind: str, notes: list[str]) -> str:
    if len(text) > LONGEST_CELL:
        notes.append(f"a cell of {len(text):,} characters was emptied; {LONGEST_CELL:,} are allowed")
        return ""
    return text if kind == "code" else without_html(text)


def _number(cells: list[NotebookNode], taken: set[str]) -> None:
    """Give every cell a valid id of its own; the first one keeps an id that several have."""
    used = set(taken)
    for number, cell in enumerate(cells):
        if not CELL_ID.fullmatch(cell.id) or cell.id in used:
            cell.id = next(f"own-{number}-{i}" for i in range(len(cells) + 1) if f"own-{number}-{i}" not in used)
        used.add(cell.id)


def without_html(markdown: str) -> str:
    """Markdown in which no HTML is live except simple tags without attributes: a blank after "<" makes it text.

    An entity in its place would be shown as such inside code, and a blank does not disturb formulas.
    """
    return TAG.sub("< ", markdown)


def harmless_outputs(cell: NotebookNode) -> None:
    """Leave of a cell's outputs what can be shown to others: text, errors and pictures; no HTML, SVG, scripts, widgets.

    nbconvert puts HTML, SVG and pictures' metadata into its pages as they are.
    """
    kept = []
    for output in cell.get("outputs", []):
        if "data" in output:
            output.data = NotebookNode({kind: data for kind, data in output.data.items() if _is_harmless(kind, data)})
            output.metadata = NotebookNode()
            if not output.data:
                continue
        kept.append(output)
    if cell.cell_type == "code":
        cell.outputs = kept


def _is_harmless(kind: str, data: Any) -> bool:
    if kind == "text/plain":
        return isinstance(data, str)
    return kind in PICTURES and isinstance(data, str) and bool(BASE64.fullmatch(data))
