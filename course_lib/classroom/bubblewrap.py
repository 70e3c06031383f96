"""The command line that puts a kernel into bubblewrap: what it sees, what it may, and what it starts with."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.classroom.course import CourseError
from course_lib.core import thread_limit

if TYPE_CHECKING:
    from course_lib.classroom.sandbox import Limits

HOME = "/home/student"
WORK = f"{HOME}/work"
SOCKETS = "/tmp/.kernel"  # inside; "-1" … "-5" are appended
CONNECTION_FILE = "/run/kernel.json"  # inside
WRITABLE = ("/tmp", HOME, "/dev/shm")
LIBRARY = Path(__file__).resolve().parents[1]
OPEN_FILES = 1024  # of one process
MOST_FILES, MOST_FILE_MIB = 500, 256  # of one submission, together
# Debian's and systemd's tables give the upper range to nobody; a container may have no more than 65,536 users
UNUSED_UIDS = (range(1_900_000_000, 2_000_000_000), range(61_184, 65_520))
PROTECTED = ("solutions", "tests", "classroom_data", "course_run", ".git")  # folders of the checkout


def separation(root: bool) -> list[str]:
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if root:  # these two only for setpriv, which gives them up
        rights = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        rights = ["--unshare-user", "--disable-userns"]
    return [*spaces, *rights, "--hostname", "sandbox", "--die-with-parent", "--new-session"]


def environment(passed: int | None) -> list[str]:
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = {
        **thread_limit(1),
        **{"PATH": programs, "HOME": HOME, "USER": "student", "LOGNAME": "student", "LANG": "C.UTF-8"},
        "COURSE_HEADLESS": "1",
        "NBGRADER_EXECUTION": "autograde",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
    if not LIBRARY.is_relative_to(sys.prefix):  # an editable installation's checkout, of which only this is there
        variables["PYTHONPATH"] = str(LIBRARY.parent)
    if passed is not None:
        variables["COURSE_SEAL_FD"] = str(passed)
    return ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]


def file_system(
    limits: Limits, extra: Sequence[Path | str], copies: Sequence[tuple[Path, str]], connection: int, root: bool
) -> Iterator[str]:
    made = {Path("/")}

    def folders(path: str | Path, mode: str = "0755") -> Iterator[str]:  # bubblewrap alone would make them 0700
        for folder in reversed(Path(path).parents):
            if folder not in made:
                made.add(folder)
                yield from ("--perms", mode, "--dir", str(folder))

    def writable(path: str) -> Iterator[str]:
        made.add(Path(path))
        yield from ("--perms", "1777", "--size", str(limits.scratch_mib << 20), "--tmpfs", path)

    def readable(path: str | Path, target: str | Path | None = None) -> Iterator[str]:
        yield from folders(target or path)
        yield from ("--ro-bind", str(path), str(target or path))

    for path in ("/tmp", HOME):
        yield from folders(path)
        yield from writable(path)
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from readable(path)
    shown = {Path(sys.base_prefix), Path(sys.prefix), LIBRARY}
    for path in [*sorted(shown), *map(Path, extra)]:
        if not path.is_relative_to("/usr"):
            _refuse_to_show(path)
            yield from readable(path)
    for path in ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"):
        if os.path.exists(path):
            yield from readable(path)
    yield from ("--proc", "/proc", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1", "--dev", "/dev")
    yield from writable("/dev/shm")
    yield from ("--remount-ro", "/dev")
    if root:  # without a user namespace these would belong to the host
        for path in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"):
            if os.path.exists(path):
                yield from ("--ro-bind", path, path)
    for path in _font_lists():
        target = f"{HOME}/.cache/matplotlib/{path.name}"
        yield from (*folders(target, "1777"), *readable(path, target))
    yield from (*folders(CONNECTION_FILE), "--perms", "0444", "--ro-bind-data", str(connection), CONNECTION_FILE)
    yield from folders(f"{WORK}/file", "1777")
    for path, name in copies:
        yield from folders(f"{WORK}/{name}", "1777")
        yield from readable(path, f"{WORK}/{name}")
    yield from ("--remount-ro", "/", "--chdir", WORK)


def _refuse_to_show(path: Path) -> None:
    checkout = LIBRARY.parent
    for protected in (checkout / name for name in PROTECTED):
        if protected.exists() and (protected.is_relative_to(path) or path.is_relative_to(protected)):
            raise CourseError(f"submissions must not read {protected}, which {path} would show them")


@functools.cache
def _font_lists() -> tuple[Path, ...]:
    """matplotlib's list of fonts, which takes seconds to make and says so on standard error."""
    import matplotlib
    import matplotlib.font_manager  # makes it, if need be

    return tuple(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))


def copy_files(source: Path, target: Path) -> Iterator[tuple[Path, str]]:
    count = size = 0
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            path = Path(folder, name)
            inside = path.relative_to(source)
            if path.suffix == ".ipynb" or path.name == "matplotlibrc" or any(p.startswith(".") for p in inside.parts):
                continue
            if path.is_symlink() or not path.is_file():  # a pipe would not even open
                continue
            copy = target / str(count)
            target.mkdir(exist_ok=True)
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                state = os.fstat(file.fileno())
                if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
                    continue
                count, size = count + 1, size + state.st_size
                if count > MOST_FILES or size > MOST_FILE_MIB << 20:
                    raise CourseError(f"more than {MOST_FILES} files, or {MOST_FILE_MIB} MiB, beside the notebook")
                with copy.open("wb") as written:
                    shutil.copyfileobj(file, written)
            copy.chmod(0o444)
            yield copy, str(inside)


def restrictions(limits: Limits, root: bool) -> Iterator[str]:
    if root:
        uid = str(_unused_uid())
        yield from ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--")
    # a core of at most 1 byte: with 0, a program that takes cores through a pipe (apport, systemd-coredump) gets all
    yield from ("choom", "--adjust", "1000", "--", "prlimit", "--core=1", "--rtprio=0", "--nice=0")
    yield f"--nofile={OPEN_FILES}"
    yield from (f"--nproc={limits.processes}", f"--fsize={limits.file_mib << 20}", f"--data={limits.data_mib << 20}")
    yield f"--cpu={limits.cpu_s}:{limits.cpu_s + 5}"  # at the first a signal that says so, at the second the end


def kernel_command() -> list[str]:
    # behind everything installed: a file beside the notebook can be imported, but cannot stand in for a package
    path = f"--IPKernelApp.exec_lines=__import__('sys').path.append({WORK!r})"
    launcher = [sys.executable, "-P", "-s", "-m", "ipykernel_launcher", "-f", CONNECTION_FILE]
    return [*launcher, "--HistoryManager.enabled=False", path]


def _unused_uid() -> int:
    """A user id that no account and no other sandbox has, and that this system can map."""
    mapped = []
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        mapped.append(range(inside, inside + count))
    for uids in UNUSED_UIDS:
        if any(uids[0] in ids and uids[-1] in ids for ids in mapped):
            return uids[secrets.randbelow(len(uids))]
    raise CourseError("this container has too few user ids for a sandbox; grade in a virtual machine instead")
