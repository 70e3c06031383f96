"""Find, measure and end every process that an executed notebook has started.

A kernel runs in a session of its own and what a notebook starts may outlive its parent, so neither a process group nor
the tree of parents is enough. Every process of a run inherits the environment variable ``COURSE_RUN``.
"""

from __future__ import annotations

import contextlib
import os
import time

import psutil

MARK = "COURSE_RUN"


def marked(mark: str) -> list[psutil.Process]:
    """Living processes whose ``COURSE_RUN`` begins with ``mark``, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, a zombie, or another user's
            continue
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """The process ``pid`` and all below it; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def end_processes(mark: str, pid: int | None = None) -> None:
    """Kill the processes that carry ``mark``, and the tree under ``pid``; return when none is left.

    Raises:
        RuntimeError: a process survived being killed for ten seconds (it hangs in the system's kernel).
    """
    deadline = time.monotonic() + 10
    # again and again: a process may have forked between being listed and being killed
    while left := [p for p in marked(mark) + (descendants(pid) if pid else []) if _alive(p)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted({p.pid for p in left})} cannot be killed")
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)


def resident_bytes(pid: int) -> int:
    """Resident memory of the tree under ``pid``, summed."""
    total = 0
    for process in descendants(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
