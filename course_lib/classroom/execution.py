"""Execute a normalized submission: the student's cells in one kernel, the graded tests in another.

Kernel S runs what the student wrote. Kernel T runs the instructor's cells and the tests; it reaches S only through the
seal. Both are sandboxed. A kernel that dies or hangs costs the cells that are left, not the submission.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode, ValidationError
from nbformat.v4 import new_code_cell, new_output
from nbgrader.utils import is_grade

from course_lib.classroom.sandbox import Limits, SandboxedKernelManager
from course_lib.classroom.seal.cells import IN_PLACE, Plan, bound_names, is_test, key_of, plan, read_names
from course_lib.classroom.seal.student import FD
from course_lib.classroom.watchdog import UNWATCHED

LONGEST_MESSAGE = 2000  # characters of an error that a student sees
CALL_SECONDS = 60.0  # one call into the student's kernel
GRACE_SECONDS = 5.0  # to obey an interrupt
MOST_OUTPUT = 1 << 20  # bytes kept of a cell's output
MOST_OUTPUTS = 20 << 20  # of a notebook's
FATAL_OUTPUT = 200 << 20  # bytes that end the kernel
SERVE = "from course_lib.classroom.seal.student import serve as __course_serve__\n__course_serve__(globals())"
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class ExecutionOptions:
    """How submissions are executed.

    Attributes:
        sandbox: in sandboxed kernels; without, the code has all rights of whoever grades it.
        sealed: tests in a kernel of their own.
        cell_timeout, total_timeout: seconds for a cell, and for the notebook.
        limits: of each of the two kernels.
    """

    sandbox: bool = True
    sealed: bool = True
    cell_timeout: float = 120.0
    total_timeout: float = 600.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Executed:
    """What came of it.

    Attributes:
        notebook: with outputs; a graded cell has passed if none of them is an error.
        seconds: wall time.
        peak_mib: of the larger kernel; 0 without a sandbox.
        attempts: what honest code does not do, in words.
        problem: why it could not be executed at all, or empty.
    """

    notebook: NotebookNode
    seconds: float
    peak_mib: float
    attempts: tuple[str, ...]
    problem: str


def execute_submission(
    notebook: NotebookNode, source: NotebookNode, files: Path, student_seed: int, options: ExecutionOptions
) -> Executed:
    """Execute a submission.

    Args:
        notebook: the submission, normalized: its locked and test cells are the instructor's.
        source: the instructor's version, with solutions.
        files: folder whose files the student's kernel sees.
        student_seed: of the tests' random inputs.
        options: see `ExecutionOptions`.

    Raises:
        CourseError: a kernel cannot be started.
    """
    return asyncio.run(_Run(notebook, source, files, student_seed, options).execute())


class InstructorsError(Exception):
    """A cell of the instructor's does not run in the checker."""


class _Guarded(NotebookClient):
    """nbclient, with bounded output."""

    def __init__(self, nb: NotebookNode, km: AsyncKernelManager) -> None:
        options = {"timeout": None, "allow_errors": True, "store_widget_state": False}
        # a message that is too large closes the channel: silence must not be taken for success
        super().__init__(nb, km=km, raise_on_iopub_timeout=True, **options)
        self._all, self._seen = 0, 0

    async def run_cell(self, cell: NotebookNode, index: int, seconds: float) -> None:
        """Execute a cell; an error in it becomes an output.

        Raises:
            CellTimeoutError: it ignored its time limit and an interrupt.
            DeadKernelError: the kernel died.
        """
        self._seen = 0
        task = asyncio.ensure_future(self.async_execute_cell(cell, index, store_history=False))
        try:
            if await self._finished(task, seconds):
                self._ended_well(task)
                return _join_streams(cell)
            await self.km.interrupt_kernel()
            if await self._finished(task, GRACE_SECONDS):
                self._ended_well(task)
                _join_streams(cell)
                cell.outputs = [o for o in cell.outputs if o.output_type != "error"]  # of the interrupt
                fail(cell, "TimeoutError", f"stopped after {seconds:g} s")
                return None
        finally:  # also when nobody waits for this any more
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, DeadKernelError):
                    await task
        raise CellTimeoutError(f"a cell ran longer than {seconds:g} s and ignored the interrupt")

    async def ask(self, code: str, seconds: float, expression: str = "None") -> Any:
        """Run code of ours; returns the value of ``expression``, as JSON has it.

        Raises:
            InstructorsError: it raised; TimeoutError, DeadKernelError: it did not end.
        """
        message = self.kc.execute(
            code,
            silent=True,
            store_history=False,
            user_expressions={"value": f"__import__('json').dumps({expression})"},
        )
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                reply = await self.kc.get_shell_msg(timeout=min(1.0, max(0.01, left)))
            except Exception as error:  # queue.Empty, by the name of any version
                if type(error).__name__ != "Empty":
                    raise
                if not await self.km.is_alive():
                    raise DeadKernelError("the kernel died") from error
                if left <= 0:
                    raise TimeoutError(f"the tests got no answer within {seconds:g} s") from error
                continue
            if reply["parent_header"].get("msg_id") == message:
                break
        content = reply["content"]
        if content["status"] != "ok":
            raise InstructorsError(f"{content.get('ename')}: {ANSI.sub('', str(content.get('evalue')))[:500]}")
        value = content["user_expressions"]["value"]
        if value["status"] != "ok":
            raise InstructorsError(f"{value.get('ename')}: {value.get('evalue')}")
        return json.loads(value["data"]["text/plain"][1:-1].encode().decode("unicode_escape"))

    async def _check_raise_for_error(self, cell: NotebookNode, cell_index: int, exec_reply: dict | None) -> None:
        """nbclient asks here whether to stop. An error counts even if its message did not come through."""
        content = (exec_reply or {}).get("content", {})
        if content.get("status") != "ok" and not any(o.output_type == "error" for o in cell.outputs):
            fail(
                cell,
                str(content.get("ename", "Error")),
                ANSI.sub("", str(content.get("evalue", "the cell did not run"))),
            )

    @staticmethod
    def _ended_well(task: asyncio.Future) -> None:
        try:
            task.result()
        except (CellTimeoutError, DeadKernelError):
            raise
        except Exception as error:  # what makes Jupyter stumble was sent by the kernel, which the student's code can do
            raise DeadKernelError(f"the kernel sends what is no message ({type(error).__name__})") from error

    @staticmethod
    async def _finished(task: asyncio.Future, seconds: float) -> bool:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        return bool(done)

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """As nbclient, but for what is too much, and what would reach beyond the cell.

        A display with an id could be replaced later: from the student's kernel, in the place of a test's result.

        Raises:
            DeadKernelError: too much output.
        """
        if not isinstance(msg.get("content"), dict) or str(msg.get("msg_type")).startswith("comm"):
            return None
        msg["content"].pop("transient", None)
        if msg["msg_type"] in ("stream", "execute_result", "display_data", "update_display_data", "error"):
            size = len(json.dumps(msg["content"], default=str))
            room = min(MOST_OUTPUT - self._seen, MOST_OUTPUTS - self._all)
            self._all, self._seen = self._all + size, self._seen + size
            if self._all > FATAL_OUTPUT:
                raise DeadKernelError(f"more than {FATAL_OUTPUT >> 20} MiB of output")
            if size > room:
                if msg["msg_type"] == "error":
                    short = {name: str(msg["content"].get(name))[:LONGEST_MESSAGE] for name in ("ename", "evalue")}
                    msg["content"] = {**short, "traceback": []}
                elif msg["msg_type"] == "stream" and room > 0:
                    msg["content"]["text"] = msg["content"]["text"][:room] + "\n… cut here …\n"
                else:
                    return None
        try:
            return super().process_message(msg, cell, cell_index)
        except (AttributeError, KeyError, TypeError, ValueError, ValidationError):  # nonsense, from a student's kernel
            return None


class _Run:
    """One submission."""

    def __init__(
        self, notebook: NotebookNode, source: NotebookNode, files: Path, seed: int, options: ExecutionOptions
    ) -> None:
        self.notebook, self.source = copy.deepcopy(notebook), source
        self.files, self.seed, self.options = files, seed, options
        self.plan: Plan = plan(source)
        self.dead = ""
        self.attempts: list[str] = []
        self._waiting = [(key_of(c, i), c) for i, c in enumerate(source.cells) if key_of(c, i) in self.plan.needed]

    async def execute(self) -> Executed:
        begin, problem, kernels = time.monotonic(), "", []
        self.deadline = begin + self.options.total_timeout
        tests = [c for c in self.notebook.cells if is_test(c)]
        sealed = self.options.sealed and any(self._is_sealed(c) for c in tests)
        ours, theirs = socket.socketpair() if sealed else (None, None)
        try:
            async with contextlib.AsyncExitStack() as stack:
                kernels.append(await stack.enter_async_context(self._kernel(self.notebook, theirs, self.files)))
                if sealed:
                    checkers = self._kernel(copy.deepcopy(self.notebook), ours, None)
                    kernels.append(await stack.enter_async_context(checkers))
                for end in (ours, theirs):
                    if end is not None:  # so that a kernel's death closes the line
                        end.close()
                self.student, self.checker = kernels[0], kernels[1] if sealed else None
                if sealed:
                    await self._open_desk()
                for index, cell in enumerate(self.notebook.cells):
                    if cell.cell_type == "code" and cell.source.strip():
                        await self._cell(cell, index)
        except InstructorsError as error:
            problem = f"the checker could not run the instructor's cell {error}"
        finally:
            for end in (ours, theirs):
                if end is not None:
                    end.close()
        for cell in tests:
            _without_source(cell)
        verdicts = [getattr(kernel.km, "verdict", None) or "" for kernel in kernels]
        problem = next((verdict for verdict in verdicts if verdict.startswith(UNWATCHED)), problem)
        peak = max((getattr(k.km, "peak_mib", 0.0) for k in kernels), default=0.0)
        return Executed(self.notebook, time.monotonic() - begin, peak, tuple(self.attempts), problem)

    # ---------------------------------------------------------------- kernels

    @contextlib.asynccontextmanager
    async def _kernel(
        self, notebook: NotebookNode, line: socket.socket | None, files: Path | None
    ) -> AsyncIterator[_Guarded]:
        fd = None if line is None else line.fileno()
        if self.options.sandbox:
            manager = SandboxedKernelManager(limits=self.options.limits, files=files, passed_fd=fd)
            options: dict[str, Any] = {}
        else:
            manager = AsyncKernelManager(transport_encryption="auto")
            options = {"cwd": str(files)} if files else {}
            if fd is not None:
                options |= {"pass_fds": (fd,), "env": {**os.environ, FD: str(fd)}}
        client = _Guarded(notebook, manager)
        try:
            async with client.async_setup_kernel(**options):
                yield client
        finally:  # nbclient leaves a manager that it was given alone, and the client of that
            if client.kc is not None:
                client.kc.stop_channels()
            await manager.shutdown_kernel(now=True)

    async def _open_desk(self) -> None:
        classes = sorted(set().union(*(bound_names(c.source) for _, c in self._waiting)) if self._waiting else set())
        seconds = min(CALL_SECONDS, self.options.cell_timeout)
        code = "from course_lib.classroom.seal.kernel import Desk as __course_desk__\n"
        code += f"__course_desk__ = __course_desk__(globals(), {classes!r}, {seconds!r}, {self.seed!r})"
        await self.checker.ask(code, 60)

    # ---------------------------------------------------------------- cells

    async def _cell(self, cell: NotebookNode, index: int) -> None:
        cell.outputs = []
        left = self.deadline - time.monotonic()
        if not self.dead and left <= 0:
            self.dead = self._over()
        if self.dead:
            fail(cell, "NotRun", f"not run: {self.dead}")
            return
        seconds = min(self.options.cell_timeout, left)
        try:
            if is_test(cell) and self.options.sealed and self._is_sealed(cell):
                await self._sealed(cell, index, seconds)
            else:
                await self.student.run_cell(cell, index, seconds)
        except (DeadKernelError, TimeoutError) as error:
            verdict = getattr(self.student.km, "verdict", None)
            self.dead = verdict or (str(error) if isinstance(error, TimeoutError) else "the kernel died")
            fail(cell, "KernelDied", self.dead)

    def _over(self) -> str:
        return f"the notebook took longer than {self.options.total_timeout:g} s"

    def _is_sealed(self, cell: NotebookNode) -> bool:
        return cell.metadata.get("nbgrader", {}).get("grade_id") in self.plan.sealed

    async def _sealed(self, cell: NotebookNode, index: int, seconds: float) -> None:
        """Run a test in T, while S answers."""
        before = self._needed_before(cell)
        reads = set().union(*(read_names(c.source) for _, c in before), read_names(cell.source))
        names = sorted(reads & self.plan.exports)
        serving = asyncio.ensure_future(self.student.run_cell(new_code_cell(SERVE), index, self.options.total_timeout))
        try:
            try:
                in_place = IN_PLACE in cell.source
                await self.checker.ask(f"__course_desk__.begin({names!r}, {in_place!r})", seconds + GRACE_SECONDS)
            except InstructorsError as error:  # what the student's kernel said was nonsense, or nothing
                fail(cell, "NoAnswer", str(error))
                await self._release(serving, names)
                return
            for key, given in before:
                await self._instructors(key, given, seconds)
            await self.checker.run_cell(cell, index, seconds)
            await self._release(serving, names)
        finally:
            if not serving.done():
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError, DeadKernelError, CellTimeoutError):
                    await serving
            self.notebook.cells[index] = cell

    def _needed_before(self, test: NotebookNode) -> list[tuple[str, NotebookNode]]:
        """The instructor's cells that stand before a test in the source, and that the checker has not run yet."""
        keys = [key_of(c, i) for i, c in enumerate(self.source.cells)]
        position = keys.index(test.metadata.nbgrader.grade_id)
        ready = [(key, c) for key, c in self._waiting if keys.index(key) < position]
        self._waiting = [(key, c) for key, c in self._waiting if keys.index(key) >= position]
        return ready

    async def _instructors(self, key: str, given: NotebookNode, seconds: float) -> None:
        cell = new_code_cell(given.source)
        await self.checker.run_cell(cell, 0, seconds)
        errors = [o for o in cell.outputs if o.output_type == "error"]
        if errors and time.monotonic() > self.deadline:  # the student's cells have used it up
            raise CellTimeoutError(self._over())
        if errors and not read_names(given.source) & self.plan.exports:  # else the student's function may be to blame
            raise InstructorsError(f"{key}: {errors[0].ename}: {errors[0].evalue[:300]}")

    async def _release(self, serving: asyncio.Future, names: Sequence[str]) -> None:
        """Bring S back from answering to running cells.

        Raises:
            DeadKernelError, CellTimeoutError: it does not come back.
        """
        odd: list[str] = []
        try:
            odd = await self.checker.ask(
                f"__course_odd__ = __course_desk__.end({list(names)!r})", 3 * GRACE_SECONDS, "__course_odd__"
            )
        except InstructorsError:
            await self.student.km.interrupt_kernel()
        self.attempts += odd
        done, _ = await asyncio.wait({serving}, timeout=GRACE_SECONDS)
        if not done:
            raise CellTimeoutError("a call by a test ignored its time limit and the interrupt")
        serving.result()


def _join_streams(cell: NotebookNode) -> None:
    """One output for each stream, with lines as a terminal leaves them.

    nbclient does this, too, with an expression that takes hours for a line of a megabyte.
    """
    streams: dict[str, NotebookNode] = {}
    parts: dict[str, list[str]] = {}
    kept = []
    for output in cell.outputs:
        if output.output_type != "stream":
            kept.append(output)
        else:
            if output.name not in streams:
                streams[output.name] = output
                kept.append(output)
            parts.setdefault(output.name, []).append(str(output.text))
    for name, output in streams.items():
        lines = "".join(parts[name]).split("\n")
        output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    cell.outputs = kept


def fail(cell: NotebookNode, name: str, message: str) -> None:
    """Give a cell an error, and nothing that could be read as points."""
    cell.outputs = [o for o in cell.get("outputs", []) if o.output_type != "execute_result"]
    cell.outputs.append(new_output("error", ename=name, evalue=message, traceback=[f"{name}: {message}"]))


def _without_source(cell: NotebookNode) -> None:
    """Tracebacks of tests would show the source of hidden ones."""
    if not is_grade(cell):
        return
    for output in cell.outputs:
        if output.output_type == "error":
            output.evalue = ANSI.sub("", output.evalue)[:LONGEST_MESSAGE]
            output.traceback = [f"{output.ename}: {output.evalue}"]
