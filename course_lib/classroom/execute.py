"""Execute one notebook with papermill and report each cell as a line of JSON on standard output.

A worker starts ``python -m course_lib.classroom.execute '{"path": …, "output": …, "parameters": {…}}'`` for each
notebook. Standard input is a leash: when it closes, the worker is gone, and this process takes its kernel with it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from course_lib.classroom.processes import MARK, end_processes

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LONGEST_SOCKET = 90  # bytes; systems allow a little over 100, and "-ipc-5" is appended
Say = Callable[..., None]


def main(request: dict) -> None:
    channel = _private_stdout()
    lock = threading.Lock()

    def say(event: str, **fields: object) -> None:
        with lock:
            channel.write(json.dumps({"event": event, **fields}) + "\n")
            channel.flush()

    threading.Thread(target=_follow_parent, daemon=True).start()
    status, error = execute(Path(request["path"]), Path(request["output"]), request["parameters"], say)
    say("end", status=status, error=error)


def execute(path: Path, output: Path, parameters: dict, say: Say) -> tuple[str, dict | None]:
    """Execute ``path`` in its own folder and write ``output``.

    Args:
        path, output: the notebook and where the executed one goes.
        parameters: set in notebooks that have a cell tagged ``parameters``, ignored by others.
        say: called with ``"cell"``, the code cells done, their total and the source of the cell that starts.

    Returns:
        ``passed``, ``failed`` or ``invalid``; and what went wrong: cell, name, message, source, traceback.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever a broken file makes nbformat raise, its message goes to the report
        first_line = str(error).strip().split("\n")[0]
        return "invalid", problem(type(error).__name__, f"not a Jupyter notebook: {first_line[:300]}")
    tagged = any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    papermill_engines.register("course", reporting_engine(say))
    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters=parameters if tagged else None,
            engine_name="course",
            kernel_name="python3",  # this interpreter's, whatever the notebook was written with
            language="python",
            progress_bar=False,
            cwd=str(path.parent),
            config=_kernel_config(),
        )
    except PapermillExecutionError as error:
        lines = ANSI.sub("", "\n".join(error.traceback))
        return "failed", problem(error.ename, error.evalue, error.exec_count, error.source, lines)
    except DeadKernelError:
        return "failed", problem("DeadKernel", "the kernel died: out of memory, or a crash in native code")
    except Exception as error:  # a kernel that dies, a disk that is full: the report says which
        return "failed", problem(type(error).__name__, str(error), trace=traceback.format_exc())
    return "passed", None


def problem(name: str, message: str, cell: int | None = None, source: str = "", trace: str = "") -> dict:
    """What the report says of a notebook that did not pass; ``cell`` is the number in ``In [cell]``."""
    return {"name": name, "message": ANSI.sub("", message), "cell": cell, "source": source, "traceback": trace}


def reporting_engine(say: Say) -> type[NBClientEngine]:
    """papermill's engine, calling ``say`` as code cells start and end."""

    class ReportingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):  # signature of papermill
            total = sum(_runs(cell) for cell in nb_man.nb.cells)
            done = 0
            start, complete = nb_man.cell_start, nb_man.cell_complete

            def cell_start(cell, *args, **kwargs):
                if _runs(cell):
                    say("cell", done=done, total=total, source=cell.source)
                start(cell, *args, **kwargs)

            def cell_complete(cell, *args, **kwargs):
                nonlocal done
                died = sys.exc_info()[0] is not None  # papermill calls this in a `finally`
                complete(cell, *args, **kwargs)
                failed = cell.metadata.papermill["status"] == NotebookExecutionManager.FAILED
                if _runs(cell) and not died and not failed:
                    done += 1
                    say("cell", done=done, total=total, source="")

            nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    return ReportingEngine


def _runs(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _kernel_config() -> Config:
    """The kernel listens on sockets in the scratch folder, where that folder's name is short enough for a socket.

    TCP ports are chosen before the kernel binds them: two notebooks that start at once may choose the same.
    """
    connection = os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], "kernel.json")
    if os.name != "posix" or len(connection) > LONGEST_SOCKET:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "connection_file": connection}})


def _private_stdout() -> TextIO:
    """The channel to the worker. File descriptor 1 becomes standard error, so that no kernel can write into it."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _follow_parent() -> None:
    # a plain read of the descriptor: sys.stdin's lock would be held at interpreter exit
    while os.read(0, 1024):
        pass
    end_processes(os.environ[MARK])
    os._exit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
