"""The zip that students get: lectures, assignments, the library, what sets it up. No solutions, no tests."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from course_lib.classroom.course import CourseError
from course_lib.classroom.release import is_junk, release

FOLDERS = ("lectures", "assignments", "course_lib")
FILES = ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", "README.md", "LICENSE", "LICENSE-TEXT")
TOP = "deep-generative-models"  # the folder that the zip unpacks to
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first day, so that the same files make the same bytes


def bundled_files(root: Path | str) -> list[Path]:
    """Files that go into the bundle, relative to `root` and sorted, with the pictures that the README shows.

    Raises:
        CourseError: one that students need is missing.
    """
    root = Path(root)
    missing = [name for name in (*FOLDERS, *FILES) if not (root / name).exists()]
    if missing:
        raise CourseError(f"the bundle needs {', '.join(missing)} in {root}")
    found = {Path(name) for name in FILES}
    for folder in FOLDERS:
        paths = (path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file())
        found |= {path for path in paths if not is_junk(path)}
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)|<img[^>]+src=[\"']([^\"']+)", (root / "README.md").read_text())
    linked = {Path(one or other) for one, other in pictures if "://" not in (one or other)}
    return sorted(found | {path for path in linked if (root / path).is_file()})


def bundle(root: Path | str, out: Path | str) -> list[Path]:
    """Write the zip; returns the files in it, relative to the course folder.

    Args:
        root: the course folder.
        out: the zip; its folder is made.

    Raises:
        CourseError: the released assignments are not up to date or leak, or a file is missing.
    """
    root = Path(root).resolve()
    problems = release(root, check=True).problems
    if problems:
        raise CourseError("the assignments are not fit to hand out:\n" + "\n".join(problems))
    files = bundled_files(root)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            info = zipfile.ZipInfo(f"{TOP}/{path.as_posix()}", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16  # a plain file that its owner can write
            archive.writestr(info, (root / path).read_bytes())
    return files
