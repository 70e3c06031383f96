"""Two budgets, one notebook: ``full`` is what the pictures deserve, ``quick`` is what CI runs at every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from course_lib.core.device import describe_device, pick_device

BUDGETS = ("quick", "full")
T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """``Budget("quick")(quick=60, full=4000)`` is 60.

    Raises:
        ValueError: the name is not one of ``BUDGETS``.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in BUDGETS:
            raise ValueError(f"unknown budget {self.name!r}; choose one of {', '.join(BUDGETS)}")

    def __call__(self, *, quick: T, full: T) -> T:
        return quick if self.name == "quick" else full

    @property
    def is_full(self) -> bool:
        return self.name == "full"


@dataclass(frozen=True)
class Lesson:
    """What the setup cell of a notebook hands to the cells below it."""

    budget: Budget
    seed: int
    device: torch.device

    def generator(self, offset: int = 0) -> torch.Generator:
        """A fresh random generator on the lesson's device; the same offset gives the same numbers."""
        return torch.Generator(self.device).manual_seed(self.seed + offset)


def start(budget: str = "full", seed: int = 0, device: str = "auto") -> Lesson:
    """Begin a lecture: check the parameters, seed torch, set the plotting style, say where it runs.

    Raises:
        ValueError: unknown budget or device.
    """
    lesson = Lesson(Budget(budget), int(seed), pick_device(device))
    torch.manual_seed(lesson.seed)
    from course_lib.viz.figures import use_course_style

    use_course_style()
    print(f"budget {budget} · seed {seed} · {describe_device(lesson.device)} · torch {torch.__version__}")
    return lesson
