"""Plain data as JSON and raw arrays: the only form in which anything leaves the student's process.

Decoding builds numbers, containers, tensors, arrays and dataclasses of this library, never anything else; whoever
decodes says what a tensor and a reference to an object become.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEEPEST = 16
LIBRARY = "course_lib"  # whose dataclasses may travel as their fields …
GRADERS = "course_lib.classroom"  # … except these: a test has no use for them, and importing them may do things
NOTEBOOK = "__main__"  # … and those of the notebook's cells that the checker runs, too
_DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(ValueError):
    """A message that does not describe plain data."""


class Encoder:
    """Python values to JSON.

    Args:
        tensor: describes a tensor that has a place in a graph; None for one of which only the numbers matter.
        reference: describes what is not plain.
    """

    def __init__(self, tensor: Callable[[Tensor], dict | None], reference: Callable[[Any], dict]) -> None:
        self.buffers: list[bytes | memoryview] = []
        self._tensor, self._reference = tensor, reference

    def __call__(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        inner = lambda item: self(item, depth + 1)  # noqa: E731
        if depth < DEEPEST:
            if kind is torch.Size:
                return {"k": "tuple", "v": [inner(v) for v in value]}
            if kind in _CONTAINERS.values():
                return {"k": kind.__name__, "v": [inner(v) for v in value]}
            if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
                return {"k": "dict", "v": [[inner(k), inner(v)] for k, v in value.items()]}
            if is_record(kind) and (of_library(kind) or kind.__module__ == NOTEBOOK):
                fields = {name: inner(getattr(value, name)) for name in _fields(kind)}
                return {"k": "record", "module": kind.__module__, "name": kind.__qualname__, "v": fields}
        if isinstance(value, Tensor):
            return self._tensor(value) or self.array(value)
        if isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "biufc":
            described = self.array(torch.from_numpy(np.ascontiguousarray(value)).reshape(np.shape(value)))
            return described | {"k": "scalar" if isinstance(value, np.generic) else "ndarray"}
        if kind is complex:
            return {"k": "complex", "v": [value.real, value.imag]}
        if kind is bytes:
            return {"k": "bytes", "v": value.hex()}
        if kind in (range, slice):
            return {"k": kind.__name__, "v": [value.start, value.stop, value.step]}
        if value is Ellipsis:
            return {"k": "ellipsis"}
        if kind in (torch.dtype, torch.device):
            return {"k": kind.__name__, "v": str(value).removeprefix("torch.")}
        return self._reference(value)

    def array(self, tensor: Tensor) -> dict:
        """Description of a tensor's numbers, which become a buffer."""
        tensor = tensor.detach()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        data = tensor.resolve_conj().resolve_neg().contiguous()
        if data.dtype is torch.bfloat16:  # numpy has none
            data = data.view(torch.int16)
        self.buffers.append(data.numpy(force=True).tobytes())
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"k": "tensor", "v": len(self.buffers) - 1, "dtype": dtype, "shape": list(tensor.shape)}


class Decoder:
    """JSON to Python values.

    Args:
        buffers: of the message.
        reference: what the description of something that is not plain becomes.
        notebook: the class that the notebook's own (instructor's) cells give a name.
    """

    def __init__(
        self,
        buffers: list[memoryview],
        reference: Callable[[dict], Any],
        notebook: Callable[[str], type | None] = lambda name: None,
    ) -> None:
        self._buffers, self._reference, self._notebook = buffers, reference, notebook

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is not dict or depth > DEEPEST + 1:
            raise NotPlain("neither a value nor a description of one")
        kind, inside = value.get("k"), value.get("v")
        inner = lambda item: self(item, depth + 1)  # noqa: E731
        try:
            if kind in _CONTAINERS:
                return _CONTAINERS[kind](inner(v) for v in inside)
            if kind == "dict":
                return {inner(k): inner(v) for k, v in inside}
            if kind == "record":
                return self._record(value, inner)
            if kind == "tensor":
                return self.array(value)
            if kind in ("ndarray", "scalar"):
                array = self.array(value).numpy()
                return array[()] if kind == "scalar" else array
            if kind == "complex":
                return complex(*inside)
            if kind == "bytes":
                return bytes.fromhex(inside)
            if kind in ("range", "slice"):
                return (range if kind == "range" else slice)(*inside)
            if kind == "ellipsis":
                return ...
            if kind == "dtype":
                return _DTYPES[inside]
            if kind == "device":
                return torch.device(inside)
        except NotPlain:
            raise
        except Exception as error:  # whatever nonsense makes a constructor raise
            raise NotPlain(f"a {kind} that is none: {type(error).__name__}: {error}") from error
        return self._reference(value)

    def array(self, described: dict) -> Tensor:
        """The numbers of a tensor. Raises NotPlain where type, shape and bytes do not fit."""
        try:
            dtype, shape = _DTYPES[described["dtype"]], [int(n) for n in described["shape"]]
            data = self._buffers[described["v"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise NotPlain(f"an array that is none: {error!r}") from error
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
            raise NotPlain(f"{len(data)} bytes are no {dtype} of shape {shape}")
        if not data:
            return torch.empty(shape, dtype=dtype)
        if dtype is torch.bool and max(data) > 1:
            raise NotPlain("a bool that is neither true nor false")
        return torch.frombuffer(data, dtype=dtype).reshape(shape)

    def _record(self, value: dict, inner: Callable[[Any], Any]) -> Any:
        if value["module"] == NOTEBOOK:
            made = self._notebook(value["name"])
        elif _is_library(value["module"]):
            made = getattr(importlib.import_module(value["module"]), value["name"])
        else:
            raise NotPlain(f"{value['module']} is not of this library")
        if not (isinstance(made, type) and is_record(made)):
            raise NotPlain(f"{value['name']} is no dataclass or named tuple that is known here")
        if made.__module__ != NOTEBOOK and not of_library(made):
            raise NotPlain(f"{value['name']} is not of this library")
        return made(**{name: inner(v) for name, v in value["v"].items()})


def is_record(kind: type) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _fields(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init] if dataclasses.is_dataclass(kind) else kind._fields


def of_library(kind: type) -> bool:
    """Whether a class is this library's own, under its own name."""
    return _is_library(kind.__module__) and "<" not in kind.__qualname__


def _is_library(module: str) -> bool:
    return module.partition(".")[0] == LIBRARY and not f"{module}.".startswith(f"{GRADERS}.")
