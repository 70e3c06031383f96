"""Wrong and right answers to graded functions, as plain functions.

    from tests.mutants.registry import Answers
    answers = Answers("a04_vae")

    @answers.mutant("forgets the one half")
    def kl_closed_form(mean, log_var): ...

    @answers.second          # differently written, and correct
    def kl_closed_form(mean, log_var): ...

``tests/test_assignments.py`` puts each in the place of the solution and runs the graded cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Answers:
    """All alternative answers to one assignment.

    Attributes:
        assignment: its folder's name.
        mutants: (function name, what is wrong, the wrong function or class).
        seconds: function name → another correct one.
    """

    assignment: str
    mutants: list[tuple[str, str, Callable]] = field(default_factory=list)
    seconds: dict[str, Callable] = field(default_factory=dict)

    def mutant(self, what_is_wrong: str) -> Callable[[Callable], Callable]:
        def register(answer: Callable) -> Callable:
            self.mutants.append((answer.__name__, what_is_wrong, answer))
            return answer

        return register

    def second(self, answer: Callable) -> Callable:
        if answer.__name__ in self.seconds:
            raise ValueError(f"{self.assignment}: two second solutions for {answer.__name__}")
        self.seconds[answer.__name__] = answer
        return answer
