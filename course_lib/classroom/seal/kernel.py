"""What the host tells the checker's kernel to do: begin a test cell, end it. Every student gets other random inputs."""

from __future__ import annotations

import builtins
import hashlib
import os
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from course_lib.classroom.seal.checker import Checker
from course_lib.classroom.seal.frames import Frames
from course_lib.classroom.seal.student import FD

END_SECONDS = 5.0


class Desk:
    """The checker's end of the seal in a kernel.

    Args:
        namespace: of the kernel, where test cells run.
        classes: names that locked cells give to classes; the student's kernel has them, too.
        seconds: for one call into the student's kernel.
        seed: of the student.
    """

    def __init__(self, namespace: dict[str, Any], classes: Sequence[str], seconds: float, seed: int) -> None:
        self._namespace, self._seconds = namespace, seconds
        known = frozenset(classes)
        stream = socket.socket(fileno=int(os.environ[FD]))
        self.checker = Checker(Frames(stream), lambda name: namespace.get(name) if name in known else None, seconds)
        give_own_inputs(seed)

    def begin(self, names: Sequence[str], in_place: bool) -> None:
        """Put stand-ins for what the student calls ``names`` into the namespace; missing names stay unknown."""
        self.checker.frames.stream.settimeout(self._seconds)
        self.checker.in_place = in_place
        for name in names:
            self._namespace.pop(name, None)
        self._namespace.update(self.checker.get(names))

    def end(self, names: Sequence[str]) -> list[str]:
        """Take the stand-ins away and let the student's kernel go on; returns what was odd about its answers.

        Raises:
            TimeoutError: it does not listen.
        """
        for name in names:
            self._namespace.pop(name, None)
        self.checker.frames.stream.settimeout(END_SECONDS)
        self.checker.stop()
        odd, self.checker.odd = self.checker.odd, []
        return odd


def give_own_inputs(seed: int) -> None:
    """Make every seed that a test sets a student's own: equal seeds stay equal, for one student.

    A function that has learnt the answers to one student's hidden inputs does not know another's.
    """

    def own(value: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}:{int(value)}".encode()).digest()[:6], "big")

    class Generator(torch.Generator):
        def manual_seed(self, value: int) -> torch.Generator:
            return super().manual_seed(own(value))

    def numpys(value: Any = None) -> np.random.Generator:
        return default_rng(own(value) if isinstance(value, (int, np.integer)) else value)

    set_seed, default_rng = torch.manual_seed, np.random.default_rng
    torch.Generator = Generator
    torch.manual_seed = lambda value: set_seed(own(value))
    np.random.default_rng = numpys
    # a test cell must not wait for a person
    builtins.input = _no_input


def _no_input(prompt: object = "") -> str:
    raise EOFError("nobody is there to answer")
