"""What a notebook's cells define and need, read from their text."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution

UNSEALED = "# unsealed"  # this test cell runs in the student's process
IN_PLACE = "# in place"  # this one expects functions that change their arguments


def bound_names(source: str) -> set[str]:
    """Names that a cell binds at its top level."""
    return set().union(*map(_bound_by, ast.parse(source).body))


def _bound_by(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def read_names(source: str) -> set[str]:
    """Names that a cell reads before it binds them itself, built-in ones excepted."""
    bound: set[str] = set()
    free: set[str] = set()
    for statement in ast.parse(source).body:
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        loads = {n.id for n in names if isinstance(n.ctx, ast.Load)}
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            loads.add(statement.target.id)
        if not isinstance(
            statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)
        ):  # loops, functions: names of their own
            loads -= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        loads -= {a.arg for a in ast.walk(statement) if isinstance(a, ast.arg)}
        targets = [c.target for c in ast.walk(statement) if isinstance(c, ast.comprehension)]
        loads -= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        free |= loads - bound
        bound |= _bound_by(statement)
    return {name for name in free if not hasattr(builtins, name)}


@dataclass(frozen=True)
class Plan:
    """Which cells of an assignment the checker runs.

    Attributes:
        exports: names that the student's cells define; stand-ins in the checker.
        needed: grade_ids (or positions, for cells without one) of the locked cells that tests depend on.
        sealed, unsealed: grade_ids of the test cells that run in the checker, and of those marked as not.
        unresolved: names that a test reads and that no cell defines, by grade_id.
        given_away: tests whose last line is a value that the student's code makes: Jupyter shows it, and nbgrader
            takes a number that a test shows for its points.
    """

    exports: frozenset[str]
    needed: frozenset[str]
    sealed: tuple[str, ...]
    unsealed: tuple[str, ...]
    unresolved: dict[str, list[str]] = field(default_factory=dict)
    given_away: tuple[str, ...] = ()


def key_of(cell: NotebookNode, position: int) -> str:
    """A cell's grade_id, or its position where it has none."""
    return cell.metadata.get("nbgrader", {}).get("grade_id") or f"#{position}"


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell is graded by running it."""
    return cell.cell_type == "code" and bool(is_grade(cell)) and not is_solution(cell)


def plan(notebook: NotebookNode) -> Plan:
    """Read the instructor's notebook (with solutions and hidden tests)."""
    code = [(key_of(c, i), c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]
    own = [(key, c) for key, c in code if is_solution(c)]
    tests = [(key, c) for key, c in code if is_test(c)]
    given = [(key, c) for key, c in code if not is_solution(c) and not is_test(c)]
    exports = frozenset().union(*(_functions_and_values(c.source) for _, c in own))
    sealed = [(key, c) for key, c in tests if UNSEALED not in c.source]
    defined = {key: bound_names(c.source) for key, c in given}
    wanted = _closure({n for _, c in sealed for n in read_names(c.source)}, [(k, c.source) for k, c in given])
    needed = frozenset(key for key in defined if defined[key] & wanted or _has_no_names(key, given))
    known = exports.union(*defined.values())
    unresolved = {}
    for key, cell in tests:
        missing = sorted(read_names(cell.source) - known - bound_anywhere(cell.source))
        if missing:
            unresolved[key] = missing
    unsealed = tuple(key for key, c in tests if UNSEALED in c.source)
    given_away = tuple(key for key, c in tests if _shows(c.source, exports))
    return Plan(exports, needed, tuple(key for key, _ in sealed), unsealed, unresolved, given_away)


def _shows(source: str, names: frozenset[str]) -> bool:
    """Whether a cell ends with an expression made of one of the names; what a checking function returns is its own."""
    last = ast.parse(source).body[-1:]
    if not last or not isinstance(last[0], ast.Expr):
        return False
    value = last[0].value
    called = value.func if isinstance(value, ast.Call) else None
    while isinstance(called, ast.Attribute):
        called = called.value
    if isinstance(called, ast.Name) and called.id not in names:
        return False
    return any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(value))


def bound_anywhere(source: str) -> set[str]:
    """Names that a cell binds at any level: parameters, loop variables, comprehensions."""
    bound = bound_names(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) or (isinstance(node, ast.ExceptHandler) and node.name):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return bound


def _functions_and_values(source: str) -> set[str]:
    """What a student's cell defines; its imports are not the student's."""
    tree = ast.parse(source)
    tree.body = [s for s in tree.body if not isinstance(s, (ast.Import, ast.ImportFrom))]
    return bound_names(ast.unparse(tree))


def _closure(names: set[str], cells: Sequence[tuple[str, str]]) -> set[str]:
    """``names``, and those that the cells which define them read."""
    wanted = set(names)
    while True:
        more = {n for _, source in cells if bound_names(source) & wanted for n in read_names(source)}
        if more <= wanted:
            return wanted
        wanted |= more


def _has_no_names(key: str, cells: Iterable[tuple[str, NotebookNode]]) -> bool:
    """A cell that only acts (a seed, a setting) may matter to every test."""
    return any(k == key and not bound_names(c.source) and "torch.set_" in c.source for k, c in cells)
