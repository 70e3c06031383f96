"""Where the alternative answers to a06_autoregressive are collected."""

from tests.mutants.registry import Answers

answers = Answers("a06_autoregressive")
