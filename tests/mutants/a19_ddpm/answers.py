"""Where the alternative answers to a19_ddpm are collected."""

from tests.mutants.registry import Answers

answers = Answers("a19_ddpm")
