"""The system calls that untrusted code is denied, compiled to a BPF program by libseccomp (through ctypes).

A deny list: what scientific Python needs is too wide for an allow list that holds on every machine. It takes away what
reaches beyond the sandbox (namespaces, mounts, other processes' memory, kernel keyrings, cores that others grade on),
what limits and watchdog cannot count (memory files, System V shared memory) and kernel parts with a record of holes
(io_uring, BPF, userfaultfd). The names are Linux's; a filter that another architecture's calls get past is no filter,
so libseccomp kills a process that uses a foreign calling convention (32-bit `int 0x80`, x32).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os

ALLOW = 0x7FFF0000  # SCMP_ACT_ALLOW; numbers from <seccomp.h>
ERRNO = 0x00050000  # SCMP_ACT_ERRNO(…)
NE, GT, MASKED_EQ = 1, 6, 7  # enum scmp_compare
LOW = 0xFFFFFFFF  # the kernel reads an `int` argument from the low half of its register; so must the comparison

NAMESPACES = "unshare setns mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick"
DENIED = f"""
{NAMESPACES} mount_setattr open_tree_attr
ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp
keyctl add_key request_key
io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd
memfd_create memfd_secret shmget shmat shmctl msgget semget
open_by_handle_at name_to_handle_at fanotify_init lookup_dcookie quotactl quotactl_fd
init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct syslog nfsservctl
sched_setaffinity
settimeofday clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex stime
iopl ioperm modify_ldt vm86 vm86old vmsplice vhangup sethostname setdomainname
""".split()

CLONE_NEWUSER = 0x10000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, NETLINK_ROUTE = 1, 2, 10, 16, 0


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def library() -> ctypes.CDLL | None:
    """libseccomp, or None where it is not installed."""
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    return found


@functools.cache
def program() -> bytes:
    """The filter as bubblewrap's `--seccomp` wants it: an array of `struct sock_filter`.

    Raises:
        OSError: libseccomp is missing or cannot compile the rules.
    """
    lib = library()
    if lib is None:
        raise OSError("libseccomp.so.2 is not installed")
    filters = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(ALLOW)))
    if not filters:
        raise OSError("libseccomp cannot make a filter")

    def deny(name: str, *comparisons: tuple[int, int, int, int], error: int = errno.EPERM) -> None:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # unknown to this libseccomp; other negative numbers are calls this architecture lacks
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        status = lib.seccomp_rule_add_array(filters, ctypes.c_uint32(ERRNO | error), number, len(array), array)
        if status < 0 and status != -errno.EDOM:  # EDOM: not on this architecture
            raise OSError(-status, f"libseccomp: rule for {name}: {os.strerror(-status)}")

    try:
        for name in DENIED:
            deny(name)
        # clone3's flags lie in memory, out of a filter's sight: glibc falls back to clone when it "does not exist"
        deny("clone3", error=errno.ENOSYS)
        deny("clone", (0, MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER))
        # only these families, and of netlink only what getifaddrs needs
        for family in set(range(AF_NETLINK + 1)) - {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}:
            deny("socket", (0, MASKED_EQ, LOW, family))
        deny("socket", (0, GT, AF_NETLINK, 0))
        deny("socket", (0, MASKED_EQ, LOW, AF_NETLINK), (2, NE, NETLINK_ROUTE, 0))
        # typing into a terminal that other people read
        for request in (TIOCSTI, TIOCLINUX):
            deny("ioctl", (1, MASKED_EQ, LOW, request))
        return _exported(lib, filters)
    finally:
        lib.seccomp_release(filters)


def _exported(lib: ctypes.CDLL, filters: ctypes.c_void_p) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        status = lib.seccomp_export_bpf(filters, descriptor)
        if status < 0:
            raise OSError(-status, f"libseccomp: {os.strerror(-status)}")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
