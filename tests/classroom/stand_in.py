"""Stand-ins for `execute_submission`, for tests of everything around it: they run the cells in the worker itself."""

from __future__ import annotations

import contextlib
import copy
import io
import time
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_output

from course_lib.classroom.execution import Executed, ExecutionOptions


def execute_here(
    notebook: NotebookNode, source: NotebookNode, files: Path, student_seed: int, options: ExecutionOptions
) -> Executed:
    """Run code cells one after the other in one namespace of this process; `SEED` and `FILES` are defined."""
    begin = time.monotonic()
    notebook = copy.deepcopy(notebook)
    names: dict[str, object] = {"SEED": student_seed, "FILES": files}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        out, err = io.StringIO(), io.StringIO()
        cell.outputs = []
        error = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exec(cell.source, names)
            except Exception as raised:
                error = raised
        for stream, text in (("stdout", out.getvalue()), ("stderr", err.getvalue())):
            if text:
                cell.outputs.append(new_output("stream", name=stream, text=text))
        if error is not None:
            kind = type(error).__name__
            trace = [f"\x1b[31m{kind}\x1b[0m: the source of a hidden test"]
            cell.outputs.append(new_output("error", ename=kind, evalue=str(error), traceback=trace))
    return Executed(notebook, time.monotonic() - begin, 1.0, attempts=(), problem="")


def nothing_works(
    notebook: NotebookNode, source: NotebookNode, files: Path, student_seed: int, options: ExecutionOptions
) -> Executed:
    """An execution that could not even begin."""
    return Executed(notebook, 0.0, 0.0, attempts=(), problem="the kernel did not start")
