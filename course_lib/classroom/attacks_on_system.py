"""Attacks on the system under the kernel: its calls, settings, memory and disk; to be read as `attacks`."""

from __future__ import annotations

# --- the system's kernel ----------------------------------------------------------------------------------------------


def makes_system_calls() -> str:
    """Namespaces, mounts, other processes' memory, keyrings, and parts with a record of holes.

    Each in a forked child, with null pointers where an allowed call would change anything: the filter answers before
    they are looked at. Numbers are those of x86-64.
    """
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    block = ctypes.create_string_buffer(256)
    calls = {
        "unshare(user)": (272, 0x10000000),
        "unshare(mount)": (272, 0x00020000),
        "clone(user)": (56, 0x10000000 | 17, 0, 0, 0, 0),
        "mount": (165, 0, 0, 0, 0, 0),
        "fsopen": (430, 0, 0),
        "open_tree": (428, -100, 0, 1),
        "chroot": (161, 0),
        "ptrace": (101, 0, 0, 0, 0),
        "process_vm_readv": (310, os.getpid(), block, 0, block, 0, 0),
        "keyctl": (250, 0, -3, 0),
        "add_key": (248, 0, 0, 0, 0, -1),
        "io_uring_setup": (425, 1, block),
        "bpf": (321, 0, block, 0),
        "userfaultfd": (323, 1),
        "perf_event_open": (298, block, 0, -1, -1, 0),
        "memfd_create": (319, b"x", 0),
        "shmget": (29, 0, 4096, 0o1600),
        "msgget": (68, 0, 0o1600),
        "open_by_handle_at": (304, -100, block, 0),
        "pidfd_getfd": (438, -1, 0, 0),
        "syslog": (103, 10, 0, 0),
        "clock_settime": (227, 0, 0),
        "sched_setaffinity": (203, 0, 8, block),  # onto the cores of whoever is graded beside
    }
    forbidden = (1, 38)  # EPERM: the filter's answer; ENOSYS: there is no such call
    reached = []
    for name, (number, *arguments) in calls.items():
        pid = os.fork()
        if pid == 0:
            result = libc.syscall(number, *arguments)
            if name == "clone(user)" and result == 0:  # this is the clone
                os._exit(0)
            if name in ("shmget", "msgget") and result >= 0:
                libc.syscall({"shmget": 31, "msgget": 71}[name], result, 0, 0)  # removed at once
            os._exit(0 if result >= 0 or ctypes.get_errno() not in forbidden else 1)
        if os.waitpid(pid, 0)[1] == 0:
            reached.append(name)
    return ", ".join(reached)


def calls_as_a_32_bit_program() -> str:
    """System calls have other numbers there: a filter that only knows the 64-bit ones is got round."""
    import ctypes
    import mmap
    import os

    code = bytes.fromhex("53b814000000cd805bc3")  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
    pid = os.fork()
    if pid == 0:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid() else 1)
    return "" if os.waitpid(pid, 0)[1] else "system calls as a 32-bit program"


def types_into_a_terminal() -> str:
    """TIOCSTI: text that the shell behind the terminal takes for typed. Here in a terminal of its own."""
    import fcntl
    import os
    import termios

    outer, inner = os.openpty()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
            fcntl.ioctl(inner, termios.TIOCSTI, b"x")
            os._exit(0)
        except OSError:
            os._exit(1)
    typed = os.waitpid(pid, 0)[1] == 0
    os.close(outer)
    os.close(inner)
    return "typing into a terminal" if typed else ""


def opens_kernel_settings() -> str:
    """Some run a program as root (core_pattern, modprobe); root inside a user namespace may still write them."""
    import os

    paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger"]
    paths += ["/proc/sys/fs/binfmt_misc/register", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper"]
    reached = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
            reached.append(path)
        except OSError:
            continue
    return ", ".join(reached)


def dumps_core() -> str:
    """A crash hands its memory to a program that runs as root (apport, systemd-coredump), or fills the folder."""
    import os
    import resource

    pid = os.fork()
    if pid == 0:
        try:
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
            resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
        except (OSError, ValueError):
            pass
        os.abort()
    return "a core dump" if os.WCOREDUMP(os.waitpid(pid, 0)[1]) else ""


def gains_rights() -> str:
    """Root, capabilities, or a real-time priority that starves the machine."""
    import os

    reached = []
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    if any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")):
        reached.append("capabilities")
    if "0" in status["Uid"].split():
        reached.append("root")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        reached.append("real-time priority")
    except OSError:
        pass
    return ", ".join(reached)


# --- memory and disk --------------------------------------------------------------------------------------------------


def writes_a_big_file(mib: int) -> str:
    """One file, in the kernel's own folder."""
    import os

    try:
        with open("big", "wb") as file:
            for _ in range(mib):
                file.write(bytes(1 << 20))
        return f"a file of {mib} MiB"
    finally:
        os.remove("big")


def fills_the_disk(mib: int) -> str:
    """Many files, each of an allowed size, in every folder that can be written."""
    import os

    made = []
    reached = []
    try:
        for folder in (".", "/tmp"):
            written = 0
            try:
                while written < mib:
                    made.append(f"{folder}/fill-{os.getpid()}-{written}")
                    with open(made[-1], "wb") as file:
                        file.write(bytes(4 << 20))
                    written += 4
                reached.append(f"{mib} MiB in {folder}")
            except OSError:
                continue
        return ", ".join(reached)
    finally:
        for path in made:
            if os.path.exists(path):
                os.remove(path)


def takes_address_space(mib: int) -> str:
    """A single allocation, not even touched."""
    import mmap

    mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE).close()
    return f"{mib} MiB of address space"


# --- what ends the kernel ---------------------------------------------------------------------------------------------


def unpacks(path: str) -> str:
    """A small file that becomes a large one."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return f"{sum(len(archive.read(name)) for name in archive.namelist()) >> 20} MiB"


def hides_and_takes_memory(mib: int) -> str:
    """A process that forbids its dumping takes /proc/<pid> away from an unprivileged watcher."""
    import ctypes
    import time

    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    held = []
    for _ in range(mib // 20):
        held.append(b"x" * (20 << 20))
        time.sleep(0.01)
    return f"{len(held) * 20} MiB of memory"


def holds_sockets(count: int) -> str:
    """Each open socket may hold 200 KiB of the system's own memory, which belongs to no process."""
    import os
    import socket
    import time

    children = []
    for _ in range(count // 900):
        pid = os.fork()
        if pid == 0:
            pairs = [socket.socketpair() for _ in range(450)]
            time.sleep(3)
            os._exit(len(pairs) != 450)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    return "" if any(statuses) else f"{900 * len(children)} sockets"


def takes_memory(mib: int) -> str:
    """Memory in portions too small to be refused, shared with children and held in mapped, nameless files."""
    import mmap
    import os

    held = []
    for number in range(mib // 20):
        shared = mmap.mmap(-1, 20 << 20)
        shared.write(os.urandom(1) * (20 << 20))
        held.append(shared)
        if number % 10 == 9 and os.fork() == 0:
            os._exit(0)
    return f"{mib} MiB of memory"


def makes_small_files(count: int) -> str:
    """Empty files: no size limit sees them, and each takes memory of the system's kernel."""
    import os
    import shutil

    os.mkdir("/tmp/small")
    try:
        for number in range(count):
            os.close(os.open(f"/tmp/small/{number}", os.O_CREAT | os.O_WRONLY))
        return f"{count} files"
    finally:
        shutil.rmtree("/tmp/small", ignore_errors=True)


def ignores_interrupts(seconds: float) -> str:
    """A loop that computes on when asked to stop."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                pass
        except KeyboardInterrupt:
            continue
    return f"{seconds:g} s of computing, against interrupts"
