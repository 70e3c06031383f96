"""The seal as an honest student's functions see it: data and gradients go there and come back as if nothing was there.

Both sides run in this process; a real socket lies between them.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_output
from torch import nn

from course_lib.classroom.execution import ExecutionOptions, _join_streams, execute_submission
from course_lib.classroom.normalize import normalize
from course_lib.classroom.seal.errors import StudentError
from course_lib.classroom.seal.frames import Closed
from course_lib.classroom.seal.remote import Remote
from tests.classroom import hostile
from tests.classroom.loopback import run_sealed, sealed

VALUES = [
    *(None, True, False, 0, -3, 2**70, 1.5, math.inf, "", "α ≤ ½", b"\x00\xff", 1 - 2j, ..., range(2, 9, 3)),
    *((), (1, (2.0, "x")), [], [[1], [2, None]], {1, 2}, frozenset({"a"}), {"a": {2: (3,)}}, slice(1, None, 2)),
    *(torch.float32, torch.device("cpu"), torch.Size([2, 3])),
]
TENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(6).reshape(2, 3).T,
    torch.tensor(3.5, dtype=torch.float64),
    torch.empty(0, 4),
    torch.tensor([True, False]),
    torch.tensor([1 + 2j]).conj(),
    torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    torch.tensor([math.nan, math.inf]),
]


def same(got: torch.Tensor, want: torch.Tensor) -> bool:
    return got.dtype == want.dtype and got.shape == want.shape and torch.allclose(got, want, 0, 0, equal_nan=True)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_go_there_and_back(value):
    with sealed({"f": lambda x: x, "same": lambda x: x == value and type(x) is type(value)}) as checker:
        names = checker.get(["f", "same"])
        got = names["f"](value)
        assert names["same"](value) is True  # the student gets it as it is
        assert got == value
        assert type(got) is (tuple if isinstance(value, torch.Size) else type(value))


@pytest.mark.parametrize("value", TENSORS, ids=lambda t: f"{t.dtype}{list(t.shape)}")
def test_tensors_go_there_and_back(value):
    with sealed({"f": lambda x: [x, {"again": x}]}) as checker:
        got, inside = checker.get(["f"])["f"](value)
        assert same(got, value.resolve_conj())
        assert same(inside["again"], value.resolve_conj())
        assert got.data_ptr() != value.data_ptr() or not value.numel()


def test_nan_is_still_not_a_number():
    with sealed({"f": lambda: (math.nan, np.float64("nan"))}) as checker:
        assert all(map(math.isnan, checker.get(["f"])["f"]()))


@pytest.mark.parametrize(
    "value",
    [np.arange(4, dtype=np.int16).reshape(2, 2), np.float32(2.5), np.array(1.0), np.arange(6.0)[::2], np.bool_(True)],
    ids=repr,
)
def test_numpy_goes_there_and_back(value):
    with sealed({"f": lambda x: x}) as checker:
        got = checker.get(["f"])["f"](value)
        assert type(got) is type(value)
        assert got.dtype == value.dtype
        np.testing.assert_array_equal(got, value)


def test_names_that_are_missing_are_unknown():
    with sealed({"f": abs}) as checker:
        assert list(checker.get(["g", "f"])) == ["f"]
    with pytest.raises(NameError, match="'g' is not defined"):
        run_sealed("assert g(2) == 4", {}, {"f": abs}, frozenset({"f", "g"}))


def test_values_of_the_student_are_data():
    with sealed({"n": 7, "table": {"a": torch.ones(2)}}) as checker:
        names = checker.get(["n", "table"])
        assert names["n"] == 7
        assert names["table"]["a"].tolist() == [1, 1]


# ---------------------------------------------------------------- gradients


def cubic(x):
    return (x**3).sum()


def test_first_and_second_derivatives_through_the_students_function():
    with sealed({"cubic": cubic}) as checker:
        f = checker.get(["cubic"])["cubic"]
        x = torch.tensor([1.0, 2.0, -3.0], requires_grad=True)
        [slope] = torch.autograd.grad(f(2 * x), x, create_graph=True)
        torch.testing.assert_close(slope, 24 * x.detach() ** 2)
        [curve] = torch.autograd.grad(slope.sum(), x)
        torch.testing.assert_close(curve, 48 * x.detach())


def test_gradients_can_be_asked_for_after_an_unrelated_step():
    """A function that does not need the value of its argument for the gradient does not mind that it has changed."""
    with sealed({"f": lambda x, y: x.sum() + 2 * y.sum()}) as checker:
        x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        value = checker.get(["f"])["f"](x, y)
        with torch.no_grad():
            y.add_(1)
        value.backward()
        assert (x.grad.tolist(), y.grad.tolist()) == ([1, 1], [2, 2])


def test_two_calls_join_in_one_graph():
    with sealed({"f": lambda x: x * x, "g": torch.sin}) as checker:
        names = checker.get(["f", "g"])
        x = torch.tensor(0.7, requires_grad=True)
        (names["g"](names["f"](x)) + names["f"](x)).backward()
        torch.testing.assert_close(x.grad, 2 * x.detach() * (1 + torch.cos(x.detach() ** 2)))


def test_nothing_is_tracked_under_no_grad():
    with sealed({"f": lambda x: x * x}) as checker, torch.no_grad():
        assert not checker.get(["f"])["f"](torch.ones(2, requires_grad=True)).requires_grad


def gradient_penalty(critic, x):
    x = x.clone().requires_grad_()
    [slope] = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


def test_the_student_differentiates_a_test_s_function_and_the_test_differentiates_that():
    weight = torch.tensor([[0.5], [2.0]], requires_grad=True)
    x = torch.tensor([[1.0, -1.0], [0.2, 0.4]])

    def critic(x):  # stays with the test
        return (x @ weight).tanh()

    gradient_penalty(critic, x).backward()
    want, weight.grad = weight.grad, None
    with sealed({"gradient_penalty": gradient_penalty}) as checker:
        checker.get(["gradient_penalty"])["gradient_penalty"](critic, x).backward()
    torch.testing.assert_close(weight.grad, want)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_the_student_transforms_a_test_s_function(transform):
    def use(f, x):
        return transform(f)(x)

    def of(x):
        return (x * x * x).sum() if transform is torch.func.grad else x * x * x

    x = torch.tensor([1.0, 2.0])
    with sealed({"use": use}) as checker:
        torch.testing.assert_close(checker.get(["use"])["use"](of, x), use(of, x))


def test_a_tensor_that_answers_for_itself_is_only_its_numbers():
    class Everything(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (torch.allclose, torch.equal, torch.Tensor.eq, torch.Tensor.__eq__):
                return True
            return super().__torch_function__(function, types, args, kwargs)

    made = torch.zeros(2).as_subclass(Everything)
    assert torch.equal(made, torch.ones(2))  # in one process, it passes
    with sealed({"f": lambda: made}) as checker:
        got = checker.get(["f"])["f"]()
        assert type(got) is torch.Tensor
        assert not torch.equal(got, torch.ones(2))


# ---------------------------------------------------------------- modules, objects, generators


def train(model, optimizer, x):
    optimizer.zero_grad()
    loss = (model(x) - 1).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_a_module_trains_over_several_calls_as_in_one_process():
    def start():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        return model, torch.optim.Adam(model.parameters(), 0.1), torch.randn(8, 2)

    model, optimizer, x = start()
    want = [train(model, optimizer, x) for _ in range(4)]
    wanted = model.state_dict()
    model, optimizer, x = start()
    with sealed({"train": train}) as checker:
        got = [checker.get(["train"])["train"](model, optimizer, x) for _ in range(4)]
    assert got == pytest.approx(want, rel=1e-6)
    assert got[-1] < got[0]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, wanted[name])


def test_a_module_that_is_not_trained_stays_as_it_is():
    def spoils(model, x):
        with torch.no_grad():
            model.weight.fill_(0)
            model.bias.fill_(1)
        return model(x)

    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with sealed({"f": spoils}) as checker:
        checker.get(["f"])["f"](model, torch.ones(1, 2))
    assert torch.equal(model.weight, before)


def test_the_students_module_is_driven_by_a_test_s_optimizer():
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.slope * x

    with sealed({"Line": Line}) as checker:
        line = checker.get(["Line"])["Line"]()
        assert isinstance(line, nn.Module)
        optimizer = torch.optim.SGD(line.parameters(), 0.1)
        x = torch.tensor([1.0, 2.0])
        for _ in range(20):
            optimizer.zero_grad()
            (line(x) - 3 * x).square().mean().backward()
            optimizer.step()
        torch.testing.assert_close(line(x), 3 * x, rtol=1e-3, atol=1e-3)
        assert [p.item() for p in line.parameters()] == pytest.approx([3.0], abs=1e-2)


def test_generators_go_on_where_the_student_left_them():
    def draw(generator):
        return torch.randn(3, generator=generator)

    def ours():
        return torch.Generator().manual_seed(3)

    reference, generator = ours(), ours()
    want = [draw(reference) for _ in range(3)]
    with sealed({"draw": draw}) as checker:
        f = checker.get(["draw"])["draw"]
        got = [f(generator), draw(generator), f(generator)]
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)


def test_objects_of_the_student_stay_there():
    class Counter:
        def __init__(self, start):
            self.n = start

        def step(self, by=1):
            self.n += by
            return self.n

        def __len__(self):
            return self.n

        def __getitem__(self, key):
            return key * 2

        def __iter__(self):
            return iter([1, 2])

    with sealed({"Counter": Counter}) as checker:
        counter = checker.get(["Counter"])["Counter"](5)
        assert type(counter) is Remote
        assert (counter.step(by=2), counter.n, len(counter), counter[4], list(counter)) == (7, 7, 7, 8, [1, 2])
        counter.n = 1
        assert counter.step() == 2
        assert counter != 2
        with pytest.raises(TypeError, match="neither true nor false"):
            bool(counter)


Point = namedtuple("Point", "x y")


def test_records_of_others_come_as_stand_ins():
    """Only classes that the checker knows are built there; of any other the fields can be asked."""

    @dataclasses.dataclass
    class Own:
        mean: float

    with sealed({"f": lambda: (Own(2.0), Point(1, 2))}) as checker:
        own, point = checker.get(["f"])["f"]()
        assert (type(own), type(point)) == (Remote, Remote)
        assert (own.mean, point.x, point[1]) == (2.0, 1, 2)


def test_a_function_of_the_test_is_called_by_the_student():
    calls = []

    def log(step, value):
        calls.append((step, value))

    def loop(callback):
        for i in range(3):
            callback(i, i / 2)

    with sealed({"loop": loop}) as checker:
        checker.get(["loop"])["loop"](log)
    assert calls == [(0, 0.0), (1, 0.5), (2, 1.0)]


# ---------------------------------------------------------------- what goes wrong


def zeroes(x):
    return x.zero_()


def test_an_argument_that_the_function_changes_is_refused_and_kept():
    x = torch.ones(3)
    with sealed({"f": zeroes}) as checker:
        with pytest.raises(StudentError, match="changes its arguments in place"):
            checker.get(["f"])["f"](x)
        assert x.tolist() == [1, 1, 1]
    run_sealed("# in place\nf(x)\nassert x.tolist() == [0, 0, 0]", {"x": x}, {"f": zeroes}, frozenset({"f"}))


def boom(kind):
    raise kind


class Odd(Exception):
    """An exception of the student's own."""


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("σ must be positive"), ValueError, "σ must be positive"),
        (ZeroDivisionError("by 0"), ZeroDivisionError, "by 0"),
        (NotImplementedError(), NotImplementedError, ""),
        (Odd("own"), StudentError, "Odd: own"),
        (SystemExit(3), StudentError, "SystemExit: 3"),
        (KeyboardInterrupt(), StudentError, "KeyboardInterrupt: "),
    ],
)
def test_exceptions_keep_type_and_message(raised, kind, message):
    def f():
        raise raised

    with sealed({"f": f, "g": lambda: 1}) as checker:
        names = checker.get(["f", "g"])
        with pytest.raises(Exception) as caught:
            names["f"]()
        assert (type(caught.value), str(caught.value)) == (kind, message)
        assert names["g"]() == 1  # and the line still works


def test_a_call_that_does_not_end_is_a_timeout():
    release = threading.Event()
    with sealed({"f": release.wait}, seconds=0.2) as checker:
        f = checker.get(["f"])["f"]
        with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
            f()
        release.set()


def test_an_answer_that_is_too_large_ends_the_conversation():
    with sealed({"f": torch.zeros}) as checker:
        f = checker.get(["f"])["f"]
        checker.frames.largest = 100_000
        assert f(10).tolist() == [0] * 10
        with pytest.raises(Closed, match="MiB are allowed"):
            f(100_000)


def test_a_kernel_that_dies_costs_the_rest_only(tmp_path):
    """`double` is not defined, `norm` ends the process."""
    submitted = hostile.answered(**hostile.HONEST | {"double": "pass", "norm": hostile.EXITS})
    notebook, _, _ = normalize(submitted, hostile.source())
    options = ExecutionOptions(sandbox=False)
    executed = execute_submission(notebook, hostile.source(), tmp_path, 1, options)
    assert executed.problem == ""
    cells = hostile.by_name(executed.notebook)
    errors = {name: [o.ename for o in cells[name].outputs if o.output_type == "error"] for name in hostile.POINTS}
    assert errors["test_double__value"] == ["NameError"]
    assert errors["test_norm__value"][-1] in ("Closed", "KernelDied")
    assert errors["test_scaled__random"] == ["NotRun"]


def test_messages_that_are_none_cost_the_rest_only(tmp_path):
    """The student's code can write to the kernel's own sockets."""
    answers = hostile.HONEST | {"norm": hostile.HONEST["norm"] + "\n\n\n" + hostile.BABBLES}
    notebook, _, _ = normalize(hostile.answered(**answers), hostile.source())
    executed = execute_submission(notebook, hostile.source(), tmp_path, 1, ExecutionOptions(sandbox=False))
    assert executed.problem == ""
    cells = hostile.by_name(executed.notebook)
    errors = {name: [o.ename for o in cells[name].outputs if o.output_type == "error"] for name in hostile.POINTS}
    assert errors["test_double__value"] == errors["test_double__kinds"] == []
    assert errors["test_scaled__random"] == ["NotRun"]


def test_progress_bars_are_shown_as_a_terminal_leaves_them_and_long_lines_quickly():
    cell = new_code_cell(
        outputs=[
            new_output("stream", name="stdout", text="0 %\r50"),
            new_output("stream", name="stderr", text="warning\n"),
            new_output("stream", name="stdout", text=" %\r100 %\r\ndone\r\n" + "x" * 1_000_000),
        ]
    )
    _join_streams(cell)
    assert [(o.name, o.text[:11]) for o in cell.outputs] == [("stdout", "100 %\ndone\n"), ("stderr", "warning\n")]
    assert len(cell.outputs[0].text) == 1_000_011
