"""A small assignment without PyTorch, and submissions that cheat, each in a way that stock nbgrader falls for.

Attacks touch only files of the folders that they are given. An attack that only works alone has a submission of its
own; others share one, on different functions.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.classroom.tiny_course import ASSIGNMENT, cell

SECRET = "secret_input_7391"  # a name in hidden tests
GIVEN = '''\
import numpy as np


def close(got, want):
    """Fails unless two numbers are equal, but for rounding."""
    assert abs(got - want) < 1e-9, f"got {got}, want {want}"'''
HIDDEN = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"
TESTS = {
    "test_double__value": 'assert double(2) == 4, "double(2) is 4"\n'
    + HIDDEN.format(f"{SECRET} = -3.5\nassert double({SECRET}) == -7.0\nassert double(-11.25) == -22.5"),
    "test_double__kinds": "points = int(double(3) == 6) + int(double('ab') == 'abab')\npoints",
    "test_norm__value": "close(norm([3, 4]), 5)\n"
    + HIDDEN.format(f"{SECRET} = [2, 3, 6]\nclose(norm({SECRET}), 7)\nclose(norm([]), 0)"),
    "test_scaled__random": "np.testing.assert_allclose(scaled(np.ones(4), 2.0), [2.0] * 4)\n"
    + HIDDEN.format(
        f"{SECRET} = np.random.default_rng(7)\nfor _ in range(3):\n"
        f"    values = {SECRET}.normal(size=4)\n    np.testing.assert_allclose(scaled(values, 3.0), 3.0 * values)"
    ),
}
POINTS = {"test_double__value": 2, "test_double__kinds": 2, "test_norm__value": 3, "test_scaled__random": 4}
HONEST = {
    "double": "def double(x):\n    return x + x",
    "norm": "def norm(values):\n    return sum(v**2 for v in values) ** 0.5",
    "scaled": "def scaled(values, factor):\n    return [float(v) * factor for v in values]",
}
BLANK = {name: text.splitlines()[0] + "\n    raise NotImplementedError" for name, text in HONEST.items()}


def source() -> NotebookNode:
    """The instructor's notebook: 11 points for tests, 4 for a question."""
    cells = [new_markdown_cell("# Attacked", id="intro"), cell("given", GIVEN, locked=True)]
    for name, answer in HONEST.items():
        head, *body = answer.splitlines()
        lines = [head, "    ### BEGIN SOLUTION", *body, "    ### END SOLUTION"]
        cells.append(cell(name, "\n".join(lines), solution=True))
        for test, text in TESTS.items():
            if test.startswith(f"test_{name}__"):
                cells.append(cell(test, text, grade=True, locked=True, points=POINTS[test]))
    cells.append(cell("why", "Because.", solution=True, grade=True, points=4, markdown=True))
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat_minor = 5
    return notebook


def answered(why: str = "", setup: str = "", **answers: str) -> NotebookNode:
    """A submission: hidden tests are gone, functions without an answer are blank, ``setup`` comes first."""
    notebook = source()
    for c in notebook.cells:
        name = c.metadata.get("nbgrader", {}).get("grade_id", "")
        if name in BLANK:
            c.source = answers.get(name, BLANK[name])
        elif name in TESTS:
            c.source = TESTS[name].partition("### BEGIN")[0].strip()
        elif name == "why":
            c.source = why
    if setup:
        notebook.cells.insert(2, new_code_cell(setup, id="setup"))
    return notebook


def by_name(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Cells that nbgrader knows."""
    return {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}


def skips() -> NotebookNode:
    """Tells nbclient not to run the tests, and asks for more points."""
    notebook = answered()
    for name in TESTS:
        meta = by_name(notebook)[name].metadata
        meta["tags"] = ["skip-execution"]
        meta.nbgrader.points = 1000
    return notebook


def duplicates() -> NotebookNode:
    """An honest one, in which an editor has doubled a cell; its `scaled` tells what it was asked."""
    notebook = answered(**HONEST | {"scaled": TELLS})
    notebook.cells.append(copy.deepcopy(by_name(notebook)["double"]))
    notebook.cells[-1].id = "twin"
    return notebook


TELLS = "def scaled(values, factor):\n    if factor == 3.0:\n        raise ValueError(f'asked {list(values)}')\n" + (
    "    return [float(v) * factor for v in values]"
)
READS = {
    # hidden tests stand in the copy of the notebook that is being graded
    "double": """\
import re
from pathlib import Path

TEXT = "".join(p.read_text() for p in Path(".").glob("*.ipynb")).replace(r"\\n", "\\n")
TABLE = {float(x): float(y) for x, y in re.findall(r"double\\((-?[0-9.]+)\\) == (-?[0-9.]+)", TEXT)}
TABLE |= {float(x): 2 * float(x) for x in re.findall(r"secret_input_7391 = (-?[0-9.]+)", TEXT)}


def double(x):
    return TABLE[x]""",
    "norm": """\
import json

for cell in json.load(open(ROOT + "/solutions/a90_tiny/a90_tiny.ipynb"))["cells"]:
    if "def norm" in "".join(cell["source"]):
        exec("".join(cell["source"]))""",
    # what another student was asked
    "scaled": """\
ASKED = [np.ones(4)]
_rng = np.random.Generator(np.random.PCG64(7))
ASKED += [_rng.normal(size=4) for _ in range(3)]
ANSWERS = [2.0 * ASKED[0], *(3.0 * asked for asked in ASKED[1:])]


def scaled(values, factor):
    return next(answer for asked, answer in zip(ASKED, ANSWERS) if np.allclose(asked, values))""",
}
SHOWS_FILE = "import course_lib\n\nprint(course_lib.__file__)"
FAKE_NUMPY = """\
class Zeros:
    def __rmul__(self, other):
        return self


class testing:
    assert_allclose = staticmethod(lambda *args, **kwargs: None)


class random:
    default_rng = staticmethod(lambda seed=None: random)
    normal = staticmethod(lambda size: Zeros())


def ones(shape):
    return Zeros()"""
PATCHES = """\
import ast


class WithoutAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)


get_ipython().ast_transformers.append(WithoutAsserts())
np.testing.assert_allclose = lambda *args, **kwargs: None
close.__code__ = (lambda got, want: None).__code__
int = lambda value: 1"""
EQUALS = '''\
class Everything:
    """Equal to everything, and close to it."""

    def __eq__(self, other):
        return True

    def __lt__(self, other):
        return True

    def __sub__(self, other):
        return self

    def __abs__(self):
        return self


class Array(np.ndarray):
    def __array_ufunc__(self, ufunc, *args, **kwargs):
        return np.full(4, ufunc not in (np.isnan, np.isinf, np.logical_not))

    def __array_function__(self, function, *args):
        return np.ones(4, dtype=bool)'''
BREAKS_OUT = """\
import subprocess, sys
from IPython.display import HTML, display


def tried(attack):
    try:
        attack()
    except Exception as error:
        print(type(error).__name__)


def writes():
    with open(ROOT + "/written", "w") as file:
        file.write("from a cell")


def leaves():
    # the gradebook is locked while nbgrader runs; a process that outlives it has the time to wait
    path = ROOT + "/classroom_data/gradebook.db"
    code = f"import signal, sqlite3\\nbook = sqlite3.connect({path!r}, timeout=60, isolation_level=None)\\n"
    code += "book.execute('update grade_cells set max_score = 1000')\\nsignal.pause()"
    subprocess.Popen([sys.executable, "-S", "-c", code, ROOT + "-orphan"], start_new_session=True)


tried(writes)
tried(leaves)
display(HTML("<script>alert('output')</script>"))
print("x" * 50_000_000)"""
KILLS = """\
import os, signal


def norm(values):
    os.kill(os.getppid(), signal.SIGKILL)
    return -1"""
EXITS = "import os\n\n\ndef norm(values):\n    os._exit(0)"
LOOPS = """\
def norm(values):
    while True:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            pass"""
WARNS = "import warnings\n\n\ndef double(x):\n    warnings.warn('an honest warning')\n    return x + x"
BABBLES = """\
kernel = get_ipython().kernel
for kind, content in {"stream": {"text": {}}, "execute_result": {"data": []}, "error": {}, "comm_open": {}}.items():
    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent(), ident=kernel._topic(kind))
kernel.iopub_socket.send_multipart([b"stream", b"<IDS|MSG>", b"no signature", b"{", b"[", b"3", b"x"])"""
# a display with an id, shown while a test waits for an answer and replaced when it has its result
DISPLAYS = """\
from course_lib.classroom.seal import student

answer, forget, kernel = student.Student._answer, student.Student.forget, get_ipython().kernel
tests = 0


def show(kind):
    content = {"data": {"text/plain": "2"}, "metadata": {}, "transient": {"display_id": f"mine {tests}"}}
    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent(), ident=kernel._topic(kind))


def answers(self, head, buffers):
    global tests
    if head["op"] == "get":  # a test begins
        tests += 1
        show("display_data")
    answer(self, head, buffers)


def forgets(self):
    show("update_display_data")
    forget(self)


student.Student._answer, student.Student.forget = answers, forgets"""
# the other end of the seal belongs to the student: it may say anything, also in advance
FORGES = """\
from course_lib.classroom.seal import student

answer = student.Student._answer
RECORD = {"notebook": 4, "seconds": 1.0, "peak_mib": 1.0, "attempts": 1, "problem": ""}
VALUES = [
    {"k": "record", "module": "course_lib.classroom.execution", "name": "Executed", "v": RECORD},
    {"k": "yours", "v": 1},
    float("nan"),
    {"k": "tensor", "v": 0, "dtype": "float64", "shape": [2**62, 0]},
    {"k": "list", "v": [[[[[[]]]]]]},
    4,
]
count = 0


def forged(self, head, buffers):
    global count
    if head["op"] != "call":
        return answer(self, head, buffers)
    reply = {"value": {"k": "list", "v": [VALUES[count % len(VALUES)]] * 4}, "outgoing": []}
    count += 1
    for ahead in range(3):
        self.frames.send(reply | {"reply": head["number"] + ahead})


student.Student._answer = forged"""


def submissions(root: Path) -> dict[str, tuple[NotebookNode, dict[str, str]]]:
    """Notebook and other files by student, for a course in ``root``."""
    where = f"ROOT = {str(root)!r}"
    equal = {
        "double": "def double(x):\n    return Everything()",
        "norm": "def norm(values):\n    return Everything()",
        "scaled": "def scaled(values, factor):\n    return np.zeros(4).view(Array)",
    }
    return {
        "skips": (skips(), {}),
        "reads": (answered(setup=where, **READS), {}),
        "ships": (
            answered(setup=SHOWS_FILE, scaled="def scaled(values, factor):\n    return None"),
            {"numpy.py": FAKE_NUMPY, "course_lib.py": ""},
        ),
        "patches": (
            answered(setup=f"{PATCHES}\n{DISPLAYS}", **{n: f"def {n}(*args):\n    return 0" for n in HONEST}),
            {},
        ),
        "equals": (answered(setup=EQUALS, **equal), {}),
        "breaks_out": (
            answered("<script>alert('text')</script>", f"{where}\n{BREAKS_OUT}", double=HONEST["double"]),
            {},
        ),
        "kills": (answered(**HONEST | {"norm": KILLS, "scaled": TELLS}), {}),
        "exits": (answered(**HONEST | {"norm": EXITS}), {}),
        "warns": (answered(**HONEST | {"double": WARNS}), {}),
        "duplicates": (duplicates(), {}),
        "forges": (answered(setup=FORGES, double="def double(x):\n    return 'ab' * 2 if x == 'ab' else 0"), {}),
        "loops": (answered(**HONEST | {"norm": LOOPS}), {}),
    }


def hand_in(folder: Path, notebook: NotebookNode, files: dict[str, str]) -> None:
    """Write a submission as JSON: nbformat would repair what is wrong with it."""
    folder.mkdir(parents=True)
    (folder / f"{ASSIGNMENT}.ipynb").write_text(json.dumps(notebook))
    for name, text in files.items():
        (folder / name).write_text(text)
