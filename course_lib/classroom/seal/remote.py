"""Stand-ins, in the checker, for the student's functions and objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from course_lib.classroom.seal.checker import Checker


class Remote:
    """An object of the student's. Using it asks the student's process; what comes back is data, or a stand-in."""

    __slots__ = ("_checker", "_name", "_number")

    def __init__(self, checker: Checker, number: int, name: str) -> None:
        object.__setattr__(self, "_checker", checker)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_name", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._checker.ask({"op": "call", "on": self._number}, [list(args), kwargs])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python asks of its own accord must not become a call
            if name in ("__name__", "__qualname__"):
                return self._name
            raise AttributeError(name)
        return self._checker.ask({"op": "attr", "on": self._number, "name": name}, [])

    def __setattr__(self, name: str, value: Any) -> None:
        self._checker.ask({"op": "setattr", "on": self._number, "name": name}, [value])

    def __getitem__(self, key: Any) -> Any:
        return self._checker.ask({"op": "item", "on": self._number}, [key])

    def __len__(self) -> int:
        length = self._checker.ask({"op": "len", "on": self._number}, [])
        if type(length) is not int or length < 0:
            raise TypeError(f"the length of {self!r} is {length!r}")
        return length

    def __iter__(self) -> Iterator[Any]:
        items = self._checker.ask({"op": "iter", "on": self._number}, [])
        if not isinstance(items, list):
            raise TypeError(f"{self!r} gave no items")
        return iter(items)

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is neither true nor false: plain data was expected")

    def __eq__(self, other: object) -> bool:
        return self is other  # the student's own opinion does not count

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> str:
        return f"<the student's {self._name}>"


class RemoteModule(Remote):
    """Stands for a `torch.nn.Module`: `isinstance` says so, its parameters are copies that follow and lead."""

    __slots__ = ()

    @property
    def __class__(self) -> type:  # what isinstance looks at
        return nn.Module

    def parameters(self, *args: Any) -> Iterator[nn.Parameter]:
        """As the module's own; the same objects at every call."""
        return iter(self.__getattr__("parameters")(*args))

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As the module's own."""
        return iter(self.__getattr__("named_parameters")())


def stand_in(checker: Checker, described: dict) -> Remote:
    """The stand-in for what the student's side describes (and may describe wrongly)."""
    kinds, name = described.get("kinds"), described.get("name")
    kinds = [k for k in kinds if isinstance(k, str)] if isinstance(kinds, list) else []
    shown = name if isinstance(name, str) and name else (kinds[0].rpartition(".")[2] if kinds else "object")
    kind = RemoteModule if "torch.nn.modules.module.Module" in kinds else Remote
    return kind(checker, int(described["v"]), shown[:60])
