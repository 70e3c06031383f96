"""What hostile code tries. Each function runs inside a kernel, alone (its source is sent there, so it imports what it
uses), and returns what it reached, in words; nothing, or an error of the system, means that it was contained.

None of them harms the machine where it succeeds: files are opened, not changed, and what is started ends by itself.
"""

from __future__ import annotations

# --- network ----------------------------------------------------------------------------------------------------------


def connects_to_loopback(port: int) -> str:
    """A server of this machine, or a tunnel out of it."""
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return f"a connection to port {port} of this machine"


def sees_interfaces() -> str:
    """Any way out at all; an honest kernel sees loopback, if anything."""
    import socket

    return ", ".join(name for _, name in socket.if_nameindex() if name != "lo")


def connects_to_socket(address: str) -> str:
    """A service's unix socket: a file, or (first character 0) an abstract name, which no file permission guards."""
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(address)
        return f"a connection to {address!r}"


def opens_unusual_sockets() -> str:
    """Families that leave network namespaces behind (vsock: the hypervisor), or have had holes (packet, alg, rds).

    The number of `socket` is that of x86-64; Python's own would not pass high bits on.
    """
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    reached = []
    families = {"vsock": 40, "packet": 17, "alg": 38, "vsock with high bits": 40 | 1 << 32, "audit": (16, 9)}
    for name, family in families.items():
        domain, protocol = family if isinstance(family, tuple) else (family, 0)
        kind = 5 if name == "alg" else 3 if domain in (16, 17) else 1
        descriptor = libc.syscall(41, ctypes.c_ulong(domain), kind, protocol)
        if descriptor >= 0:
            os.close(descriptor)
            reached.append(name)
    return ", ".join(reached)


# --- files ------------------------------------------------------------------------------------------------------------


def reads_files(paths: list[str]) -> str:
    """Also through /proc/<pid>/root, cwd and fd of every process in sight."""
    import glob
    import os

    reached = []
    for path in paths:
        for start in ["", *glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]:
            try:
                if os.path.isdir(start + path):
                    found = os.listdir(start + path)
                else:
                    with open(start + path, "rb") as file:
                        found = file.read(8)
            except OSError:
                continue
            if found:
                reached.append(start + path)
                break
    return ", ".join(reached)


def opens_for_writing(paths: list[str]) -> str:
    """A gradebook, another's submission, or the installed packages, which every later kernel would import."""
    import os

    reached = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
            reached.append(path)
        except OSError:
            continue
    return ", ".join(reached)


def reads_own_descriptors() -> str:
    """What the grader had open when it started the kernel: files, sockets, terminals."""
    import os

    own = os.getpid()
    reached = []
    for pid in sorted({own, os.getppid()}):
        for name in os.listdir(f"/proc/{pid}/fd") if os.path.isdir(f"/proc/{pid}/fd") else []:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            harmless = (
                "/dev/null",
                "/dev/urandom",
                "/proc/",
                "anon_inode:",
                "pipe:",
                "socket:",
                "/home/student/",
                "/usr/",
            )
            if pid != own or not target.startswith(harmless):
                reached.append(target)
    return ", ".join(reached)


def sees_devices() -> str:
    """Disks, GPUs, the hypervisor's device; beyond what every program may use."""
    import os

    usual = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "core", "console"}
    usual |= {"stdin", "stdout", "stderr"}
    return ", ".join(sorted(set(os.listdir("/dev")) - usual)[:10])


def shares_memory_files(name: str) -> str:
    """/dev/shm is one folder for all users of a machine."""
    with open(f"/dev/shm/{name}") as file:
        return f"/dev/shm/{name}: {file.read(20)}"


# --- processes --------------------------------------------------------------------------------------------------------


def sees_processes(mark: str) -> str:
    """Command lines hold secrets; `mark` is in that of a process which is none of the kernel's business."""
    import glob

    reached = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path) as file:
                line = file.read()
        except OSError:
            continue
        if mark in line:
            reached.append(path)
    return ", ".join(reached)


def reads_environments(value: str) -> str:
    """Keys and passwords are passed in environments: the kernel's own and those of the processes around it."""
    import glob

    reached = []
    for path in ["/proc/self/environ", "/proc/1/environ", *glob.glob("/proc/[0-9]*/environ")]:
        try:
            with open(path, errors="replace") as file:
                if value in file.read():
                    reached.append(path)
        except OSError:
            continue
    return ", ".join(reached[:3])


def signals_the_parent() -> str:
    """User-defined signal 1 for the process that started the kernel; a real attack would send 9."""
    import os
    import signal

    if os.getppid() in (0, 1):  # signals to a namespace's first process arrive only from outside
        return ""
    os.kill(os.getppid(), signal.SIGUSR1)
    return f"a signal to process {os.getppid()}"


def opens_the_parents_memory() -> str:
    """What the parent holds, to read and to change."""
    import os

    reached = []
    for pid in {1, os.getppid()}:
        try:
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
            reached.append(f"/proc/{pid}/mem")
        except OSError:
            continue
    return ", ".join(reached)


def starts_many_processes(count: int) -> str:
    """A fork bomb with a fuse: `count` processes that wait for the end of this one."""
    import os
    import time

    children = []
    try:
        while len(children) < count:
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(0)
            children.append(pid)
        return f"{count} processes"
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def leaves_an_orphan(mark: str) -> str:
    """A process of another session and process group, without a parent, which outlives the kernel by a minute."""
    import os
    import subprocess
    import sys

    if os.fork() == 0:
        os.setsid()
        code = "import time; time.sleep(60)"
        subprocess.Popen([sys.executable, "-S", "-c", code, mark], close_fds=True, start_new_session=True)
        os._exit(0)
    os.wait()
    return "an orphan"


# --- what the grader reads and prints ---------------------------------------------------------------------------------


def writes_to_descriptors(text: str) -> str:
    """Into whatever file the grader's own output goes, past Jupyter's capture of what is printed."""
    import os

    reached = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("/") and not target.startswith(("/dev/", "/proc/")) and "sqlite" not in target:
                os.write(int(name), text.encode())
                reached.append(target)
        except OSError:
            continue
    return ", ".join(reached)


def replaces_the_sockets(target: str) -> str:
    """The grader opens the kernel's sockets by name, so a link of that name may send it elsewhere."""
    import json
    import os

    from ipykernel import get_connection_file

    with open(get_connection_file()) as file:
        connection = json.load(file)
    replaced = []
    for name in ("shell", "iopub", "stdin", "control", "hb"):
        path = f"{connection['ip']}-{connection[f'{name}_port']}"
        os.remove(path)
        os.symlink(target, path)
        replaced.append(path)
    return ", ".join(replaced)


def rewrites_the_connection_file() -> str:
    """It says where the grader and other clients connect, and with which key."""
    import os

    from ipykernel import get_connection_file

    os.close(os.open(get_connection_file(), os.O_WRONLY))
    return get_connection_file()
