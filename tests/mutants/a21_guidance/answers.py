"""Where the alternative answers to a21_guidance are collected."""

from tests.mutants.registry import Answers

answers = Answers("a21_guidance")
