"""Checks that print what they compared, and the ledger in which a derivation is verified line by line.

    from course_lib.core import checks as check
    check.close("KL closed form = Monte Carlo", got, want, stderr=se)

Each check prints one line with both numbers and raises ``CheckFailed`` (an ``AssertionError``) when it does not hold.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Number = float | int | Tensor
STANDARD_ERRORS = 5.0  # a correct Monte Carlo estimate is farther off once in 1.7 million


class CheckFailed(AssertionError):
    """A stated equality, bound or shape does not hold."""


def close(
    name: str, got: Any, want: Any, *, atol: float = 1e-6, rtol: float = 1e-5, stderr: Number = 0.0, hint: str = ""
) -> None:
    """``got`` equals ``want`` elementwise within ``atol + rtol |want| + 5 stderr``.

    Args:
        name: what is claimed, in words.
        got, want: numbers, tensors or arrays of the same shape.
        atol, rtol: absolute and relative tolerance.
        stderr: standard error of a Monte Carlo estimate, if one side is one.
        hint: added to the message when it fails: the likely cause, and where to read.
    """
    a, b, se = _tensor(got), _tensor(want), _tensor(stderr)
    if a.shape != b.shape and a.numel() != 1 and b.numel() != 1:
        raise CheckFailed(f"✗ {name}: shapes differ, got {tuple(a.shape)}, want {tuple(b.shape)}" + _hint(hint))
    error = (a - b).abs()
    allowed = atol + rtol * b.abs() + STANDARD_ERRORS * se
    allowed = allowed.expand_as(error)
    within = error <= allowed  # False for NaN
    if error.numel() > 1:
        worst = int((error - allowed).nan_to_num(nan=math.inf).argmax())
        i, limit = torch.unravel_index(torch.tensor(worst), error.shape), allowed.flatten()[worst]
        detail = f"{error.numel()} values, largest difference {error.flatten()[worst]:.3g} (allowed {limit:.3g})"
        detail += f" at {[int(j) for j in i]}: got {a.expand_as(error)[i]:.7g}, want {b.expand_as(error)[i]:.7g}"
    else:
        detail = f"got {a.item():.7g}, want {b.item():.7g}, difference {error.item():.3g}"
        detail += f" = {error.item() / se.item():.1f} s.e." if se.numel() == 1 and se.item() > 0 else ""
        detail += f" (allowed {allowed.item():.3g})"
    _report(name, bool(within.all()), detail, hint)


def less(name: str, got: Number, bound: Number, *, hint: str = "") -> None:
    """``got < bound``, for single numbers."""
    a, b = _number(got), _number(bound)
    _report(name, a < b, f"{a:.6g} < {b:.6g}" if a < b else f"got {a:.6g}, want less than {b:.6g}", hint)


def shape(name: str, got: Any, want: Sequence[int], *, hint: str = "") -> None:
    """``got.shape == want``."""
    b = tuple(want)
    if not hasattr(got, "shape"):  # a student's function that returns None should hear what was expected
        _report(name, False, f"got {type(got).__name__}, want a tensor of shape {b}", hint)
    a = tuple(got.shape)
    _report(name, a == b, f"{a}" if a == b else f"got {a}, want {b}", hint)


def true(name: str, condition: Any, detail: str = "", *, hint: str = "") -> None:
    """``condition`` holds (a bool, or a tensor that is true everywhere)."""
    holds = bool(condition.all()) if isinstance(condition, Tensor) else bool(condition)
    _report(name, holds, detail or ("true" if holds else "got False, want True"), hint)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)


def _number(value: Number) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _hint(hint: str) -> str:
    return f"\n  Likely cause: {hint}" if hint else ""


def _report(name: str, holds: bool, detail: str, hint: str) -> None:
    line = f"{'✓' if holds else '✗'} {name}: {detail}"
    if not holds:
        raise CheckFailed(line + _hint(hint))
    print(line)


@dataclass(frozen=True)
class _Line:
    text: str
    value: float
    relation: str
    stderr: float
    holds: bool


class Ledger:
    """A derivation as a table: every line evaluated on a toy whose truth is known, side by side.

    The first ``line`` sets the reference. ``equal`` must agree with it, ``at_most`` and ``at_least`` must bound it.
    ``show`` draws the table and raises if a line breaks, so that a false step cannot be missed.

    Args:
        title: caption of the table.
        atol: absolute tolerance of exact lines.
    """

    def __init__(self, title: str, atol: float = 1e-5) -> None:
        self.title, self.atol = title, atol
        self.lines: list[_Line] = []

    def line(self, text: str, value: Number) -> None:
        """State the reference value."""
        if self.lines:
            raise ValueError("the ledger has its reference line already; use equal, at_most or at_least")
        self._add(text, value, "reference", 0.0, math.isfinite(_number(value)))

    def equal(self, text: str, value: Number, stderr: Number = 0.0) -> None:
        """A line that equals the reference, within 5 standard errors if it is a Monte Carlo estimate."""
        difference = abs(_number(value) - self._reference)
        self._add(text, value, "=", stderr, difference <= self.atol + STANDARD_ERRORS * _number(stderr))

    def at_most(self, text: str, value: Number, stderr: Number = 0.0) -> None:
        """A line that is a lower bound of the reference."""
        self._add(
            text, value, "≤", stderr, _number(value) <= self._reference + self.atol + STANDARD_ERRORS * _number(stderr)
        )

    def at_least(self, text: str, value: Number, stderr: Number = 0.0) -> None:
        """A line that is an upper bound of the reference."""
        self._add(
            text, value, "≥", stderr, _number(value) >= self._reference - self.atol - STANDARD_ERRORS * _number(stderr)
        )

    @property
    def _reference(self) -> float:
        if not self.lines:
            raise ValueError("start the ledger with .line(text, value): the value the others are compared with")
        return self.lines[0].value

    def _add(self, text: str, value: Number, relation: str, stderr: Number, holds: bool) -> None:
        self.lines.append(_Line(text, _number(value), relation, _number(stderr), holds))

    def show(self) -> None:
        """Display the table; raise ``CheckFailed`` naming the lines that do not hold."""
        if not self.lines:
            raise ValueError("the ledger is empty")
        _display(self)
        broken = [line.text for line in self.lines if not line.holds]
        if broken:
            raise CheckFailed(f"✗ {self.title}: " + "; ".join(broken) + f"\n{self}")

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        rows = []
        for line in self.lines:
            difference = "" if line.relation == "reference" else f"{line.value - self.lines[0].value:+.2g}"
            stderr = f"{line.stderr:.2g}" if line.stderr else "exact"
            rows.append(("✓" if line.holds else "✗", line.text, f"{line.value:.6f}", difference, stderr))
        return rows

    def __str__(self) -> str:
        head = ("", self.title, "value", "difference", "std. error")
        table = [head, *self._rows()]
        widths = [max(len(row[i]) for row in table) for i in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
        )

    def _repr_html_(self) -> str:
        head = f"<tr><th></th><th style='text-align:left'>{html.escape(self.title)}</th><th>value</th>"
        head += "<th>difference</th><th>std. error</th></tr>"
        body = ""
        for mark, text, *numbers in self._rows():
            colour = "#2a7" if mark == "✓" else "#c33"
            cells = "".join(f"<td style='font-family:monospace;text-align:right'>{n}</td>" for n in numbers)
            body += f"<tr><td style='color:{colour}'>{mark}</td>"
            body += f"<td style='text-align:left'>{html.escape(text)}</td>{cells}</tr>"
        return f"<table>{head}{body}</table>"


def _display(thing: Any) -> None:
    """Rich output in a notebook, text elsewhere."""
    from IPython import get_ipython

    if get_ipython() is None:
        print(thing)
    else:
        from IPython.display import display

        display(thing)
