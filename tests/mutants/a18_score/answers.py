"""Where the alternative answers to a18_score are collected."""

from tests.mutants.registry import Answers

answers = Answers("a18_score")
