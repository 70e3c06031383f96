"""Where the alternative answers to a02_evaluation are collected."""

from tests.mutants.registry import Answers

answers = Answers("a02_evaluation")
