"""Every notebook: the form in which it is committed, and that it runs without a warning in the quick budget."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
LECTURES = sorted((ROOT / "lectures").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))
RELEASES = sorted((ROOT / "assignments").glob("*/*.ipynb"))
PARAMETERS = 'BUDGET = "full"\nSEED = 0\nDEVICE = "auto"'
LONGEST_CELL = 40  # lines of code
QUICK_SECONDS = 900  # for one notebook on a busy machine; a hang, not slowness, is what it finds


def named(paths: list[Path]):
    return [pytest.param(path, id=str(path.relative_to(ROOT).with_suffix(""))) for path in paths]


every_notebook = pytest.mark.parametrize("path", named(LECTURES + SOLUTIONS + RELEASES))
every_lecture = pytest.mark.parametrize("path", named(LECTURES))


def read(path: Path) -> nbformat.NotebookNode:
    """The file as it is: ``nbformat.read`` would give twin cell ids new ones."""
    notebook = nbformat.from_dict(json.loads(path.read_text()))
    for cell in notebook.cells:
        cell.source = "".join(cell.source)  # on disk: a list of lines
    return notebook


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tree_of(source: str) -> ast.Module:
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))


def test_there_are_notebooks():
    assert LECTURES and SOLUTIONS
    assert {path.name for path in SOLUTIONS} == {path.name for path in RELEASES}


# --- form -----------------------------------------------------------------------------------------------------------


@every_notebook
def test_is_valid_and_bare(path):
    """No outputs, no execution counts, ids that stay: so a difference in git is a difference in content."""
    notebook = read(path)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None, cell.id
    assert notebook.metadata.kernelspec.name == "python3"
    assert (
        set(notebook.metadata) == {"kernelspec", "language_info"} and notebook.metadata.language_info.name == "python"
    )
    assert all(cell.source.strip() for cell in notebook.cells), "an empty cell"


@every_notebook
def test_has_one_parameters_cell_before_any_other_code(path):
    tagged = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    assert [cell.source for cell in tagged] == [PARAMETERS]
    code = code_of(read(path))
    assert code[0] is not None and code[0].source == PARAMETERS
    assert "start(BUDGET, SEED, DEVICE)" in code[1].source


@every_notebook
def test_code_reaches_for_nothing_outside(path):
    for cell in code_of(read(path)):
        assert not re.search(r"https?://|ftp://", cell.source), cell.source
        assert not re.search(r"^\s*[!%]\s*(pip|conda|wget|curl|git|apt)\b", cell.source, re.M), cell.source
        for node in ast.walk(tree_of(cell.source)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            network = {"requests", "urllib", "httpx", "socket", "aiohttp", "torchvision", "huggingface_hub"}
            assert not network & {module.split(".")[0] for module in modules}, cell.source


@every_lecture
def test_lecture_has_its_parts(path):
    notebook = read(path)
    number = path.stem[:2]
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = "\n".join(cell.source for cell in code_of(notebook))
    assert re.fullmatch(rf"# {number} · \S.*", prose[0].splitlines()[0]), prose[0].splitlines()[0]
    opening = "\n".join(prose[:3]).lower()
    for part in ("prerequisites", "minutes", "sources"):
        assert part in opening, f"the header does not say {part}"
    assert re.search(r"\b(you can|be able to)\b", opening)
    headings = "\n".join(line.lower() for text in prose for line in text.splitlines() if line.startswith("#"))
    for part in ("exercises", "references"):
        assert part in headings, f"no section {part}"
    assert len(re.findall(r"<details>", "\n".join(prose))) >= 2, "predict-then-run questions with folded answers"
    assert re.search(r"^check\.\w+\(", code, re.M), "no check cell"
    assert re.search(r"^explore\(", code, re.M), "no widget"


@every_lecture
def test_widgets_are_plain_functions_defined_in_the_notebook(path):
    """``explore(figure_for, name=[…])``: first argument a function of the notebook, one grid."""
    trees = [tree_of(cell.source) for cell in code_of(read(path))]
    functions = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "explore"
    ]
    for call in calls:
        assert isinstance(call.args[0], ast.Name) and call.args[0].id in functions, ast.unparse(call)
        assert len([k for k in call.keywords if k.arg != "sheet"]) == 1, ast.unparse(call)


@every_lecture
def test_cells_are_short_enough_to_read(path):
    for cell in code_of(read(path)):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source.splitlines()[0]


@every_lecture
def test_links_between_notebooks_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|attachment:|mailto:)([^)#\s]+)", cell.source):
                assert (path.parent / target).exists(), target


# --- execution ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> dict[str, dict]:
    """``report.json`` rows by path, after one ``course run`` over everything with every value of every slider."""
    out = tmp_path_factory.mktemp("course_run")
    course = Path(sys.executable).parent / "course"
    command = [str(course), "run", "--budget", "quick", "--workers", "2", "--device", "cpu"]
    command += ["--out", str(out), "--timeout", str(QUICK_SECONDS)]
    environment = {**os.environ, "COURSE_EXPLORE_ALL": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    report = out / "report.json"
    assert report.exists(), f"course run wrote no report (exit code {done.returncode}):\n{done.stdout}\n{done.stderr}"
    rows = {row["path"]: row for row in json.loads(report.read_text())["notebooks"]}
    for row in rows.values():
        row["notebook"] = row["executed"] and nbformat.read(out / row["executed"], as_version=4)
        row["exit code"] = done.returncode
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("path", named(LECTURES + SOLUTIONS))
def test_runs_without_a_warning(path, executed):
    row = executed[str(path.relative_to(ROOT))]
    if row["error"]:
        pytest.fail("{status}, cell {cell}: {name}: {message}\n{source}".format(status=row["status"], **row["error"]))
    assert row["status"] == "passed" and row["cells_done"] == row["cells"]
    said = [
        output.get("text", "")
        for cell in code_of(row["notebook"])
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert row["warnings"] == 0 and said == []


@pytest.mark.slow
@pytest.mark.parametrize("path", named(LECTURES))
def test_a_run_shows_figures_and_passed_checks(path, executed):
    outputs = [o for cell in code_of(executed[str(path.relative_to(ROOT))]["notebook"]) for o in cell.outputs]
    text = "".join(o.text for o in outputs if o.output_type == "stream")
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert "✓" in text  # a check that fails stops the run; lecture 00 shows one on purpose
    assert len(pictures) >= 3


@pytest.mark.slow
def test_the_run_covers_everything_and_says_so(executed):
    assert set(executed) == {str(path.relative_to(ROOT)) for path in LECTURES + SOLUTIONS}
    passed = all(row["status"] == "passed" for row in executed.values())
    assert {row["exit code"] for row in executed.values()} == {0 if passed else 1}
