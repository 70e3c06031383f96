"""Where tensors live and how many cores a process may use."""

from __future__ import annotations

import os

import torch


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device called ``name``; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: the name is unknown, or the machine lacks that device; the message says what to use instead.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:0'") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ValueError(
                f"device {name!r} was asked for, but this torch ({torch.__version__}) sees no CUDA GPU; "
                "use 'auto' or 'cpu', or see `course doctor`"
            )
        if (device.index or 0) >= count:
            raise ValueError(
                f"device {name!r} was asked for, but there are only {count} CUDA GPUs (cuda:0 is the first)"
            )
    return device


def describe_device(device: torch.device) -> str:
    """One line for people: ``CUDA NVIDIA A100, 79.2 GiB`` or ``CPU, 2 threads``."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"CUDA {properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    threads = torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread{'s' * (threads != 1)}"


def available_cores() -> int:
    """Cores this process may run on (affinity, not the machine's total: a container often has fewer)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_limit(threads: int) -> dict[str, str]:
    """Environment variables that keep one process to ``threads`` cores.

    Two processes with two threads each on two cores are slower than one after the other, so everything that starts a
    process passes these on.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, str(max(1, threads)))
