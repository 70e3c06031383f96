"""What the student's process may send instead of an answer: nothing is built, changed or believed that it says.

The hostile end is a thread that writes whatever it likes to the socket. Nothing of this exists in stock nbgrader.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from course_lib.classroom.seal.cells import Plan
from course_lib.classroom.seal.checker import Checker
from course_lib.classroom.seal.errors import StudentError
from course_lib.classroom.seal.frames import LARGEST_BODY, LARGEST_HEAD, MOST_BUFFERS, Closed, Frames
from course_lib.classroom.seal.kernel import give_own_inputs
from course_lib.classroom.seal.randomness import believable
from course_lib.classroom.seal.remote import Remote
from course_lib.classroom.seal.student import Student
from course_lib.energy.ebm import Chain
from tests.classroom.loopback import sealed

FUNCTION = {"k": "dict", "v": [["f", {"k": "mine", "v": 1, "kinds": ["builtins.function"], "name": "f"}]]}


@contextlib.contextmanager
def against(answer: Callable[[Frames, dict], None], seconds: float = 20.0) -> Iterator[Any]:
    """The stand-in for `f` of a student's process that answers every call with `answer(frames, head)`."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        frames = Frames(theirs)
        with contextlib.suppress(Closed):
            while True:
                head, _ = frames.receive()
                if head["op"] == "get":
                    frames.send({"reply": head["number"], "value": FUNCTION, "outgoing": []})
                else:
                    answer(frames, head)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    checker = Checker(Frames(ours), seconds=seconds)
    try:
        yield checker.get(["f"])["f"]
    finally:
        ours.close()
        thread.join(10)
        theirs.close()


NO_CHANGES = {
    "k": "dict",
    "v": [
        *([name, {"k": "dict", "v": []}] for name in ("values", "grads", "hooked")),
        *([name, {"k": "list", "v": []}] for name in ("spoilt", "touched", "training", "attributes", "optimizers")),
    ],
}


def reply(value: Any, changes: Any = NO_CHANGES, after: Any = None, **more: Any) -> Callable[[Frames, dict], None]:
    """Answers a call with `value`, as described on the wire."""

    def answer(frames: Frames, head: dict) -> None:
        size = len(torch.get_rng_state())
        rng = {"k": "list", "v": [{"k": "tensor", "v": 0, "dtype": "uint8", "shape": [size]}]}
        parts = [value, changes, {"k": "dict", "v": []}, rng if after is None else after]
        message = {"reply": head["number"], "value": {"k": "list", "v": parts}, "outgoing": []} | more
        frames.send(message, [bytes(size)])

    return answer


def test_this_forger_is_understood():
    with against(reply(4)) as f:
        assert f(2) == 4


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": "list", "v": [value]}
    return value


RECORD = {"k": "record", "v": {}}
NONSENSE = {
    "a reference to what was never sent": {"k": "yours", "v": 1},
    "a leaf that is none": {"k": "leaf", "v": 1},
    "an unknown kind": {"k": "pickle", "v": "gASVAAAA"},
    "a list that is none": [1, 2],
    "a deep nesting": nested(40),
    "a class of a foreign module": RECORD | {"module": "subprocess", "name": "Popen", "v": {"args": "false"}},
    "a class that is no dataclass": RECORD | {"module": "course_lib.classroom.course", "name": "CourseError"},
    "a function of the library": RECORD | {"module": "course_lib.classroom.cli", "name": "main"},
    "a dataclass of the graders'": RECORD
    | {"module": "course_lib.classroom.submission", "name": "Graded", "v": {"mark": 100}},
    "a module that would have to be imported": RECORD | {"module": "course_lib.classroom.lab", "name": "Path"},
    "a class of the notebook that is not known": RECORD | {"module": "__main__", "name": "Checker"},
    "a module that is no name": RECORD | {"module": 3, "name": "x"},
    "a tensor larger than its bytes": {"k": "tensor", "v": 0, "dtype": "float64", "shape": [2**40]},
    "a tensor of an impossible shape": {"k": "tensor", "v": 0, "dtype": "float64", "shape": [0, 2**63, 2**63]},
    "a tensor of a negative shape": {"k": "tensor", "v": 0, "dtype": "uint8", "shape": [-1, -5056]},
    "a tensor of objects": {"k": "ndarray", "v": 0, "dtype": "object", "shape": [1]},
    "a key that cannot be one": {"k": "dict", "v": [[{"k": "list", "v": []}, 1]]},
    "a stand-in without a number": {"k": "mine", "v": "x", "kinds": 3},
}


@pytest.mark.parametrize("value", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused(value):
    before = dict(sys.modules)
    with against(reply(value)) as f, pytest.raises(StudentError, match=r"no plain data|nonsense"):
        f(2)
    assert not [name for name in sys.modules if name not in before and name.startswith("course_lib.classroom")]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!II", LARGEST_HEAD + 1, 0),
        struct.pack("!II", 2, MOST_BUFFERS + 1),
        struct.pack("!II", 2, 1) + b"{}" + struct.pack("!Q", LARGEST_BODY + 1),
        struct.pack("!II", 2, 2) + b"{}" + struct.pack("!QQ", 2**64 - 1, 2),
        struct.pack("!II", 200_000, 0) + b"[" * 200_000,
        struct.pack("!II", 3, 0) + b"\xff{}",
        struct.pack("!II", 2, 0) + b"[]",
        struct.pack("!II", 5000, 0) + b"9" * 5000,
    ],
    ids=["head", "arrays", "body", "overflow", "recursion", "not text", "no dictionary", "a long number"],
)
def test_frames_that_are_none_end_the_conversation(sent):
    with against(lambda frames, head: frames.stream.sendall(sent)) as f, pytest.raises(Closed):
        f(2)


def test_silence_and_answers_to_other_questions_are_no_answer():
    def other(frames, head):
        frames.send({"reply": head["number"] + 1, "value": 4, "outgoing": []})

    with against(other, seconds=0.3) as f, pytest.raises(TimeoutError):
        f(2)


def test_wrong_numbers_and_nan_are_wrong():
    for text in ("NaN", "Infinity", "-0.0", "5.000001", "true"):
        with against(reply(json.loads(text))) as f:
            assert not abs(f([3, 4]) - 5) < 1e-9


def test_a_stand_in_for_a_number_equals_nothing():
    with against(reply({"k": "mine", "v": 7, "kinds": ["builtins.float"], "name": "5.0"})) as f:
        got = f([3, 4])
        assert type(got) is Remote
        assert got != 5.0
        with pytest.raises(TypeError):
            abs(got - 5)
        with pytest.raises(TypeError):
            bool(got == got and got)


@pytest.mark.parametrize(
    "error", [["KeyboardInterrupt", ""], ["SystemExit", "0"], ["GeneratorExit", ""], ["x"], 3, None]
)
def test_errors_that_end_programs_are_errors_here(error):
    def answer(frames, head):
        frames.send({"reply": head["number"], "error": error})

    with against(answer) as f, pytest.raises(StudentError):
        f(2)


# ---------------------------------------------------------------- what the checker's objects tell


class Teller:
    """What a test might pass to the student's function."""

    secret = 5

    def __init__(self):
        self._answer = 42

    def method(self, x):
        return x


class Thief:
    """The student's function: asks an object for an attribute, and returns what it got."""

    def __init__(self, name):
        self.name = name

    def __call__(self, stolen):
        found = stolen._student.ask({"op": "attr", "on": stolen._number, "name": self.name}, [])
        return repr(found)


@pytest.mark.parametrize("name", ["__globals__", "__class__", "__dict__", "_answer", "_kept", "__code__", "__self__"])
@pytest.mark.parametrize("given", [Teller(), Teller().method, lambda x: 42], ids=["object", "method", "function"])
def test_objects_of_a_test_do_not_open(given, name):
    with sealed({"f": Thief(name)}) as checker, pytest.raises((RuntimeError, AttributeError)):
        checker.get(["f"])["f"](given)


@pytest.mark.parametrize("name", ["__globals__", "__closure__", "gi_frame", "f_back", "co_consts", "tb_frame"])
def test_nor_do_their_inner_parts(name):
    def thief(stolen):
        return repr(stolen._student.ask({"op": "attr", "on": stolen._number, "name": name}, []))

    with sealed({"f": thief}) as checker, pytest.raises((RuntimeError, AttributeError)):
        checker.get(["f"])["f"](Teller().method)


def test_what_is_no_secret_can_be_asked():
    with sealed({"f": lambda o: (o.secret, o.method(3))}) as checker:
        assert checker.get(["f"])["f"](Teller()) == (5, 3)


def test_other_objects_cannot_be_guessed_by_number():
    def guess(stolen):
        return stolen._student.ask({"op": "call", "on": stolen._number + 1000}, [[], {}])

    with sealed({"f": guess}) as checker, pytest.raises(RuntimeError):
        checker.get(["f"])["f"](Teller())


# ---------------------------------------------------------------- arguments, gradients, randomness


def test_the_checkers_arguments_cannot_be_changed_from_there():
    """A function that made its argument trivial would equal whatever the test computes from it."""
    changed = json.loads(json.dumps(NO_CHANGES))
    values, spoilt = changed["v"][0][1], changed["v"][3][1]
    zeros = {"k": "tensor", "v": 0, "dtype": "float64", "shape": [2]}

    def answer(hide: bool) -> Callable[[Frames, dict], None]:
        values["v"], spoilt["v"] = [[0, zeros]], [] if hide else [0]

        def send(frames: Frames, head: dict) -> None:
            parts = [zeros, changed, {"k": "dict", "v": []}, {"k": "list", "v": [zeros]}]
            message = {"reply": head["number"], "value": {"k": "list", "v": parts}, "outgoing": []}
            frames.send(message, [bytes(16)])

        return send

    for hide in (False, True):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        with against(answer(hide)) as f:
            if hide:
                assert f(x).tolist() == [0, 0]
            else:
                with pytest.raises(StudentError, match="in place"):
                    f(x)
        assert x.tolist() == [1, 2]


@pytest.mark.parametrize("forged", [{1: torch.ones(5)}, {}, {2: torch.full((2,), math.nan)}, [1], "no gradients"])
def test_forged_gradients_are_wrong_or_refused(forged, monkeypatch):
    """They may be any numbers, which a test compares with its own; nothing but the inputs gets them."""

    def lie(self, head, grads):
        return forged

    monkeypatch.setattr(Student, "_vjp", lie)
    with sealed({"f": lambda x: (x**2).sum()}) as checker:
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        other = torch.tensor([1.0], requires_grad=True)
        value = checker.get(["f"])["f"](x) + other.sum()
        with contextlib.suppress(StudentError, RuntimeError):
            value.backward()
        assert x.grad is None or not torch.allclose(x.grad, 2 * x.detach())
        assert other.grad is None or other.grad.tolist() == [1]


def test_a_made_up_generator_state_is_not_believed():
    generator = torch.Generator().manual_seed(1)
    start = generator.get_state()
    torch.randn(700, generator=generator)
    honest = generator.get_state()
    assert torch.equal(believable(start, honest), honest)
    trivial = honest.clone()
    trivial[24 : 24 + 624 * 8] = 0
    for claimed in (trivial, torch.Generator().manual_seed(0).get_state(), torch.zeros(3), honest[:-1]):
        made = believable(start, claimed)
        generator.set_state(made)
        after = torch.randn(700, generator=generator)
        assert not torch.equal(made, claimed)
        assert after.std() > 0.5
        assert torch.equal(made, believable(start, claimed))  # and the same in a regrade


def test_every_student_has_inputs_of_their_own(monkeypatch):
    names = [(torch, "Generator"), (torch, "manual_seed"), (np.random, "default_rng")]
    for module, name in names:
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr("builtins.input", input)

    def inputs(seed: int) -> list[float]:
        with monkeypatch.context() as patch:
            for module, name in names:
                patch.setattr(module, name, getattr(module, name))
            give_own_inputs(seed)
            torch.manual_seed(0)
            drawn = [torch.rand(()).item(), np.random.default_rng(7).random()]
            return [*drawn, torch.rand((), generator=torch.Generator().manual_seed(3)).item()]

    first, second, again = inputs(1), inputs(2), inputs(1)
    assert first == again
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_records_of_the_library_are_built_where_those_of_the_graders_are_not():
    with sealed({"f": lambda: (Plan(frozenset({"x"}), frozenset(), (), ()), Chain(steps=3))}) as checker:
        made, chain = checker.get(["f"])["f"]()
    assert type(made) is Remote
    assert chain == Chain(steps=3)
