"""The student's side of the seal: answers requests of the checker, one at a time, in the student's process.

Nothing here protects anything: the student's code may replace all of it. It only has to be right for honest code.
"""

from __future__ import annotations

import os
import socket
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.classroom.seal.frames import Frames
from course_lib.classroom.seal.functional import Answer, Ask, transformed
from course_lib.classroom.seal.parcel import Unpacker
from course_lib.classroom.seal.plain import Decoder, Encoder

FD = "COURSE_SEAL_FD"
MOST_ITEMS = 10_000  # of an iterator that a test asks for


class CheckerObject:
    """Stands for a function or an object of the test that stays in the checker's process."""

    def __init__(self, student: Student, number: int) -> None:
        self.__dict__["_student"], self.__dict__["_number"] = student, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if transformed() and not kwargs and all(isinstance(a, Tensor) for a in args):
            number = torch.tensor(self._number)
            *out, _ = Ask.apply(self._student, "call", number, self._student.anchor, *args)
            return out[0] if len(out) == 1 else tuple(out)
        return self._student.ask({"op": "call", "on": self._number}, [list(args), dict(kwargs)])

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._student.ask({"op": "attr", "on": self._number, "name": name}, [])

    def __getitem__(self, key: Any) -> Any:
        return self._student.ask({"op": "item", "on": self._number}, [key])

    def __len__(self) -> int:
        return self._student.ask({"op": "len", "on": self._number}, [])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._student.ask({"op": "iter", "on": self._number}, []))


class CheckerModule(CheckerObject, nn.Module):
    """Stands for a module of the test; goes where PyTorch wants a module."""

    def __init__(self, student: Student, number: int) -> None:
        nn.Module.__init__(self)
        CheckerObject.__init__(self, student, number)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """The checker's parameters, as tensors that lead back to them."""
        return iter(self._student.ask({"op": "call", "on": self._number, "method": "parameters"}, [[], {}]))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module."""
        return CheckerObject.__call__(self, *args, **kwargs)


class _Answered(torch.autograd.Function):
    """Joins what the checker answered to the graph: its derivative is asked of the checker, too."""

    @staticmethod
    def forward(ctx, student, ticket, leaves, values, anchor, *inputs):  # signature of torch
        ctx.student, ctx.ticket, ctx.leaves = student, ticket, leaves
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx, *grads):  # signature of torch
        student, inputs = ctx.student, ctx.saved_tensors
        nothing = (None,) * (5 + len(inputs))
        if student.captured is not None:  # the checker differentiates: the rest of the way is its own
            for leaf, grad in zip(ctx.leaves, grads, strict=True):
                if grad is not None:
                    student.captured[leaf] = student.captured[leaf] + grad if leaf in student.captured else grad
            return nothing
        head = {"op": "vjp", "on": ctx.ticket, "create": torch.is_grad_enabled()}
        found = student.ask(head, [list(grads)], more_inputs=inputs)
        student.passed.append(
            (torch._C._current_graph_task_id(), ctx.ticket, [g if g is None else g.detach() for g in grads])
        )
        return (*nothing[:4], torch.zeros(()), *found)


class Student:
    """Serves a namespace.

    Args:
        frames: to the checker.
        namespace: where the student's names and the notebook's classes are.
    """

    def __init__(self, frames: Frames, namespace: dict[str, Any]) -> None:
        self.frames, self.namespace = frames, namespace
        self.captured: dict[int, Tensor] | None = None
        self.anchor = torch.zeros((), requires_grad=True)
        self.anchor.register_post_accumulate_grad_hook(self._after_backward)
        self.passed: list[
            tuple[int, int, list[Tensor | None]]
        ] = []  # gradients that went through the checker's objects
        self._objects: dict[int, Any] = {}
        self._owned: dict[int, nn.Parameter] = {}  # the student's own parameters, of which the checker has copies
        self.forget()

    def forget(self) -> None:
        """A test cell is over: what its calls have left behind goes."""
        self._objects.clear()
        self._owned.clear()
        self.kept: dict[int, Tensor] = {}  # tensors that functions may change, by their number at the checker
        self.passed.clear()
        self.given: dict[int, Any] = {}  # modules of the checker that travelled, by their number there
        self.answered: dict[int, Answer] = {}  # by ticket, of what is asked under torch.func
        self._leaves: dict[int, Tensor] = {}
        self._received: dict[int, Tensor] = {}  # tensors that the checker's objects gave
        self._segments: dict[int, list[Tensor]] = {}
        self._next = 1

    def serve(self) -> None:
        """Answer until the checker says stop. Raises Closed when it is gone."""
        while True:
            head, buffers = self.frames.receive()
            if head["op"] == "stop":
                self.forget()
                self.frames.send({"reply": head["number"]})
                return
            self._answer(head, buffers)

    # ---------------------------------------------------------------- requests of the checker

    def _answer(self, head: dict, buffers: list[memoryview]) -> None:
        try:
            reply, out = self._handle(head, buffers)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the student's function raised it
            reply, out = {"error": [type(error).__name__, str(error)[:4000]]}, []
        self.frames.send(reply | {"reply": head["number"]}, out)

    def _handle(self, head: dict, buffers: list[memoryview]) -> tuple[dict, list]:
        for segment in head.get("free", ()):
            self._segments.pop(segment, None)
        if head["op"] == "get":
            present = {name: self.namespace[name] for name in head["names"] if name in self.namespace}
            return self._encode(present)
        parcel = _Parcel(self, head["parcel"], buffers)
        for number, tensor in zip(head["owned"], parcel.owned, strict=True):
            with torch.no_grad():
                (self._owned[number] if number < 0 else self._leaves[number]).copy_(tensor)
        value, state = parcel.value
        with torch.set_grad_enabled(head["grad"]):
            if head["op"] == "vjp":
                return self._encode(self._vjp(head, value))
            result = self._perform(head, value)
            if isinstance(result, Iterator):
                result = [item for item, _ in zip(result, range(MOST_ITEMS), strict=False)]
            reply, out = self._encode([result, parcel.changes(state), self._owned_values(), parcel.after()])
        return reply, out

    def _perform(self, head: dict, value: Any) -> Any:
        on, op = self._objects[head["on"]], head["op"]
        if op == "call":
            args, kwargs = value
            return on(*args, **kwargs)
        if op == "attr":
            return getattr(on, head["name"])
        if op == "setattr":
            return setattr(on, head["name"], value[0])
        if op == "item":
            return on[value[0]]
        if op == "len":
            return len(on)
        return iter(on)

    def _vjp(self, head: dict, grads: list[Tensor | None]) -> dict[int, Tensor]:
        """Gradients of a segment's outputs, times ``grads``, at everything that came from the checker."""
        pairs = [(o, g) for o, g in zip(self._segments[head["on"]], grads[0], strict=True) if g is not None]
        leaves = self._leaves | self._owned
        self.captured = {}
        try:
            found = torch.autograd.grad(
                [o for o, _ in pairs],
                [self.anchor, *leaves.values()],
                [g for _, g in pairs],
                allow_unused=True,
                create_graph=head["create"],
                retain_graph=True,
            )
            captured = self.captured
        finally:
            self.captured = None
        for number, grad in zip(leaves, found[1:], strict=True):
            if grad is not None:
                captured[number] = captured[number] + grad if number in captured else grad
        return captured

    # ---------------------------------------------------------------- requests to the checker

    def ask(self, head: dict, value: list, more_inputs: tuple[Tensor, ...] = ()) -> Any:
        """Have the checker do something with an object of its own; the answer is differentiable.

        Raises:
            RuntimeError: the checker's object raised, or refused.
        """
        message, buffers = self._encode(value)
        sent = [*more_inputs, *self._segments.get(message.get("segment"), ())]
        reply, received = self._ask(message | head | {"grad": torch.is_grad_enabled()}, buffers)
        parcel = _Parcel(self, reply["parcel"], received, (reply["ticket"], sent))
        return parcel.value[0]

    def ask_plain(self, head: dict, value: list) -> tuple[Any, int, list[int | None]]:
        """As ``ask``, outside any graph: the checker treats each tensor as an input. Also: its ticket, its leaves."""
        message, buffers = self._encode(value)
        reply, received = self._ask(message | head | {"grad": True, "inputs": True}, buffers)
        with torch.no_grad():
            parcel = _Parcel(self, reply["parcel"], received, (reply["ticket"], []))
        return parcel.value[0], reply["ticket"], parcel.leaves_of_value()

    def _ask(self, message: dict, buffers: list) -> tuple[dict, list[memoryview]]:
        captured, self.captured = self.captured, None
        self.frames.send(message, buffers)
        while True:
            reply, received = self.frames.receive()
            if "answer" in reply:
                break
            self._answer(reply, received)
        self.captured = captured
        if "error" in reply:
            raise RuntimeError(": ".join(reply["error"]))
        return reply, received

    def _after_backward(self, anchor: Tensor) -> None:
        """The student called ``backward()``: it also reaches the parameters of the checker's objects.

        Only then, and not for ``torch.autograd.grad``, does the anchor receive a gradient.
        """
        anchor.grad = None
        task = torch._C._current_graph_task_id()
        passed, self.passed = [entry for entry in self.passed if entry[0] == task], []
        for _, ticket, grads in passed:
            self.ask({"op": "accumulate", "on": ticket}, [grads])

    # ---------------------------------------------------------------- what travels

    def _encode(self, value: Any) -> tuple[dict, list]:
        outgoing: list[Tensor] = []

        def tensor(t: Tensor) -> dict | None:
            if isinstance(t, nn.Parameter) and t.is_leaf:
                leaf = next((n for n, known in self._leaves.items() if known is t), None)
                return {"k": "leaf", "v": leaf} if leaf is not None else self._own(t, encoder)
            if not t.requires_grad:
                return None
            same = next((n for n, known in self._received.items() if known is t), None)
            if same is not None:
                return {"k": "leaf", "v": same}
            outgoing.append(t)
            return {"k": "graph", "v": len(outgoing) - 1}

        encoder = Encoder(tensor, lambda v: self._reference(v, encoder))
        head = {"value": encoder(value), "outgoing": []}
        if outgoing:
            head["outgoing"] = [encoder.array(t) for t in outgoing]
            head["segment"] = self._new()
            self._segments[head["segment"]] = outgoing
        return head, encoder.buffers

    def _own(self, parameter: nn.Parameter, encoder: Encoder) -> dict:
        number = next((n for n, known in self._owned.items() if known is parameter), None)
        if number is None:
            number = -self._new()
            self._owned[number] = parameter
        return encoder.array(parameter) | {"k": "owned", "number": number, "requires_grad": parameter.requires_grad}

    def _reference(self, value: Any, encoder: Encoder) -> dict:
        if isinstance(value, CheckerObject):
            return {"k": "yours", "v": value._number}
        returned = next((n for n, known in self.given.items() if known is value), None)
        if returned is not None:
            return {"k": "yours", "v": returned}
        number = next((n for n, known in self._objects.items() if known is value), None)
        if number is None:
            number = self._new()
            self._objects[number] = value
        kinds = [kind.__module__ + "." + kind.__qualname__ for kind in type(value).__mro__]
        described = {"k": "mine", "v": number, "kinds": kinds, "name": getattr(value, "__name__", "")}
        if isinstance(value, nn.Module):  # its parameters at once: the checker may differentiate with respect to them
            leaves = list(self._leaves.values())
            own = [p for p in value.parameters() if not any(p is leaf for leaf in leaves)]
            described["parameters"] = [self._own(p, encoder) for p in own]
        return described

    def _owned_values(self) -> dict[int, Tensor]:
        return {number: p.detach() for number, p in self._owned.items()}

    def _new(self) -> int:
        self._next += 1
        return self._next


class _Parcel:
    """One value from the checker, unpacked."""

    def __init__(
        self, student: Student, head: dict, buffers: list[memoryview], joined: tuple[int, list[Tensor]] | None = None
    ) -> None:
        self._described, pickled = head["tensors"], bytes(buffers[head["pickle"]])
        arrays = Decoder(buffers, lambda described: None)
        data = [arrays.array(t).clone() for t in self._described]
        self._before = [t.clone() for t in data]
        data = [self._kept(student, t, d["same"]) for t, d in zip(data, self._described, strict=True)]
        self._given, self._tensors = data, list(data)
        tracked = [i for i, t in enumerate(self._described) if t["requires_grad"]]
        if joined is not None:
            if tracked and torch.is_grad_enabled():
                leaves, values = [self._described[i]["leaf"] for i in tracked], [data[i] for i in tracked]
                ticket, inputs = joined
                out = _Answered.apply(student, ticket, leaves, values, student.anchor, *inputs)
                for i, tensor in zip(tracked, out, strict=True):
                    self._tensors[i] = student._received[self._described[i]["leaf"]] = tensor
        else:
            for i in tracked:
                self._given[i] = leaf = self._leaf(data[i], self._described[i]["parameter"])
                student._leaves[self._described[i]["leaf"]] = leaf
                self._tensors[i] = leaf if self._described[i]["is_leaf"] else leaf.clone()
        for i, described in enumerate(self._described):
            if described["grad"] is not None:
                self._tensors[i].grad = data[described["grad"]]
        self._generators = []
        for seed, state in head["generators"]:
            generator = torch.Generator()
            generator.manual_seed(seed)
            generator.set_state(torch.frombuffer(buffers[state], dtype=torch.uint8))
            self._generators.append(generator)
        if head["rng"] is not None:
            torch.set_rng_state(torch.frombuffer(buffers[head["rng"]], dtype=torch.uint8))
        self.owned = [arrays.array(t) for t in head["owned"]]
        found: dict[str, Callable[[Any], Any]] = {
            "tensor": lambda i: self._tensors[i],
            "generator": lambda i: self._generators[i],
            "object": lambda n: CheckerObject(student, n),
            "module": lambda n: CheckerModule(student, n),
            "student": lambda n: student._objects[n],
        }
        self._hooked: dict[int, int] = {}
        for i in head["hooked"]:
            self._given[i].register_hook(lambda slope, i=i: self._hooked.update({i: self._hooked.get(i, 0) + 1}))
        self.value = Unpacker(pickled, lambda kind, n: found[kind](n), lambda name: student.namespace[name]).load()
        student.given.update(zip(head["given"], self.value[1], strict=True))

    def leaves_of_value(self) -> list[int | None]:
        """For each tensor of the value, the checker's leaf that it is."""
        value = self.value[0]
        tensors = [value] if isinstance(value, Tensor) else list(value)
        numbers = {id(t): d["leaf"] for t, d in zip(self._tensors, self._described, strict=True)}
        return [numbers.get(id(t)) for t in tensors]

    def changes(self, state: list[Any]) -> dict:
        """What the call has done to its arguments.

        Tensors of modules that travelled (their values, gradients, training flags) and optimizers are reported to be
        taken over; other tensors only as changed, which a test takes for a mistake.
        """
        values, grads, spoilt = {}, {}, []
        owned_by_module = {i for i, t in enumerate(self._described) if t["state"]}
        for i, (tensor, before) in enumerate(zip(self._given, self._before, strict=True)):
            same = torch.equal(tensor, before) or _same_bits(tensor, before)
            if i in owned_by_module:
                if not same:
                    values[i] = tensor.detach()
                grad = self._tensors[i].grad if self._tensors[i].is_leaf else None
                grads[i] = None if grad is None else grad.detach()
            elif not same:
                spoilt.append(i)
                values[i] = tensor.detach()
        modules = [list(part.modules()) if isinstance(part, nn.Module) else [] for part in state]
        training = [[m.training for m in some] for some in modules]
        attributes = [[_plain_attributes(m) for m in some] for some in modules]
        stepped = [part.state_dict() if isinstance(part, torch.optim.Optimizer) else None for part in state]
        pairs = zip(self._given, self._described, strict=True)
        touched = [i for i, (t, d) in enumerate(pairs) if t.requires_grad and not d["requires_grad"] and not d["state"]]
        changed = {"values": values, "grads": grads, "spoilt": spoilt, "touched": touched, "hooked": self._hooked}
        return changed | {"training": training, "attributes": attributes, "optimizers": stepped}

    def after(self) -> list[Tensor]:
        """States of the random number generators: the global one, then those that were passed."""
        return [torch.get_rng_state(), *(generator.get_state() for generator in self._generators)]

    @staticmethod
    def _kept(student: Student, data: Tensor, number: int | None) -> Tensor:
        """The tensor that the student has had under this number before, brought up to date."""
        if number is None:
            return data
        known = student.kept.setdefault(number, data)
        if known is not data and not _same_bits(known, data):
            known.data = data
        return known

    @staticmethod
    def _leaf(data: Tensor, parameter: bool) -> Tensor:
        return nn.Parameter(data) if parameter else data.requires_grad_()


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Counters and the like that a module of the notebook keeps."""
    if type(module).__module__ != "__main__":
        return {}
    plain = (bool, int, float, str, type(None), list)
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training" and type(v) in plain}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN equals NaN here."""
    if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(torch.isnan(a), torch.isnan(b)):
        return False
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def serve(namespace: dict[str, Any]) -> None:
    """Serve on the socket that this process has inherited, until the checker says stop."""
    keep = namespace.setdefault("__course_seal__", types.SimpleNamespace(student=None))
    if keep.student is None:
        keep.student = Student(Frames(socket.socket(fileno=int(os.environ[FD]))), namespace)
    keep.student.serve()
