"""The checker's side of the seal: stand-ins for the student's names, and gradients through them."""

from __future__ import annotations

import builtins
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.classroom.seal.errors import StudentError
from course_lib.classroom.seal.frames import Closed, Frames
from course_lib.classroom.seal.outgoing import Outgoing
from course_lib.classroom.seal.plain import Decoder, NotPlain
from course_lib.classroom.seal.remote import stand_in

CALL_SECONDS = 60.0
FORBIDDEN = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)
MODULE_MAY = ("training", "train", "eval", "parameters", "named_parameters", "zero_grad")


class _Segment(torch.autograd.Function):
    """Joins what the student's process computed to the checker's graph."""

    @staticmethod
    def forward(ctx, checker, segment, leaves, values, anchor, *inputs):  # signature of torch
        ctx.checker, ctx.segment, ctx.leaves = checker, segment, leaves
        ctx.inputs = inputs  # saved the other way, none of them could change before the gradients are asked for
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx, *grads):  # signature of torch
        create = torch.is_grad_enabled()
        inputs = dict(zip(ctx.leaves, ctx.inputs, strict=True))  # on which the gradients depend, too
        found = ctx.checker.ask({"op": "vjp", "on": ctx.segment.number, "create": create}, [list(grads)], inputs)
        if not isinstance(found, dict) or not all(isinstance(g, Tensor) for g in found.values()):
            raise StudentError("no gradients came back")
        return (None,) * 5 + tuple(found.get(leaf) for leaf in ctx.leaves)


class _Number:
    """A segment's number; the student's process hears when nobody needs it any more."""

    def __init__(self, number: int, freed: list[int]) -> None:
        self.number = number
        weakref.finalize(self, freed.append, number)


class Checker:
    """Talks to the student's process.

    Args:
        frames: to it.
        notebook: the class of that name that a locked cell defines, so that the student's process has it, too.
        seconds: for one answer.
        shares_randomness: both sides are threads of one process, with one global generator (in tests).
    """

    def __init__(
        self,
        frames: Frames,
        notebook: Callable[[str], type | None] = lambda name: None,
        seconds: float = CALL_SECONDS,
        shares_randomness: bool = False,
    ) -> None:
        self.frames, self.notebook, self._shares = frames, notebook, shares_randomness
        self.in_place = False  # whether the test at hand expects functions that change their arguments
        frames.stream.settimeout(seconds)
        self._seconds, self._sent = seconds, 0
        self._anchor = torch.zeros((), requires_grad=True)
        self._depth = 0
        self._rng: Tensor | None = None
        self.odd: list[str] = []  # answers that honest code does not give
        self.forget()

    def forget(self) -> None:
        """Between two test cells."""
        self._kept: dict[int, Any] = {}
        self._leaves: dict[int, Tensor] = {}
        self._owned: dict[int, nn.Parameter] = {}
        self._shared: dict[int, Tensor] = {}  # parameters of modules that the student's process has kept
        self._last: dict[int, Tensor] = {}  # values of both that the student's process has
        self._answers: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._freed: list[int] = []
        self._next = 0

    def get(self, names: Sequence[str]) -> dict[str, Any]:
        """What the student calls these names; those that are missing are left out.

        Raises:
            StudentError: the answer is no dictionary.
        """
        head, buffers = self._exchange({"op": "get", "names": list(names), "free": []}, [])
        found = self._decode(head, buffers)
        if not isinstance(found, dict):
            raise StudentError("the student's process does not say what its names mean")
        return {name: found[name] for name in names if name in found}

    def stop(self) -> None:
        """Let the student's process go on with its own affairs."""
        self._exchange({"op": "stop", "free": []}, [])
        self.forget()

    # ---------------------------------------------------------------- asking

    def ask(self, head: dict, value: list, leaves: Mapping[int, Tensor] | None = None) -> Any:
        """Send a request; returns data, stand-ins, and tensors that are joined to the graph.

        Args:
            head: what is to be done.
            value: with what.
            leaves: tensors of an earlier request on which the answer may depend, by number.

        Raises:
            TimeoutError: no answer in time.
            Exception: what the student's code raised, if that is a built-in exception, or StudentError.
        """
        if self._depth == 0:
            self._leaves = {}
        self._leaves |= leaves or {}
        parcel = Outgoing(self, value)
        message = {"grad": torch.is_grad_enabled(), "parcel": parcel.head, "owned": parcel.owned_numbers}
        message["free"] = self._freed[:]
        self._freed.clear()
        self._depth += 1
        try:
            reply, received = self._exchange(head | message, parcel.buffers)
        finally:
            self._depth -= 1
        answer = self._decode(reply, received)
        if head["op"] == "vjp":
            return answer
        if not isinstance(answer, list) or len(answer) != 4:
            raise StudentError("an answer that is none")
        result, changes, owned, after = answer
        self._follow(owned)
        parcel.take_over(changes, after)
        if self._saw_object:  # a closure, perhaps, over the modules that it was given
            self._share(parcel)
        return result

    def _share(self, parcel: Outgoing) -> None:
        for leaf, tensor in parcel.parameters.items():
            self._shared[leaf], self._last[leaf] = tensor, tensor.detach().clone()

    def _exchange(self, head: dict, buffers: Sequence[bytes]) -> tuple[dict, list[memoryview]]:
        self._sent += 1
        number = self._sent
        self.frames.send(head | {"number": number}, buffers)
        while True:
            try:
                reply, received = self.frames.receive()
            except TimeoutError as error:
                raise TimeoutError(f"no answer within {self._seconds:g} s") from error
            if not isinstance(reply, dict):
                raise Closed("not a message")
            if reply.get("reply") == number:
                break
            if "reply" not in reply:
                self._serve(reply, received)
        if "error" in reply:
            raise _raised(reply["error"])
        return reply, received

    def _decode(self, head: dict, buffers: list[memoryview]) -> Any:
        try:
            return self._value_of(head, buffers)
        except NotPlain as error:
            self.odd.append(f"an answer that is no plain data: {error}"[:200])
            raise StudentError(f"what came back is no plain data: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            self.odd.append(f"an answer that is nonsense ({type(error).__name__})")
            raise StudentError(f"what came back is nonsense ({type(error).__name__})") from error

    def _value_of(self, head: dict, buffers: list[memoryview]) -> Any:
        arrays = Decoder(buffers, lambda described: None)
        values = [arrays.array(d) for d in head["outgoing"]]
        joined: tuple[Tensor, ...] = ()
        if values:
            for value in values:
                if not value.is_floating_point() and not value.is_complex():
                    raise NotPlain("a gradient of whole numbers")
            number = _Number(int(head["segment"]), self._freed)
            leaves = self._shared | self._leaves | self._owned
            joined = _Segment.apply(self, number, list(leaves), values, self._anchor, *leaves.values())
            joined = joined if isinstance(joined, tuple) else (joined,)
        self._joined = list(joined)
        self._saw_object = False

        def reference(described: dict) -> Any:
            kind = described.get("k")
            if kind == "graph":
                return joined[described["v"]]
            if kind == "yours":
                return self._kept[described["v"]]
            if kind == "leaf":
                return self._leaves[described["v"]] if described["v"] in self._leaves else self._shared[described["v"]]
            if kind == "mine":
                self._saw_object = True
                for own in described.get("parameters", ()):
                    self._mirror(own, arrays)
                return stand_in(self, described)
            if kind == "owned":
                return self._mirror(described, arrays)
            raise NotPlain(f"unknown kind {kind!r}")

        return Decoder(buffers, reference, self.notebook)(head["value"])

    # ---------------------------------------------------------------- the student's own parameters

    def _mirror(self, described: dict, arrays: Decoder) -> nn.Parameter:
        number, value = int(described["number"]), arrays.array(described)
        if number >= 0:
            raise NotPlain("a parameter with an impossible number")
        if number not in self._owned:
            self._owned[number] = nn.Parameter(value.clone(), requires_grad=bool(described["requires_grad"]))
            self._last[number] = value.clone()
        return self._owned[number]

    def _follow(self, values: Any) -> None:
        """Take over what the student's process has done to its own parameters."""
        if not isinstance(values, dict):
            raise StudentError("an answer that is none")
        for number, value in values.items():
            known = self._owned.get(number)
            if known is not None and isinstance(value, Tensor) and value.shape == known.shape:
                if value.dtype != known.dtype:
                    known.data = value.clone()
                elif not torch.equal(value, self._last[number]):
                    with torch.no_grad():
                        known.copy_(value)
                self._last[number] = known.detach().clone()

    # ---------------------------------------------------------------- answering

    def _serve(self, head: dict, buffers: list[memoryview]) -> None:
        """The student's code uses an object of the test."""
        try:
            with torch.set_grad_enabled(bool(head.get("grad"))):
                value = self._decode(head, buffers)
                inputs = self._joined
                if head.get("inputs"):
                    inputs = [t.requires_grad_() for t in value[0] if isinstance(t, Tensor) and t.is_floating_point()]
                result, before = self._perform(head, value)
                if isinstance(result, Iterator):
                    result = list(result)
                parcel = Outgoing(self, result, randomness=False)
                ticket = self._new()
                if parcel.tracked:
                    self._answers[ticket] = ([*before, *inputs], parcel.tracked)
            reply, out = {"answer": 1, "parcel": parcel.head, "ticket": ticket}, parcel.buffers
        except Exception as error:  # a test's function given nonsense; the student's code may handle it
            reply, out = {"answer": 1, "error": [type(error).__name__, str(error)[:1000]]}, []
        self.frames.send(reply, out)

    def _perform(self, head: dict, value: Any) -> tuple[Any, list[Tensor]]:
        op, number = head.get("op"), head.get("on")
        if op == "vjp":
            inputs, outputs = self._answers[number]
            grads = value[0]
            pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
            create = bool(head.get("create"))
            outs, cotangents = [o for o, _ in pairs], [g for _, g in pairs]
            if not inputs:
                return [], []
            found = torch.autograd.grad(
                outs, inputs, cotangents, allow_unused=True, create_graph=create, retain_graph=True
            )
            return list(found), inputs
        if op == "accumulate":
            inputs, outputs = self._answers[number]
            _accumulate(inputs, outputs, value[0])
            return None, []
        if op == "jvp":
            inputs, outputs = self._answers[number]
            return _forward_product(inputs, outputs, value[0]), inputs
        on = self._kept[number]
        if op == "call":
            if head.get("method") == "parameters" and isinstance(on, nn.Module):
                return list(on.parameters()), []
            if not callable(on):
                raise TypeError("not a function")
            args, kwargs = value
            return on(*args, **kwargs), []
        if isinstance(on, FORBIDDEN):
            raise AttributeError("only calls are possible here")
        if op == "attr":
            return self._attribute(on, head["name"]), []
        if op == "item":
            return on[value[0]], []
        if op == "len":
            return len(on), []
        if op == "iter":
            return list(on), []
        raise ValueError(f"no {op!r} here")

    @staticmethod
    def _attribute(on: Any, name: str) -> Any:
        """Data and methods that the object's own class defines: not what its inner life is made of."""
        if not isinstance(name, str) or name.startswith("_"):
            raise AttributeError(f"no {name!r} here")
        if isinstance(on, nn.Module) and name not in MODULE_MAY:
            written = [kind for kind in type(on).__mro__ if kind.__module__.partition(".")[0] != "torch"]
            own = {key for kind in written for key in vars(kind)}
            if name not in own | set(vars(on)) | set(on._parameters) | set(on._buffers) | set(on._modules):
                raise AttributeError(f"{type(on).__name__!r} has no {name!r} here")
        value = getattr(on, name)
        if isinstance(value, (types.ModuleType, type)):
            raise AttributeError(f"{name!r} stays here")
        return value

    def _new(self) -> int:
        self._next += 1
        return self._next


def _accumulate(inputs: list[Tensor], outputs: list[Tensor], grads: list[Tensor | None]) -> None:
    """What ``backward`` leaves in ``.grad`` of the parameters between ``inputs`` and ``outputs``."""
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.grad_fn is not None]
    seen = {t.grad_fn for t in inputs if t.grad_fn is not None}
    waiting, leaves = [o.grad_fn for o, _ in pairs], []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    leaves = [leaf for leaf in leaves if not any(leaf is t for t in inputs)]
    if not leaves:
        return
    outs, cotangents = zip(*pairs, strict=True)
    found = torch.autograd.grad(outs, leaves, cotangents, allow_unused=True, retain_graph=True)
    for leaf, grad in zip(leaves, found, strict=True):
        if grad is not None:
            leaf.grad = grad.clone() if leaf.grad is None else leaf.grad + grad


def _forward_product(inputs: list[Tensor], outputs: list[Tensor], tangents: list[Tensor]) -> list[Tensor]:
    """J v by two reverse passes: Jᵀu is linear in u, and its derivative along v is J v."""
    dual = [torch.zeros_like(o, requires_grad=True) for o in outputs]
    back = torch.autograd.grad(outputs, inputs, dual, create_graph=True, retain_graph=True, materialize_grads=True)
    pairs = [(b, t) for b, t in zip(back, tangents, strict=True) if b.requires_grad]
    if not pairs:
        return [torch.zeros_like(o) for o in outputs]
    slopes, moved = zip(*pairs, strict=True)
    keep = {"create_graph": True, "retain_graph": True, "materialize_grads": True}
    return list(torch.autograd.grad(slopes, dual, moved, **keep))


def _raised(described: Any) -> Exception:
    """The student's exception, as a built-in one of the same name."""
    if not (isinstance(described, list) and len(described) == 2 and all(isinstance(d, str) for d in described)):
        return StudentError("an error that is none")
    name, message = described
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
        return kind(message)
    return StudentError(f"{name}: {message}")
