"""Where the alternative answers to a09_gan_theory are collected."""

from tests.mutants.registry import Answers

answers = Answers("a09_gan_theory")
