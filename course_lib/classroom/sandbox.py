"""A Jupyter kernel for code that nobody trusts: no network, no files of the host, bounded resources, a verdict.

The kernel runs under bubblewrap in namespaces of its own (processes, network, IPC, mounts, host name), behind the
system-call filter of `seccomp`, under `prlimit` and under a watchdog of this process. Nothing on the host's disk is
writable from inside. The sockets that Jupyter talks over are made by the kernel in its own /tmp; this process opens
them once, before any student's code runs, and from then on uses only these handles: what student code later puts in
their place is never followed.

Two ways, the same promises: started by root, the kernel really becomes an unused user (a user namespace would leave
/proc/sys writable); started by anyone else, it gets a user namespace in which no further one can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client import AsyncKernelManager, BlockingKernelClient, KernelClient
from jupyter_client.connect import port_names
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Instance, Integer, List

from course_lib.classroom import seccomp
from course_lib.classroom.bubblewrap import (
    OPEN_FILES,
    SOCKETS,
    WORK,
    WRITABLE,
    copy_files,
    environment,
    file_system,
    kernel_command,
    restrictions,
    separation,
)
from course_lib.classroom.course import CourseError
from course_lib.classroom.watchdog import Watchdog

LONGEST_FOLDER = 85  # bytes; a socket's path has at most 107
START_TIMEOUT = 60.0  # seconds until the kernel must listen
OLDEST_BUBBLEWRAP = (0, 8)  # the first with --disable-userns
# What a kernel sends waits in this process's memory: at most so many messages, and a larger one cuts the channel off.
LARGEST_MESSAGE, QUEUED_MESSAGES = 128 << 20, 16  # together no more than the kernel itself may use


@dataclass(frozen=True)
class Limits:
    """What one kernel and all it starts may use.

    Attributes:
        memory_mib: resident private memory of all processes, with the files in their memory file systems (watchdog).
        data_mib: private address space of each process (RLIMIT_DATA).
        processes: processes and threads (RLIMIT_NPROC).
        file_mib: size of any file (RLIMIT_FSIZE).
        scratch_mib: size of each of the writable folders.
        cpu_s: processor time of each process (RLIMIT_CPU).
        wall_s: life of the kernel (watchdog).
        open_files: descriptors of all processes together; each may hold 200 KiB of the system's memory (watchdog).
        small_files: files and folders in the writable folders; each holds about 1 KiB of it (watchdog).
    """

    memory_mib: int = 2048
    data_mib: int = 4096
    processes: int = 128
    file_mib: int = 64
    scratch_mib: int = 128
    cpu_s: int = 600
    wall_s: float = 900.0
    open_files: int = 4096
    small_files: int = 100_000


def missing_parts() -> list[str]:
    """What grading in the sandbox needs and this machine lacks, in words, with the Debian package; cheap."""
    if sys.platform != "linux":
        return [f"Linux (this is {sys.platform}): use a virtual machine or a container with Debian"]
    missing = []
    if shutil.which("bwrap") is None:
        missing.append("bwrap (Debian package bubblewrap)")
    elif _bubblewrap_version() < OLDEST_BUBBLEWRAP:
        found = ".".join(map(str, _bubblewrap_version()))
        missing.append(f"bwrap {'.'.join(map(str, OLDEST_BUBBLEWRAP))} or newer (package bubblewrap; found {found})")
    missing += [
        f"{name} (Debian package util-linux)" for name in ("setpriv", "prlimit", "choom") if shutil.which(name) is None
    ]
    if seccomp.library() is None:
        missing.append("libseccomp.so.2 (Debian package libseccomp2)")
    return missing


def require() -> None:
    """Return if untrusted code can be contained on this machine.

    Raises:
        CourseError: it cannot; the message says what to install or to change.
    """
    missing = missing_parts()
    if missing:
        raise CourseError(
            f"submissions can only be graded in a sandbox, and this machine lacks: {'; '.join(missing)}.\n"
            "On Debian or Ubuntu: apt-get install bubblewrap libseccomp2 util-linux"
        )
    refusal = _refusal(os.geteuid())
    if refusal:
        raise CourseError(
            f"submissions can only be graded in a sandbox, and this system refuses to make one: {refusal}\n"
            "Ubuntu's AppArmor and hardened kernels forbid user namespaces to ordinary users: allow them to bwrap "
            "(see README, “For instructors”), or grade as root in a virtual machine"
        )


@functools.cache
def _bubblewrap_version() -> tuple[int, ...]:
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in said.split()[-1].split(".")[:2] if part.isdigit()) if said.split() else ()


@functools.cache
def _refusal(uid: int) -> str:
    """Why an empty sandbox cannot be started here; empty if it can."""
    try:
        seccomp.program()
    except OSError as error:
        return str(error)
    command = ["bwrap", *separation(uid == 0), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if tried.returncode == 0 else tried.stderr.strip() or f"bwrap ended with status {tried.returncode}"


class SandboxedKernelManager(AsyncKernelManager):
    """Starts this interpreter's IPython kernel in a sandbox; nbclient takes it as `kernel_manager_class`.

    The working directory (`cwd`) and environment given to `start_kernel` are ignored: nothing of them is for the
    kernel. The kernel dies with the *thread* that started it, which must outlive it.

    Attributes:
        limits: see `Limits`.
        files: a folder; its regular files that are not notebooks are copied, read-only, into the kernel's folder.
        readable: further paths that the kernel may read, at the same place.
        passed_fd: a descriptor that the kernel inherits; its number there is in the environment as COURSE_SEAL_FD.
        folder: where the kernel starts, inside.
    """

    limits = Instance(Limits, ())
    files = Instance(Path, allow_none=True)
    readable = List()
    passed_fd = Integer(None, allow_none=True)
    folder = WORK

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # not the kernelspec of that name: anyone's home may hold one, and a submission asks for what it likes
        self._kernel_spec = KernelSpec(
            argv=[sys.executable], display_name="Sandboxed Python", language="python", interrupt_mode="message"
        )

    def _context_default(self) -> zmq.asyncio.Context:
        self._created_context = True
        return _guarded(zmq.asyncio.Context())

    @property
    def verdict(self) -> str | None:
        """Why the kernel ended, if nobody here asked it to; also after the end."""
        return self.provisioner.verdict() if isinstance(self.provisioner, Sandbox) else None

    @property
    def peak_mib(self) -> float:
        """Most memory in use at a time, MiB, sampled ten times a second."""
        watchdog = getattr(self.provisioner, "watchdog", None)
        return watchdog.peak / 2**20 if watchdog else 0.0

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        if self.provisioner is None:
            self.provisioner = Sandbox(kernel_id=self.kernel_id or "", kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**options)

    def client(self, **options: Any) -> KernelClient:
        """A client, not yet connected, that a kernel cannot fill with unread messages."""
        return _owning(super().client(**options))

    def blocking_client(self) -> BlockingKernelClient:
        """The same for code without an event loop."""
        return _owning(super().blocking_client())


def _guarded(context: zmq.Context) -> zmq.Context:
    """The defaults of its sockets: the other end is hostile, and unread messages fill the memory of this process."""
    context.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
    context.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
    return context


def _owning(client: KernelClient) -> KernelClient:
    client.context = _guarded(type(client).context.klass())
    client._created_context = True  # so that it closes it, as its own default would be
    return client


class Sandbox(LocalProvisioner):
    """Starts the kernel of a `SandboxedKernelManager` in bubblewrap, and ends all of it.

    Attributes:
        watchdog: of the kernel that runs or ran last.
    """

    watchdog: Watchdog | None = None
    _box: Path | None = None  # of this process only: connection file, links to the sockets, copies of the files
    _handles: tuple[int, ...] = ()

    def verdict(self) -> str | None:
        if self.watchdog is None:
            return None
        if self.process is None or self.process.poll() is not None:
            self.watchdog.join()  # it knows in a moment
        return self.watchdog.verdict

    async def pre_launch(self, **_: Any) -> dict[str, Any]:
        """Write the connection file and copy the submission's files.

        Raises:
            CourseError: this machine cannot make a sandbox, or what should be readable must not be.
        """
        require()
        manager = self.parent
        if self._box is None:
            short = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST_FOLDER else "/tmp"
            self._box = Path(tempfile.mkdtemp(prefix="sandbox-", dir=short))  # for this user only
            manager.transport, manager.transport_encryption = "ipc", "disabled"
            manager.connection_file, manager.ip = str(self._box / "kernel.json"), str(self._box / "k")
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        return {"cmd": []}

    async def launch_kernel(self, cmd: list[str], **_: Any) -> dict[str, Any]:
        """Start it, and return when its sockets are there and held.

        Raises:
            CourseError: it does not come up; the message has its last words.
        """
        self.watchdog = None
        try:
            init, errors = self._start()
            self.watchdog = Watchdog(self.process, init, errors, self.parent.limits, OPEN_FILES)
            self.watchdog.start()
            await self._hold_sockets(init)
        except BaseException:
            await self.cleanup()
            self.process = None
            raise
        return self.connection_info

    def _start(self) -> tuple[int, int]:
        """Start bubblewrap: process id of the sandbox's first process, and where to read its standard error."""
        manager = self.parent
        root = os.geteuid() == 0
        with contextlib.ExitStack() as stack:
            filters = stack.enter_context(_memory_file(seccomp.program()))
            connection = stack.enter_context(_memory_file(self._connection()))
            files = file_system(manager.limits, manager.readable, self._copies(), connection, root)
            inside = [*environment(manager.passed_fd), *files, "--", *restrictions(manager.limits, root), "--"]
            passed = () if manager.passed_fd is None else (manager.passed_fd,)
            info, info_inside = os.pipe()
            told = stack.enter_context(open(info, "rb"))
            errors, errors_inside = os.pipe()
            said = stack.enter_context(open(errors, "rb"))
            options = [*separation(root), "--info-fd", str(info_inside), "--seccomp", str(filters)]
            try:
                self.process = subprocess.Popen(
                    ["bwrap", *options, *inside, *kernel_command()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # descriptors 1 and 2 would reach the instructor's terminal
                    stderr=errors_inside,
                    cwd="/",
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    pass_fds=(info_inside, filters, connection, *passed),
                    start_new_session=True,
                )
            finally:  # so that reading ends when the sandbox does
                os.close(info_inside)
                os.close(errors_inside)
            self.pid = self.pgid = self.process.pid
            answer = told.read()
            if not answer:
                self.process.wait()
                raise CourseError(f"the sandbox does not start: {said.read().decode(errors='replace').strip()}")
            return json.loads(answer)["child-pid"], os.dup(errors)

    def _connection(self) -> bytes:
        inside = {**json.loads(Path(self.parent.connection_file).read_text()), "ip": SOCKETS}
        return json.dumps(inside).encode()

    def _copies(self) -> list[tuple[Path, str]]:
        """Copies of the submission's files, as (path here, relative path), readable by whoever the kernel becomes."""
        files = self.parent.files
        if files is None:
            return []
        target = self._box / "files"
        shutil.rmtree(target, ignore_errors=True)  # of the kernel before a restart
        return list(copy_files(files, target))

    async def _hold_sockets(self, init: int) -> None:
        """Open the kernel's sockets and writable folders, before anything but the kernel itself has run inside."""
        inside = f"/proc/{init}/root"
        ports = [self.connection_info[name] for name in port_names]
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while not all(os.path.lexists(f"{inside}{SOCKETS}-{port}") for port in ports):
            if self.process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                self.watchdog.kill()
                self.watchdog.join()
                raise CourseError(f"the sandboxed kernel does not start: {self.watchdog.said() or self.verdict()}")
            await asyncio.sleep(0.01)
        for handle in self._handles:
            os.close(handle)
        self._handles = tuple(os.open(f"{inside}{SOCKETS}-{port}", os.O_PATH | os.O_NOFOLLOW) for port in ports)
        for handle, port in zip(self._handles, ports, strict=True):
            if not stat.S_ISSOCK(os.fstat(handle).st_mode):
                raise CourseError("the sandboxed kernel does not listen on sockets")
            link = Path(f"{self.parent.ip}-{port}")
            link.unlink(missing_ok=True)
            link.symlink_to(f"/proc/{os.getpid()}/fd/{handle}")  # the socket itself, whatever its name becomes
        folders = tuple(os.open(inside + folder, os.O_PATH | os.O_NOFOLLOW) for folder in WRITABLE)
        self._handles += folders
        self.watchdog.ready(folders)

    async def send_signal(self, signum: int) -> None:
        """Interrupts travel as messages; every other signal ends the sandbox, as it would a kernel."""
        if signum != signal.SIGINT and self.watchdog is not None:
            self.watchdog.expect_end()
            self.watchdog.kill()

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The end that follows is the manager's wish."""
        self.watchdog.expect_end()

    async def cleanup(self, restart: bool = False) -> None:
        """End what is left inside, wait until it is gone, and remove what was on disk.

        Raises:
            RuntimeError: a process of the sandbox survives being killed for ten seconds.
        """
        if self.watchdog is not None and not self.watchdog.closed:
            self.watchdog.expect_end()
            self.watchdog.kill()
            if not self.watchdog.gone(10):
                raise RuntimeError("a sandbox does not end: its processes hang in the system's kernel")
            self.watchdog.close()
        for handle in self._handles:
            os.close(handle)
        self._handles = ()
        if self._box is not None and not restart:
            shutil.rmtree(self._box)
            self._box = None


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    """A descriptor from which `content` can be read, for a child process."""
    descriptor = os.memfd_create("sandbox")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
