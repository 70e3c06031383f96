"""Both sides of the seal in one process: the student's side is a thread, what it sends crosses a real socket."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

from course_lib.classroom.seal.cells import IN_PLACE, read_names
from course_lib.classroom.seal.checker import Checker
from course_lib.classroom.seal.frames import Closed, Frames
from course_lib.classroom.seal.student import Student


@contextlib.contextmanager
def sealed(namespace: dict[str, Any], seconds: float = 60.0) -> Iterator[Checker]:
    """A checker whose student has ``namespace``."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(Closed):
            Student(Frames(theirs), namespace).serve()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    checker = Checker(Frames(ours), namespace.get, seconds, shares_randomness=True)
    try:
        yield checker
    finally:
        ours.close()
        thread.join(10)
        theirs.close()


def run_sealed(source: str, given: dict[str, Any], student: dict[str, Any], exports: frozenset[str]) -> None:
    """Execute a test cell with stand-ins for the student's names; raises what it raises.

    Args:
        source: of the test cell.
        given: what the instructor's cells define.
        student: the student's namespace.
        exports: names of the student's that the cell may use.
    """
    with sealed(student) as checker, contextlib.redirect_stdout(io.StringIO()):
        checker.in_place = IN_PLACE in source
        wanted = sorted(read_names(source) & exports)
        namespace = {k: v for k, v in given.items() if k not in exports} | checker.get(wanted)
        exec(compile(source, "<test>", "exec"), namespace)
