"""The test's functions under `torch.func` (vmap, grad, jacrev) in the student's process.

There tensors are wrapped and have no memory to send, so the call is made by an autograd function that PyTorch unwraps:
each example of a vmap is asked for by itself, and derivatives are asked of the checker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from course_lib.classroom.seal.student import Student


class Answer(NamedTuple):
    """How many tensors were asked with; which of the checker's leaves the answer's tensors are (None: none)."""

    inputs: int
    leaves: list[int | None]


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


class Ask(torch.autograd.Function):
    """``(student, op, number, anchor, *tensors) -> (*tensors, ticket)``.

    A call of object ``number``, or a product of answer ``number``'s Jacobian with vectors, which follow the answer's
    own inputs. Numbers are tensors, so that under vmap each example keeps its own. The anchor, a tensor that requires a
    gradient, keeps answers in the graph that depend on parameters of the checker alone.
    """

    @staticmethod
    def forward(student: Student, op: str, number: Tensor, anchor: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Ask; gradients that nobody needs are zero."""
        tensors = tuple(t.detach() for t in tensors)  # the graph is this function's own affair
        on = int(number)
        value: list[Any] = [list(tensors), {}] if op == "call" else [list(tensors[student.answered[on].inputs :])]
        found, ticket, leaves = student.ask_plain({"op": op, "on": on, "create": True}, value)
        out = [found] if isinstance(found, Tensor) else list(found)
        if op == "vjp":
            out = [torch.zeros_like(t) if g is None else g for g, t in zip(out, tensors, strict=False)]
        student.answered[ticket] = Answer(len(tensors), leaves)
        return (*out, torch.tensor(ticket))

    @staticmethod
    def setup_context(ctx, inputs, output):  # signature of torch
        ctx.student = inputs[0]
        ctx.mark_non_differentiable(output[-1])
        ctx.save_for_backward(output[-1], *inputs[3:])
        ctx.save_for_forward(output[-1], *inputs[3:])

    @staticmethod
    def backward(ctx, *grads):  # signature of torch
        student, (ticket, anchor, *tensors) = ctx.student, ctx.saved_tensors
        if student.captured is not None:  # the checker differentiates: with respect to its own parameters, too
            for leaf, grad in zip(student.answered[int(ticket)].leaves, grads[:-1], strict=True):
                if leaf is not None:
                    student.captured[leaf] = student.captured[leaf] + grad if leaf in student.captured else grad
        *found, _ = Ask.apply(student, "vjp", ticket, anchor, *tensors, *grads[:-1])
        return (None, None, None, None, *found[: len(tensors)])

    @staticmethod
    def jvp(ctx, *tangents):  # signature of torch
        ticket, anchor, *tensors = ctx.saved_tensors
        moved = [torch.zeros_like(t) if v is None else v for t, v in zip(tensors, tangents[4:], strict=True)]
        *found, ticket = Ask.apply(ctx.student, "jvp", ticket, anchor, *tensors, *moved)
        return (*found, None)

    @staticmethod
    def vmap(info, in_dims, student, op, number, anchor, *tensors):  # signature of torch
        rows, dims = [], (in_dims[2], *in_dims[4:])
        for i in range(info.batch_size):
            row = [t if d is None else t.select(d, i) for t, d in zip((number, *tensors), dims, strict=True)]
            rows.append(Ask.apply(student, op, row[0], anchor, *row[1:]))
        return tuple(torch.stack(column) for column in zip(*rows, strict=True)), (0,) * len(rows[0])
