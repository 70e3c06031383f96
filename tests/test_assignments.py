"""Graders are tested: the reference and a second solution pass everything, a blank release passes nothing, and every
plausible wrong answer loses its own function's points and nobody else's.

Runs the notebooks' cells in this process (no kernel each), so hundreds of mutants stay cheap, but on both sides of the
seal, as the grader does: whatever a test and an answer say to each other crosses a socket.
Convention: the solution cell of function ``f`` has grade_id ``f``; its graded cells are ``test_f__…``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from functools import cache
from pathlib import Path

import nbformat
import pytest
import torch

from course_lib.classroom.seal.cells import bound_names, plan, read_names
from tests.classroom.loopback import run_sealed

ROOT = Path(__file__).parent.parent
ASSIGNMENTS = sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir())


def code_cells(folder: str, assignment: str) -> list[tuple[str, dict, str]]:
    """(grade_id, nbgrader metadata, source) of every code cell, in the quick budget: no test depends on it."""
    notebook = nbformat.read(ROOT / folder / assignment / f"{assignment}.ipynb", as_version=4)
    found = []
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code":
            source = cell.source.replace('BUDGET = "full"', 'BUDGET = "quick"')
            assert not (is_test(meta) and "budget(" in source), f"{meta['grade_id']} depends on the budget"
            found.append((meta.get("grade_id", ""), meta, source))
    return found


def is_test(meta: dict) -> bool:
    return bool(meta.get("grade")) and not meta.get("solution")


def function_of(grade_id: str) -> str:
    return grade_id.removeprefix("test_").split("__")[0]


def run(source: str, namespace: dict, name: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, f"<{name}>", "exec"), namespace)


@cache
def reference(assignment: str) -> dict:
    """The namespace after all cells of the solution that are no tests."""
    namespace: dict = {"__name__": "__main__"}
    for grade_id, meta, source in code_cells("solutions", assignment):
        if not is_test(meta):
            run(source, namespace, grade_id or "cell")
    return namespace


@cache
def dependencies(assignment: str) -> dict[str, set[str]]:
    """The names that each test cell reads, those that their definitions read, and so on."""
    cells = code_cells("solutions", assignment)
    reads = [(bound_names(source), read_names(source)) for _, meta, source in cells if not is_test(meta)]
    found = {}
    for grade_id, meta, source in cells:
        if is_test(meta):
            names, before = read_names(source), set()
            while names != before:
                before, names = names, names.union(*(r for bound, r in reads if bound & names))
            found[grade_id] = names
    return found


def failed_tests(assignment: str, answers: dict, enough: str = "") -> set[str]:
    """grade_ids of the graded cells that fail when ``answers`` take the place of the solution's functions.

    As in the grader, the answers are on the other side of the seal. Cells that cannot notice are left out, and when one
    of the function ``enough`` has failed, its others too.
    """
    failed = set()
    student = {**reference(assignment), **answers}
    exports = plan(nbformat.read(ROOT / "solutions" / assignment / f"{assignment}.ipynb", as_version=4)).exports
    for function in answers.values():
        # a mutant written in another module must see the notebook's imports and helpers
        getattr(function, "__globals__", {}).update({k: v for k, v in student.items() if not k.startswith("__")})
    for grade_id, meta, source in code_cells("solutions", assignment):
        if not is_test(meta) or (answers and not dependencies(assignment)[grade_id] & set(answers)):
            continue
        if any(function_of(grade_id) == function_of(other) == enough for other in failed):
            continue
        torch.manual_seed(0)
        try:
            run_sealed(source, reference(assignment), student, exports)
        except Exception:
            failed.add(grade_id)
    return failed


def answers_to(assignment: str):
    return importlib.import_module(f"tests.mutants.{assignment}").answers


every_assignment = pytest.mark.parametrize("assignment", ASSIGNMENTS)


def all_mutants() -> list:
    return [
        pytest.param(a, name, function, id=f"{a}-{name}-{what}")
        for a in ASSIGNMENTS
        for name, what, function in answers_to(a).mutants
    ]


def graded_functions(assignment: str) -> set[str]:
    return {function_of(g) for g, meta, _ in code_cells("solutions", assignment) if is_test(meta)}


@every_assignment
def test_reference_passes_everything(assignment):
    assert failed_tests(assignment, {}) == set()


@every_assignment
def test_second_solution_passes_everything(assignment):
    seconds = answers_to(assignment).seconds
    assert set(seconds) == graded_functions(assignment), "a second solution is needed for every graded function"
    assert failed_tests(assignment, seconds) == set()


@pytest.mark.parametrize(("assignment", "name", "function"), all_mutants())
def test_mutant_loses_its_own_points_only(assignment, name, function):
    failed = failed_tests(assignment, {name: function}, enough=name)
    assert {g for g in failed if function_of(g) == name}, f"no graded cell of {name} notices"
    others = {g for g in failed if function_of(g) != name}
    assert not others, f"one mistake charged twice: {others} fail too"


@every_assignment
def test_blank_release_gets_nothing(assignment):
    namespace: dict = {"__name__": "__main__"}
    passed = []
    for grade_id, meta, source in code_cells("assignments", assignment):
        try:
            run(source, namespace, grade_id or "cell")
        except Exception:
            continue
        if is_test(meta):
            passed.append(grade_id)
    assert passed == []


@every_assignment
def test_shape_of_the_assignment(assignment):
    cells = code_cells("solutions", assignment)
    tests = [meta for _, meta, _ in cells if is_test(meta)]
    assert 8 <= len(tests) <= 12, f"{len(tests)} autograded cells"
    assert all(meta["points"] > 0 for meta in tests)
    counts = {name: sum(m[0] == name for m in answers_to(assignment).mutants) for name in graded_functions(assignment)}
    assert all(n >= 3 for n in counts.values()), f"at least three mutants a graded function: {counts}"
    notebook = nbformat.read(ROOT / "solutions" / assignment / f"{assignment}.ipynb", as_version=4)
    manual = [c for c in notebook.cells if c.cell_type == "markdown" and c.metadata.get("nbgrader", {}).get("grade")]
    assert manual, "a manually graded question is missing"
    assert "BEGIN HIDDEN TESTS" in "".join(source for *_, source in cells)
