"""One JSON file a student: what grading found, kept where reports and a resumed run read it one student at a time."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from course_lib.classroom.course import CourseError
from course_lib.classroom.scores import Cell, Mark

LONGEST_FILE_NAME = 255  # bytes, in Linux's file systems


def save(folder: Path, mark: Mark) -> Path:
    """Write `mark` to `folder/<student>.json`, which is returned."""
    return write_json(path_of(folder, mark.student), to_plain(mark))


def write_json(path: Path, plain: Any) -> Path:
    """Write `path`, which is returned, and the folders above it: wholly, or (when interrupted) not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(plain, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def load(folder: Path) -> Iterator[Mark]:
    """Every student's mark in `folder`, by name, one at a time; nothing if there is no such folder.

    Raises:
        CourseError: a file that is no result.
    """
    if folder.is_dir():
        for path in sorted(folder.glob("*.json")):
            yield read(path)


def find(folder: Path, student: str) -> Mark | None:
    """The student's mark in `folder`, if there is one."""
    path = path_of(folder, student)
    return read(path) if path.is_file() else None


def read(path: Path) -> Mark:
    """The mark in a file that `save` wrote.

    Raises:
        CourseError: it is no such file.
    """
    try:
        return from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{path} is not a result of `course grade`: {type(error).__name__}: {error}") from error


def path_of(folder: Path, student: str) -> Path:
    """Where a student's mark is kept; names that leave no room for `.json` are cut, and told apart by a digest."""
    if len(student.encode()) > LONGEST_FILE_NAME - len(".json"):
        student = f"{student[:32]}-{hashlib.sha256(student.encode()).hexdigest()[:16]}"
    return folder / f"{student}.json"


def to_plain(mark: Mark) -> dict[str, Any]:
    """The mark as dictionaries, lists, strings and numbers."""
    return asdict(mark) | {"feedback": [str(path) for path in mark.feedback]}


def from_plain(plain: dict[str, Any]) -> Mark:
    """Inverse of `to_plain`, also after JSON has turned its tuples into lists."""
    cells = tuple(Cell(**{**cell, "passed": tuple(cell["passed"])}) for cell in plain["cells"])
    texts = {name: tuple(plain[name]) for name in ("attempts", "notes")}
    return Mark(**{**plain, **texts, "cells": cells, "feedback": tuple(map(Path, plain["feedback"]))})
