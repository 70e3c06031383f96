"""One message to the student's process: what a test passes, and, afterwards, what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib.classroom.seal.errors import StudentError
from course_lib.classroom.seal.parcel import Packer, travels
from course_lib.classroom.seal.plain import Encoder, is_record
from course_lib.classroom.seal.randomness import believable
from course_lib.classroom.seal.remote import Remote

if TYPE_CHECKING:
    from course_lib.classroom.seal.checker import Checker


class Outgoing:
    """One value for the student's process, packed; afterwards, what became of it."""

    def __init__(self, checker: Checker, value: Any, randomness: bool = True) -> None:
        self._checker = checker
        self._tensors: list[Tensor] = []
        self._index: dict[int, int] = {}
        self._generators: list[torch.Generator] = []
        self._state: list[Any] = []
        self._numbers: list[int] = []
        self._trains = _holds_optimizer(value)
        pickled = Packer(self._tensor, self._object, self._by_value).pack((value, self._state))
        inside = {id(t) for part in self._state for t in _tensors_of(part)}
        i = 0
        while i < len(self._tensors):  # gradients are appended while this runs
            if id(self._tensors[i]) in inside and self._tensors[i].grad is not None:
                self._tensor(self._tensors[i].grad)
            i += 1
        self.buffers: list[bytes] = [pickled]
        grad_mode = torch.is_grad_enabled()
        self.tracked = [t for t in self._tensors if t.requires_grad and (grad_mode or t.is_leaf)]
        described = [self._describe(t, inside) for t in self._tensors]
        owned = self._changed_owned()
        self.owned_numbers = [number for number, _ in owned]
        self.parameters = {
            d["leaf"]: t for d, t in zip(described, self._tensors, strict=True) if d["state"] and d["leaf"] is not None
        }
        self.head = {
            "pickle": 0,
            "given": self._numbers,
            "hooked": [i for i, t in enumerate(self._tensors) if id(t) in inside and _has_hooks(t)],
            "tensors": described,
            "generators": [[g.initial_seed(), self._bytes(g.get_state())] for g in self._generators],
            "owned": [self._array(p.detach()) for _, p in owned],
            "rng": self._global_state() if randomness else None,
        }

    # ---------------------------------------------------------------- packing

    def _by_value(self, obj: Any) -> bool:
        kind = type(obj)
        stays = isinstance(obj, (Remote, torch.Generator))
        if stays:
            return False
        known = kind.__module__ == "__main__" and self._checker.notebook(kind.__name__) is kind
        if isinstance(obj, nn.Module):
            by_value = travels(obj) or (self._trains and known)
        elif kind.__module__ == "__main__":
            by_value = known and is_record(kind)  # other objects may keep a record of what is done to them
        else:
            by_value = travels(obj)
        if by_value and isinstance(obj, (nn.Module, torch.optim.Optimizer)) and not any(obj is s for s in self._state):
            parts = {id(m) for s in self._state if isinstance(s, nn.Module) for m in s.modules()}
            if id(obj) not in parts:
                self._state.append(obj)
                self._numbers.append(self._keep(obj))
        return by_value

    def _tensor(self, tensor: Tensor) -> int:
        if id(tensor) not in self._index:
            self._index[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        return self._index[id(tensor)]

    def _object(self, obj: Any) -> tuple[str, int]:
        if isinstance(obj, Remote):
            return ("student", obj._number)
        if isinstance(obj, torch.Generator):
            known = next((i for i, g in enumerate(self._generators) if g is obj), None)
            if known is None:
                self._generators.append(obj)
                known = len(self._generators) - 1
            return ("generator", known)
        return ("module" if isinstance(obj, nn.Module) else "object", self._keep(obj))

    def _keep(self, obj: Any) -> int:
        number = next((n for n, kept in self._checker._kept.items() if kept is obj), None)
        if number is None:
            number = self._checker._new()
            self._checker._kept[number] = obj
        return number

    def _describe(self, tensor: Tensor, inside: set[int]) -> dict:
        described = self._array(tensor.detach())
        tracked = any(tensor is t for t in self.tracked)
        leaf = self._checker._new() if tracked else None
        if leaf is not None:
            self._checker._leaves[leaf] = tensor
        state = id(tensor) in inside
        return described | {
            "requires_grad": tracked,
            "leaf": leaf,
            "is_leaf": tensor.is_leaf,
            "parameter": isinstance(tensor, nn.Parameter),
            "state": state,
            "same": self._keep(tensor) if self._checker.in_place and not tracked and not state else None,
            "grad": self._index[id(tensor.grad)] if state and tensor.grad is not None else None,
        }

    def _changed_owned(self) -> list[tuple[int, Tensor]]:
        """Parameters of which both sides have copies, and that the test has changed (by an optimizer, or by hand)."""
        last, both = self._checker._last, self._checker._shared | self._checker._owned
        changed = [(n, p) for n, p in both.items() if not torch.equal(p.detach(), last[n])]
        for number, parameter in changed:
            last[number] = parameter.detach().clone()
        return changed

    def _array(self, tensor: Tensor) -> dict:
        encoder = Encoder(lambda t: None, lambda v: {})
        described = encoder.array(tensor)
        self.buffers.append(encoder.buffers[0])
        return described | {"v": len(self.buffers) - 1}

    def _bytes(self, state: Tensor) -> int:
        self.buffers.append(state.numpy().tobytes())
        return len(self.buffers) - 1

    def _global_state(self) -> int | None:
        """The global generator's state, if the test has moved it since the last call."""
        state = torch.get_rng_state()
        checker = self._checker
        if checker._shares or (checker._rng is not None and torch.equal(state, checker._rng)):
            return None
        return self._bytes(state)

    # ---------------------------------------------------------------- afterwards

    def take_over(self, changes: Any, after: Any) -> None:
        """Bring modules, optimizers and generators that travelled up to date.

        Raises:
            StudentError: the student's function changed one of its other arguments.
        """
        try:
            if changes["spoilt"] and not self._checker.in_place:
                raise StudentError("the function changes its arguments in place; it should leave them as they are")
            with torch.no_grad():
                for i in changes["spoilt"]:
                    self._tensors[i].data.copy_(changes["values"].pop(i))
            for i in changes["touched"]:  # harmless to the values, but a test may ask
                self._tensors[i].requires_grad_()
            if not self._trains:  # else whatever the student makes of a module would change what the test compares with
                return self._advance(after)
            with torch.no_grad():
                for i, value in changes["values"].items():
                    self._tensors[i].data.copy_(value)
                for i, grad in changes["grads"].items():
                    self._tensors[i].grad = None if grad is None else grad.reshape(self._tensors[i].shape).clone()
            for i, times in changes["hooked"].items():
                for hook in list(self._tensors[i]._backward_hooks.values()) * min(int(times), 100):
                    hook(self._tensors[i].grad)
            parts = zip(self._state, changes["training"], changes["attributes"], changes["optimizers"], strict=True)
            for part, flags, attributes, stepped in parts:
                if not isinstance(part, nn.Module):
                    part.load_state_dict(stepped)
                    continue
                for module, training, kept in zip(part.modules(), flags, attributes, strict=True):
                    module.training = bool(training)
                    vars(module).update({k: v for k, v in kept.items() if type(v) is type(vars(module).get(k))})
            self._advance(after)
        except StudentError:
            raise
        except Exception as error:  # whatever a made-up report makes torch raise
            raise StudentError(f"what came back is nonsense ({type(error).__name__})") from error

    def _advance(self, after: list[Tensor]) -> None:
        """Generators go on as if the student's draws had been made here; only states they can reach are believed."""
        for generator, claimed in zip(self._generators, after[1:], strict=True):
            generator.set_state(believable(generator.get_state(), claimed))
        checker = self._checker
        if not checker._shares:
            state = believable(torch.get_rng_state(), after[0])
            torch.set_rng_state(state)
            checker._rng = state


def _holds_optimizer(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_optimizer, value))
    if isinstance(value, dict):
        return any(map(_holds_optimizer, value.values()))
    return isinstance(value, torch.optim.Optimizer)


def _has_hooks(tensor: Tensor) -> bool:
    return tensor.requires_grad and bool(tensor._backward_hooks)


def _tensors_of(part: nn.Module | torch.optim.Optimizer) -> list[Tensor]:
    if isinstance(part, nn.Module):
        return [*part.parameters(), *part.buffers()]
    return [v for values in part.state.values() for v in values.values() if isinstance(v, Tensor)]
