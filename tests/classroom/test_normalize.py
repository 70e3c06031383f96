"""What a submission claims about itself has no effect; what can be repaired is, and the rest is refused in words."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from course_lib.classroom.course import CourseError
from course_lib.classroom.normalize import harmless_outputs, normalize, quarantine, read_submission, without_html
from tests.classroom.tiny_course import DOUBLE, TEST_DOUBLE, tiny_notebook

HALF = '{"cells": [{"cell_type": "code", "source": "'


def released() -> NotebookNode:
    """What students get of the tiny assignment."""
    notebook = tiny_notebook()
    for cell in notebook.cells:
        if cell.source == DOUBLE:
            cell.source = "def double(x):\n    raise NotImplementedError"
        elif cell.source == TEST_DOUBLE:
            cell.source = TEST_DOUBLE.splitlines()[0]
    return notebook


def by_name(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}


def submit(path: Path, notebook: NotebookNode) -> NotebookNode:
    """Write it and read it as a submission."""
    path.write_text(json.dumps(notebook))
    return read_submission(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a90_tiny.ipynb"


def test_an_honest_submission_keeps_its_answers_and_gets_the_tests_back(path):
    notebook = released()
    answer = by_name(notebook)["double"]
    answer.source = "def double(x):\n    return 2 * x"
    notebook.cells.insert(2, new_code_cell("scratch = double(3)", metadata={"tags": ["mine"]}))
    submitted = submit(path, notebook)
    before = copy.deepcopy(submitted)
    result, notes, attempts = normalize(submitted, tiny_notebook())
    assert (notes, attempts) == ([], [])
    assert submitted == before
    nbformat.validate(result)
    assert [c.source for c in result.cells[1:4]] == [answer.source, "scratch = double(3)", TEST_DOUBLE]
    source = by_name(tiny_notebook())
    for name, cell in by_name(result).items():
        assert cell.metadata.nbgrader.items() >= source[name].metadata.nbgrader.items()
        assert (cell.id, cell.cell_type) == (source[name].id, source[name].cell_type)
    assert result.cells[2].metadata == {}
    assert result.metadata.kernelspec.name == "python3"


def test_a_skipped_test_passes_in_an_ordinary_run_and_is_run_here(path):
    """nbclient does not run a cell with this tag; no output is no error, and no error is full marks."""
    notebook = released()
    for cell in by_name(notebook).values():
        cell.metadata["tags"] = ["skip-execution"]
    stock = NotebookClient(copy.deepcopy(notebook), kernel_name="python3").execute()
    assert all(cell.outputs == [] for cell in stock.cells if cell.cell_type == "code")
    result, _, attempts = normalize(submit(path, notebook), tiny_notebook())
    assert all("tags" not in cell.metadata for cell in result.cells)
    assert "test_double__value carries the tag 'skip-execution'" in attempts


@pytest.mark.parametrize(
    ("flag", "value", "attempt"),
    [
        ("points", 1000, "test_double__value claims points = 1000; it is 2"),
        ("grade", False, "test_double__value claims grade = False; it is True"),
        ("locked", False, "test_double__value claims locked = False; it is True"),
        ("solution", True, "test_double__value claims solution = True; it is False"),
    ],
)
def test_flags_are_the_instructors(path, flag, value, attempt):
    notebook = released()
    test = by_name(notebook)["test_double__value"]
    test.metadata.nbgrader[flag] = value
    test.source = "pass"
    result, notes, attempts = normalize(submit(path, notebook), tiny_notebook())
    kept = by_name(result)["test_double__value"]
    assert kept.metadata.nbgrader[flag] == by_name(tiny_notebook())["test_double__value"].metadata.nbgrader[flag]
    assert kept.source == TEST_DOUBLE
    assert attempts == [attempt]
    assert notes == ["locked cells had been changed; the originals count: test_double__value"]


def test_twins_missing_and_unknown_cells(path):
    notebook = released()
    cells = by_name(notebook)
    early, late = copy.deepcopy(cells["double"]), cells["double"]
    early.source, late.source = "first = 1", "second = 2"
    cells["test_norm__value"].metadata.nbgrader.grade_id = "bonus"
    kept = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "test_double__list"]
    notebook.cells = [*kept[:1], early, *kept[1:], copy.deepcopy(cells["test_double__value"])]
    result, notes, attempts = normalize(submit(path, notebook), tiny_notebook())
    nbformat.validate(result)
    names = [c.metadata.nbgrader.grade_id for c in result.cells if "nbgrader" in c.metadata]
    assert names == list(by_name(tiny_notebook()))
    assert by_name(result)["double"].source == "second = 2"
    assert by_name(result)["test_double__list"].source == by_name(tiny_notebook())["test_double__list"].source
    assert "first = 1" in [c.source for c in result.cells]
    assert len({c.id for c in result.cells}) == len(result.cells)
    assert attempts == []
    assert notes == [
        "the assignment has no cell 'bonus' (any more); it was taken for one of the student's",
        "double is there 2 times; the last one counts",
        "test_double__value is there 2 times; the first one counts",
        "missing cells were put back: test_double__list, test_norm__value",
    ]


def test_cells_out_of_order_come_back_in_order_with_what_followed_them(path):
    notebook = released()
    own = new_code_cell("own = 1")
    notebook.cells = [notebook.cells[0], *reversed([*notebook.cells[1:3], own, *notebook.cells[3:]])]
    result, notes, _ = normalize(submit(path, notebook), tiny_notebook())
    assert list(by_name(result)) == list(by_name(tiny_notebook()))
    assert notes == ["cells of the assignment had been moved; they are back in order"]
    follower = [c.source for c in result.cells].index("own = 1")
    assert result.cells[follower - 1].metadata.nbgrader.grade_id == "test_double__list"


def test_an_editor_that_drops_metadata_costs_nothing(path):
    notebook = released()
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    by_id = {cell.id: cell for cell in notebook.cells}
    by_id["double"].source = "answer"
    result, notes, _ = normalize(submit(path, notebook), tiny_notebook())
    assert by_name(result)["double"].source == "answer"
    assert notes == []


def test_too_many_and_too_long_cells_are_cut(path):
    notebook = released()
    notebook.cells += [new_code_cell(f"x = {i}") for i in range(2000)]
    by_name(notebook)["norm"].source = "y" * 300_000
    result, notes, _ = normalize(submit(path, notebook), tiny_notebook(), max_cells=100)
    assert len(result.cells) == 100
    assert list(by_name(result)) == list(by_name(tiny_notebook()))
    assert by_name(result)["norm"].source == ""
    assert "1907 cells beyond 100 were cut" in notes  # 7 are the assignment's or its introduction
    assert "a cell of 300,000 characters was emptied; 200,000 are allowed" in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"cells": [', "is not JSON"),
        (b"[]", "is JSON, but not a notebook"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"nbformat": 5, "cells": []}', "has notebook format 5; it must be 4"),
        (b'{"nbformat": 4, "cells": {}}', "its cells are no list"),
        (b'{"nbformat": 4, "cells": [3]}', "cell 1 of a90_tiny.ipynb is not a cell"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}', "cell 1 .* has no text"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "heading", "source": ""}]}', "cell 1 .* of an unknown type"),
        (b'{"nbformat": 3, "worksheets": 7}', "is not a notebook"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CourseError, match=message):
        read_submission(path)


@pytest.mark.parametrize("broken", ["metadata", "nbgrader", "grade_id", "tags", "id", "kernelspec", "points"])
def test_parts_of_the_wrong_type_are_ignored(path, broken):
    notebook = json.loads(json.dumps(released()))
    wrong = [{"deep": [1]}]
    for cell in notebook["cells"]:
        if broken in ("metadata", "tags", "id"):
            (cell if broken != "tags" else cell["metadata"])[broken] = wrong
        elif "nbgrader" in cell["metadata"]:
            meta = cell["metadata"]
            (meta if broken == "nbgrader" else meta["nbgrader"])[broken] = wrong
    if broken == "kernelspec":
        notebook["metadata"]["kernelspec"] = wrong
    path.write_text(json.dumps(notebook))
    result, _, _ = normalize(read_submission(path), tiny_notebook())
    nbformat.validate(result)
    assert list(by_name(result)) == list(by_name(tiny_notebook()))


def test_repairs(path, tmp_path):
    other = tmp_path / "mine (1).ipynb"
    notebook = json.loads(json.dumps(released()))
    notebook["metadata"]["kernelspec"]["name"] = "julia-1.11"
    notebook["metadata"]["course_repairs"] = ["forged"]
    notebook["cells"][1]["source"] = ["x = 1\n", "y = '\ud800'"]
    other.write_bytes(b"\xef\xbb\xbf" + json.dumps(notebook).encode())
    result, notes, _ = normalize(read_submission(path), tiny_notebook())
    assert by_name(result)["double"].source == "x = 1\ny = '?'"
    assert notes == [
        "the file is called mine (1).ipynb, not a90_tiny.ipynb",
        "1 cells had characters that are no text",
        "it was written for the kernel 'julia-1.11'; Python's was used",
    ]
    (tmp_path / "second.ipynb").write_text("{}")
    with pytest.raises(CourseError, match=r"a90_tiny\.ipynb is missing \(found: mine \(1\)\.ipynb, second\.ipynb\)"):
        read_submission(path)


def test_an_old_format_is_converted(path):
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [], "metadata": {}}]}
    old["worksheets"][0]["cells"] = [{"cell_type": "code", "input": "x = 1", "language": "python", "outputs": []}]
    path.write_text(json.dumps(old))
    result, notes, _ = normalize(read_submission(path), tiny_notebook())
    assert "x = 1" in [cell.source for cell in result.cells]
    assert notes[0] == "an old notebook format was converted"


def test_no_link_is_followed(path, tmp_path):
    (tmp_path / "solution.ipynb").write_text(json.dumps(tiny_notebook()))
    assert json.loads((tmp_path / "solution.ipynb").read_text())
    path.symlink_to(tmp_path / "solution.ipynb")
    assert "BEGIN SOLUTION" in path.read_text()  # whoever opens it gets the solution
    with pytest.raises(CourseError, match="a link"):
        read_submission(path)
    path.unlink()
    os.link(tmp_path / "solution.ipynb", path)
    with pytest.raises(CourseError, match="a hard link"):
        read_submission(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CourseError, match="not a file"):
        read_submission(path)


def test_quarantine(tmp_path):
    folder, outside = tmp_path / "submission", tmp_path / "outside"
    (folder / "data").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (folder / "honest.csv").write_text("1,2")
    (folder / "file").symlink_to(outside / "secret")
    (folder / "data" / "folder").symlink_to(outside)
    os.link(outside / "secret", folder / "second")
    os.mkfifo(folder / "pipe")
    with (folder / "huge").open("wb") as file:
        file.truncate(3 << 20)
    assert (folder / "file").read_text() == (folder / "data" / "folder" / "secret").read_text() == "secret"
    assert sorted(quarantine(folder, max_mib=2)) == [
        "data/folder was left out: a link",
        "file was left out: a link",
        "huge was left out: larger than 2 MiB",
        "pipe was left out: not a file (a pipe, a socket, or a device)",
        "second was left out: a second name of another file (a hard link)",
    ]
    assert sorted(p.name for p in folder.rglob("*")) == ["data", "honest.csv"]
    assert (outside / "secret").read_text() == "secret"
    assert quarantine(folder) == []


LIVE = {
    "<script>alert(1)</script>": "<script",
    "<img src=x onerror=alert(1)>": "<img[^>]*onerror",
    "<details open ontoggle=alert(1)>": "<details[^>]*ontoggle",
    "<b onmouseover=alert(1)>x</b>": "<b[^>]*onmouseover",
    "<svg onload=alert(1)>": "<svg[^>]*onload",
    "<IFRAME srcdoc='x'></IFRAME>": "<iframe",
    "</div><style>body{display:none}</style>": "<style",
    "<!--><script>alert(1)</script>-->": "<script",
}


@pytest.mark.parametrize(("html", "live"), LIVE.items())
def test_html_in_markdown_is_text(path, html, live):
    def page(notebook: NotebookNode) -> str:
        body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
        return body

    notebook = released()
    by_name(notebook)["why"].source = f"Because {html}"
    notebook.cells += [new_markdown_cell(f"Because {html}"), nbformat.v4.new_raw_cell(html)]
    assert re.search(live, page(notebook), re.IGNORECASE)
    result, _, _ = normalize(submit(path, notebook), tiny_notebook())
    shown = page(result)
    assert not re.search(live, shown, re.IGNORECASE)
    assert shown.count("Because") == 2
    assert {cell.cell_type for cell in result.cells} == {"code", "markdown"}


def test_honest_markdown_stays_as_it_is():
    text = "Where $a < b$, `x <= y` and **c** > d:<br> see H<sub>2</sub>O\n\n```\nif a < b: pass\n```"
    assert without_html(text) == text


def test_outputs_keep_text_and_pictures_only():
    cell = new_code_cell("x")
    picture = new_output("display_data", {"image/png": "aGVsbG8=\n", "text/plain": "<Figure>"})
    picture.metadata = {"image/png": {"width": '1" onload="alert(1)'}}
    cell.outputs = [
        new_output("stream", name="stdout", text="<script>"),
        new_output("execute_result", {"text/html": "<script>", "text/plain": "3"}),
        new_output("display_data", {"image/svg+xml": "<svg onload=alert(1)>"}),
        new_output("display_data", {"application/javascript": "alert(1)"}),
        new_output("display_data", {"image/png": 'x" onerror="alert(1)'}),
        picture,
    ]
    harmless_outputs(cell)
    assert [o.get("data", o.get("text")) for o in cell.outputs] == [
        "<script>",
        {"text/plain": "3"},
        {"image/png": "aGVsbG8=\n", "text/plain": "<Figure>"},
    ]
    assert cell.outputs[-1].metadata == {}
    harmless_outputs(new_markdown_cell("no outputs"))


def test_whatever_the_cells_are_the_result_is_the_assignment():
    """Random shuffles, copies, deletions and changes: the known cells are always all there, in order, unchanged."""
    dice = random.Random(0)
    source = tiny_notebook()
    for _ in range(200):
        notebook = released()
        cells = [copy.deepcopy(dice.choice(notebook.cells)) for _ in range(dice.randrange(12))]
        for cell in cells:
            if dice.random() < 0.3:
                cell.source = "changed"
            if dice.random() < 0.2:
                cell.metadata.pop("nbgrader", None)
            if dice.random() < 0.2:
                cell.cell_type = dice.choice(["code", "markdown"])
        notebook.cells = cells
        result, _, _ = normalize(notebook, source, max_cells=dice.choice([0, 10, 500]))
        nbformat.validate(result)
        known = by_name(result)
        assert list(known) == list(by_name(source))
        assert all(cell.source == by_name(source)[name].source for name, cell in known.items() if "test" in name)
        assert len({cell.id for cell in result.cells}) == len(result.cells)
