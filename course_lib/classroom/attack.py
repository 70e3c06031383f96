"""``course doctor --grading``: attack this machine from inside a sandboxed kernel, and say what held.

The attacks are those of `attacks`; the tests run the same ones, first in an ordinary kernel, where they must succeed.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from rich.console import Console
from rich.table import Table
from rich.text import Text

from course_lib.classroom import attacks, attacks_on_system
from course_lib.classroom.sandbox import Limits, SandboxedKernelManager, require

MARK = "\u2021attack\u2021"  # begins the line with the result, among whatever else is printed
ANSWER_TIME = 60.0  # seconds
TRIAL = Limits(memory_mib=400, data_mib=1024, processes=60, file_mib=8, scratch_mib=16, cpu_s=60, wall_s=90)


class KernelEnded(Exception):
    """The kernel died while it ran code; the message says why, if anybody knows."""


class Kernel:
    """A kernel and a client, without an event loop.

    Attributes:
        manager: starts the kernel when the `with` begins; ends it, whatever state it is in, when that ends.
    """

    def __init__(self, manager: AsyncKernelManager, **options: Any) -> None:
        self.manager, self._options = manager, options

    def __enter__(self) -> Kernel:
        run_sync(self.manager.start_kernel)(**self._options)
        try:
            self.client = self.manager.blocking_client()
            self.client.start_channels()
            self.client.wait_for_ready(timeout=ANSWER_TIME)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        run_sync(self.manager.shutdown_kernel)(now=True)

    def run(self, code: str, seconds: float = ANSWER_TIME) -> str:
        """Execute code; what it printed, or the name and message of its error.

        Raises:
            KernelEnded: the kernel died over it.
            TimeoutError: it has not finished.
        """
        request = self.client.execute(code, store_history=False)
        text = ""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.client.iopub_channel.msg_ready():
                if not run_sync(self.manager.is_alive)():
                    raise KernelEnded(getattr(self.manager, "verdict", None) or "the kernel died")
                self.client.iopub_channel.socket.poll(50)
                continue
            message = self.client.get_iopub_msg(timeout=1)
            content = message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream":
                text += content["text"]
            elif message["msg_type"] == "error":
                text += f"{content['ename']}: {content['evalue']}"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return text
        raise TimeoutError(f"the kernel still computes after {seconds:g} s")

    def attack(self, attack: Callable[..., str], **arguments: Any) -> tuple[str, str]:
        """What an attack reached (nothing: it was contained), and the error that stopped it.

        Raises:
            KernelEnded, TimeoutError: as `run`.
        """
        code = (
            f"{inspect.getsource(attack)}\nimport json\ntry:\n    _reached, _why = {attack.__name__}(**json.loads("
            f"{json.dumps(arguments)!r})), ''\nexcept (OSError, MemoryError) as _error:\n"
            "    _reached, _why = '', type(_error).__name__ + ': ' + str(_error)\n"
            f"print('\\n' + {MARK!r} + json.dumps([_reached, _why]))"
        )
        printed = self.run(code)
        found = re.search(f"{MARK}(.*)", printed)
        if found is None:
            raise ValueError(f"{attack.__name__} gave no answer: {printed[-500:]}")
        reached, why = json.loads(found.group(1))
        return reached, why


@dataclass(frozen=True)
class Trial:
    """One attack.

    Attributes:
        promise: which it would break.
        attack: a function of `attacks`.
        arguments: for it.
    """

    promise: str
    attack: Callable[..., str]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One promise on this machine.

    Attributes:
        promise: what was attacked.
        contained: nothing was reached.
        detail: what was reached, or how it was stopped.
    """

    promise: str
    contained: bool
    detail: str


@dataclass
class Host:
    """Things of this machine for the attacks to find, gone when the `with` ends.

    Attributes:
        folder: a temporary one, outside of every sandbox.
        mark: a random word: in a file, in an environment, in a process's command line, in shared memory.
        port: where a server listens on loopback.
        sockets: a unix socket's file and an abstract name where servers listen.
    """

    folder: Path
    mark: str = field(default_factory=lambda: f"course-{secrets.token_hex(8)}")
    port: int = 0
    sockets: tuple[str, str] = ("", "")

    @property
    def secret(self) -> Path:
        return self.folder / "secret.txt"

    @contextlib.contextmanager
    def there(self) -> Iterator[Host]:
        """Make them."""
        shared = Path("/dev/shm") / self.mark
        with contextlib.ExitStack() as stack:
            self.secret.write_text(self.mark)
            shared.write_text(self.mark)
            stack.callback(shared.unlink)
            os.environ[self.mark] = self.mark  # a name that nobody else has
            stack.callback(os.environ.pop, self.mark)
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = server.getsockname()[1]
            self.sockets = (str(self.folder / "service"), f"\0{self.mark}")
            for address in self.sockets:
                service = stack.enter_context(socket.socket(socket.AF_UNIX))
                service.bind(address)
                service.listen()
            code = "import sys; sys.stdin.read()"
            process = subprocess.Popen([sys.executable, "-S", "-c", code, self.mark], stdin=subprocess.PIPE)
            stack.callback(process.wait)
            stack.callback(process.stdin.close)  # first: the last callback added
            yield self


def plan(host: Host, private: list[str], course: list[str], gradebooks: list[str], packages: list[str]) -> list[Trial]:
    """The attacks that one kernel, with the limits `TRIAL`, survives.

    Args:
        host: what was put there to be found.
        private: files or folders of the person who grades.
        course: those of the course that students must not see.
        gradebooks: files that must not change.
        packages: files that must not change, though they can be read.
    """
    trials = [
        Trial("network", attacks.connects_to_loopback, {"port": host.port}),
        Trial("network", attacks.sees_interfaces),
        *(Trial("services of this machine", attacks.connects_to_socket, {"address": a}) for a in host.sockets),
        Trial("your files", attacks.reads_files, {"paths": [str(host.secret), *private]}),
        Trial("your files", attacks.reads_own_descriptors),
        Trial("your files", attacks.shares_memory_files, {"name": host.mark}),
        Trial("solutions, tests, marks", attacks.reads_files, {"paths": course}),
        Trial("gradebook", attacks.opens_for_writing, {"paths": [*gradebooks, str(host.secret)]}),
        Trial("installed packages", attacks.opens_for_writing, {"paths": packages}),
        Trial("environment", attacks.reads_environments, {"value": host.mark}),
        Trial("other processes", attacks.sees_processes, {"mark": host.mark}),
        Trial("other processes", attacks.opens_the_parents_memory),
        Trial("other processes", attacks.signals_the_parent),
        Trial("devices", attacks.sees_devices),
        Trial("system settings", attacks_on_system.opens_kernel_settings),
        Trial("rights", attacks_on_system.gains_rights),
        Trial("system calls", attacks_on_system.types_into_a_terminal),
        Trial("system calls", attacks_on_system.dumps_core),
        Trial("fork bomb", attacks.starts_many_processes, {"count": TRIAL.processes + 40}),
        Trial("disk", attacks_on_system.writes_a_big_file, {"mib": TRIAL.file_mib + 4}),
        Trial("disk", attacks_on_system.fills_the_disk, {"mib": TRIAL.scratch_mib + 8}),
        Trial("memory", attacks_on_system.takes_address_space, {"mib": TRIAL.data_mib + 100}),
    ]
    if platform.machine() == "x86_64":  # the others have other numbers for the system's calls
        calls = (
            attacks.opens_unusual_sockets,
            attacks_on_system.makes_system_calls,
            attacks_on_system.calls_as_a_32_bit_program,
        )
        trials += [Trial("system calls", attack) for attack in calls]
    return trials


def processes_with(mark: str) -> list[int]:
    """Living processes of this machine with `mark` in their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(mark in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def attack_this_machine(root: Path) -> Iterator[Outcome]:
    """Try every attack from inside; takes about ten seconds.

    Args:
        root: the course; its solutions and gradebook are what students should not reach.

    Raises:
        CourseError: this machine cannot make a sandbox at all.
    """
    require()
    course = [str(root / name) for name in ("solutions", "tests", "classroom_data", ".git") if (root / name).exists()]
    gradebooks = [str(path) for path in (root / "classroom_data").glob("*.db")]
    private = ["/etc/shadow", "/etc/passwd", str(Path.home() / ".ssh"), str(Path.home() / ".bashrc")]
    with tempfile.TemporaryDirectory(prefix="course_trial_") as temporary, Host(Path(temporary)).there() as host:
        with Kernel(SandboxedKernelManager(limits=TRIAL)) as kernel:
            for trial in plan(host, private, course, gradebooks, [psutil.__file__, attacks.__file__]):
                yield _tried(kernel, trial)
            orphan = f"{host.mark}-orphan"
            kernel.attack(attacks.leaves_an_orphan, mark=orphan)
        left = processes_with(orphan)
        yield Outcome("processes that outlive", not left, f"process {left[0]}" if left else "ended with the kernel")
        lethal = [
            (Trial("memory", attacks_on_system.takes_memory, {"mib": 2 * TRIAL.memory_mib}), TRIAL),
            (Trial("processor", attacks_on_system.ignores_interrupts, {"seconds": 20}), Limits(wall_s=4)),
        ]
        for trial, limits in lethal:
            with Kernel(SandboxedKernelManager(limits=limits)) as kernel:
                yield _tried(kernel, trial)


def _tried(kernel: Kernel, trial: Trial) -> Outcome:
    try:
        reached, why = kernel.attack(trial.attack, **trial.arguments)
    except KernelEnded as ended:
        return Outcome(trial.promise, True, f"the kernel was ended: {ended}")
    return Outcome(trial.promise, not reached, reached or why or "nothing there")


def show(outcomes: Iterator[Outcome], console: Console) -> bool:
    """A line per promise; whether all hold."""
    broken: dict[str, list[str]] = {}
    count: Counter[str] = Counter()
    for outcome in outcomes:
        count[outcome.promise] += 1
        found = broken.setdefault(outcome.promise, [])
        if not outcome.contained:
            found.append(outcome.detail)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for promise, found in broken.items():
        state = Text("NOT contained", style="bold red") if found else Text("contained", style="green")
        tried = f"{count[promise]} attack{'s' * (count[promise] != 1)}"
        table.add_row(state, promise, Text(f"{tried}, reached: {'; '.join(found)}" if found else tried))
    console.print(table)
    wrong = sum(map(bool, broken.values()))
    if wrong:
        console.print(
            f"\n[red]{wrong} of {len(broken)} promises do not hold here[/red]; grade no strangers' work on it"
        )
    else:
        who = "root" if os.geteuid() == 0 else "an ordinary user"
        console.print(f"\n[green]Students' code is contained on this machine[/green] (started by {who}).")
    return not wrong
