"""What the checker sends to the student: any object, as a pickle whose tensors are raw buffers.

Trusted in this direction only: the student's process unpickles what the checker made. Functions, and objects of
classes that the student's process does not have, stay with the checker; a number takes their place.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

KNOWN = ("torch", "numpy", "collections", "builtins", "course_lib", "functools", "pathlib", "copyreg", "typing")
PROTOCOL = 4  # the newest has numpy's arrays write buffers of their own
NUMPYS = {np.empty(0).__reduce_ex__(PROTOCOL)[0], np.float64(0).__reduce_ex__(PROTOCOL)[0]}  # rebuild its values


class Packer(pickle.Pickler):
    """Pickles one value.

    Args:
        tensor: gives the key under which the student's side finds a tensor.
        keep: gives the whole key of an object that stays here, or of one of the student's own.
        by_value: whether an object of a class written in the notebook travels.
    """

    def __init__(
        self,
        tensor: Callable[[Tensor], int],
        keep: Callable[[Any], tuple[str, int]],
        by_value: Callable[[Any], bool],
    ) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=PROTOCOL)
        self._tensor, self._keep, self._by_value = tensor, keep, by_value

    def pack(self, value: Any) -> bytes:
        """The bytes."""
        self.dump(value)
        return self.file.getvalue()

    def persistent_id(self, obj: Any) -> object:  # the name is pickle's
        if type(obj) in _BUILTIN:
            return None
        if isinstance(obj, Tensor):
            return ("tensor", self._tensor(obj))
        if isinstance(obj, type):
            return ("class", obj.__name__) if obj.__module__ == "__main__" else None
        if self._by_value(obj) or any(obj is function for function in NUMPYS):
            return None
        return self._keep(obj)


_BUILTIN = frozenset((bool, int, float, str, bytes, list, tuple, dict, set, type(None)))


class Unpacker(pickle.Unpickler):
    """Unpickles one value.

    Args:
        data: the bytes.
        found: what a key of the packer becomes.
        classes: where classes written in the notebook are looked up, by name.
    """

    def __init__(self, data: bytes, found: Callable[[str, object], Any], classes: Callable[[str], type]) -> None:
        super().__init__(io.BytesIO(data))
        self._found, self._classes = found, classes

    def persistent_load(self, key: tuple[str, object]) -> Any:  # the name is pickle's
        kind, number = key
        return self._classes(number) if kind == "class" else self._found(kind, number)


def travels(obj: Any) -> bool:
    """Whether an object can be rebuilt elsewhere: data and modules of torch and of this library."""
    kind = type(obj)
    if isinstance(obj, nn.Module):
        return all(type(part).__module__.partition(".")[0] in ("torch", "course_lib") for part in obj.modules())
    if isinstance(obj, (torch.Generator, torch.optim.Optimizer)) or callable(obj):
        return isinstance(obj, torch.optim.Optimizer) or kind.__module__ == "functools"
    return kind.__module__.partition(".")[0] in KNOWN
