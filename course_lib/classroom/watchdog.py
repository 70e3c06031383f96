"""Watches the processes of one sandbox from outside: memory, life time, open files; ends them and says why."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_lib.classroom.sandbox import Limits

TICK = 0.1  # seconds between two looks
NOTEWORTHY = 1.1  # times the most memory so far, from above: then the exact figure is asked for again
KEPT = 4000  # bytes of what the sandbox wrote to its standard error: enough for the reason of a crash
UNWATCHED = "could not be watched"  # begins a verdict that is not the submission's fault
SMALL_FILE = 1024  # bytes of the system's memory for a file in a memory file system, even an empty one


class Watchdog(threading.Thread):
    """Attributes:
    verdict: why the sandbox ended, if nobody here asked it to; None while it runs, and if somebody did.
    peak: most bytes of memory at a time.
    closed: it is over, and `close` has been called.
    """

    def __init__(self, process: subprocess.Popen, init: int, errors: int, limits: Limits, most_open: int) -> None:
        """
        Args:
            process: bubblewrap's outer process.
            init: process id of the sandbox's first process, as seen from here.
            errors: where to read the sandbox's standard error; closed in the end.
            limits: see there.
            most_open: how many files one process may open.
        """
        super().__init__(name=f"watchdog of {process.pid}", daemon=True)
        self.verdict: str | None = None
        self.peak = self._rough = 0
        self._process, self._errors, self._limits, self._most_open = process, errors, limits, most_open
        self._end = os.pidfd_open(init)
        self.closed = False
        self._asked = False
        self._tail = b""
        self._folders: list[int] = []
        self._born = time.monotonic()

    def ready(self, folders: Sequence[int]) -> None:
        """The kernel is up: time runs from now, and the files of these memory file systems are counted too.

        Args:
            folders: descriptors, closed by their owner after the end.
        """
        self._folders = list(folders)
        self._born = time.monotonic()

    def expect_end(self) -> None:
        """The end that comes now was asked for and gets no verdict."""
        self._asked = True

    def said(self) -> str:
        """The last lines on the sandbox's standard error."""
        return self._tail.decode(errors="replace").strip()

    def kill(self) -> None:
        """End every process of the sandbox; they are gone when `gone` says so."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, signal.SIGKILL)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def gone(self, seconds: float) -> bool:
        """Wait until no process of the sandbox is left: the first one ends after all others."""
        return _readable(self._end, seconds)

    def close(self) -> None:
        """Give the handle of the processes back, after the end."""
        self.join()
        os.close(self._end)
        self.closed = True

    def run(self) -> None:
        try:
            self._watch()
        except BaseException as error:  # unwatched code must not run on
            self.verdict = f"{UNWATCHED}: {type(error).__name__}: {error}"
            self.kill()

    def _watch(self) -> None:
        reading = True
        while self._process.poll() is None:
            if not reading:
                time.sleep(TICK)
            elif _readable(self._errors, TICK):
                reading = self._read(self._errors)
            if not self._asked:
                self._judge()
        while reading and _readable(self._errors, 0):
            reading = self._read(self._errors)
        os.close(self._errors)
        if self.verdict is None and not self._asked:
            self.verdict = self._cause(self._process.returncode)

    def _read(self, descriptor: int) -> bool:
        piece = os.read(descriptor, 65536)
        self._tail = (self._tail + piece)[-KEPT:]
        return bool(piece)

    def _judge(self) -> None:
        limits = self._limits
        pids = list(processes_below(self._process.pid))
        filed, files = self._files()
        used = filed + sum(map(resident, pids))
        # what processes share was counted several times; the exact figure takes milliseconds of both sides
        if used > NOTEWORTHY * self._rough or used > limits.memory_mib << 20:
            self._rough = max(self._rough, used)
            used = filed + sum(map(proportional, pids))
            self.peak = max(self.peak, used)
        if used > limits.memory_mib << 20:
            self.verdict = f"used more than {limits.memory_mib} MiB of memory"
        elif files > limits.small_files:
            self.verdict = f"made more than {limits.small_files} files"
        elif sum(open_files(pid, self._most_open) for pid in pids) > limits.open_files:
            self.verdict = f"held more than {limits.open_files} files open"
        elif time.monotonic() - self._born > limits.wall_s:
            self.verdict = f"ran for more than {limits.wall_s:g} s"
        if self.verdict:
            self.kill()

    def _files(self) -> tuple[int, int]:
        """Bytes of memory and number of files in the watched folders."""
        size = count = 0
        for folder in self._folders:
            state = os.fstatvfs(folder)
            size += (state.f_blocks - state.f_bfree) * state.f_frsize
            count += state.f_files - state.f_ffree
        return size + count * SMALL_FILE, count

    def _cause(self, status: int) -> str:
        number = status - 128 if status > 128 else -status  # bubblewrap passes the kernel's end on, as a shell does
        if number == signal.SIGXCPU:
            return f"used more than {self._limits.cpu_s} s of processor time"
        if number == signal.SIGKILL:
            return "was killed: by its own code, or by the system for want of memory"
        if number in set(signal.Signals):
            return f"crashed ({signal.Signals(number).name}, {signal.strsignal(number)})"
        said = self.said()
        if said.startswith("bwrap: "):
            return said
        return f"ended by its own code (exit status {status})"


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether something can be read within so long; unlike `select`, for descriptors of any number."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def processes_below(root: int) -> Iterator[int]:
    """`root` and all its descendants; the kernel's lists of children cost less than reading all of /proc."""
    todo = [root]
    while todo:
        pid = todo.pop()
        yield pid
        with contextlib.suppress(OSError):  # it ended
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as children:
                    todo += map(int, children.read().split())


def resident(pid: int) -> int:
    """Bytes of anonymous, shared and swapped memory, from above: what it shares counts fully."""
    return _sum(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:", "VmSwap:"))


def proportional(pid: int) -> int:
    """The same bytes, of shared ones its share; where that cannot be read, `resident`."""
    try:
        return _sum(f"/proc/{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"), strict=True)
    except PermissionError:
        return resident(pid)


def _sum(path: str, fields: tuple[str, ...], strict: bool = False) -> int:
    try:
        with open(path) as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith(fields))
    except PermissionError:
        if strict:
            raise
        return 0
    except OSError:  # it ended
        return 0


def open_files(pid: int, most: int) -> int:
    """How many descriptors a process has; one that hides them counts as having all it may."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return most
    except OSError:
        return 0
