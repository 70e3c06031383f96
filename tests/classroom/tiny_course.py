"""A course of one small assignment, in a temporary folder, with the real `nbgrader_config.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
ASSIGNMENT = "a90_tiny"

DOUBLE = """\
def double(x):
    "Twice x."
    ### BEGIN SOLUTION
    twice_the_value = x + x
    return twice_the_value
    ### END SOLUTION"""
TEST_DOUBLE = """\
assert double(2) == 4, "double(2) is 4"
### BEGIN HIDDEN TESTS
assert double(-3.5) == -7.0
### END HIDDEN TESTS"""
NORM = """\
def norm(values):
    ### BEGIN SOLUTION
    return sum(v**2 for v in values) ** 0.5
    ### END SOLUTION"""


def cell(grade_id: str, source: str, **kind: object) -> NotebookNode:
    """A cell with nbgrader's metadata; `kind`: grade, solution, points, locked."""
    markdown = bool(kind.pop("markdown", False))
    meta = {"grade": False, "solution": False, "locked": False, "schema_version": 3, "task": False} | kind
    made = (new_markdown_cell if markdown else new_code_cell)(
        source, metadata={"nbgrader": meta | {"grade_id": grade_id}}
    )
    made.id = grade_id.replace("__", "-").replace("_", "-")
    return made


def tiny_notebook() -> NotebookNode:
    """Three test cells (2 + 1 + 3 points) of two functions, and a manual question (4 points)."""
    test = {"grade": True, "locked": True}
    intro = new_markdown_cell("# Tiny", id="intro")
    cells = [
        intro,
        cell("double", DOUBLE, solution=True),
        cell("test_double__value", TEST_DOUBLE, points=2, **test),
        cell("test_double__list", 'assert double([1]) == [1, 1], "lists are repeated"', points=1, **test),
        cell("norm", NORM, solution=True),
        cell("test_norm__value", "assert abs(norm([3, 4]) - 5) < 1e-9", points=3, **test),
        cell("why", "Because it is the long mark scheme.", solution=True, grade=True, points=4, markdown=True),
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat_minor = 5
    return notebook


def make_course(root: Path, notebook: NotebookNode | None = None) -> Path:
    """Write the course under `root`, which is returned."""
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", notebook or tiny_notebook())
    shutil.copy(ROOT / "nbgrader_config.py", root)
    return root


def write(path: Path, notebook: NotebookNode) -> Path:
    """Write a notebook and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
