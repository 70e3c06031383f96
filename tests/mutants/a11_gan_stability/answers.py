"""Where the alternative answers to a11_gan_stability are collected."""

from tests.mutants.registry import Answers

answers = Answers("a11_gan_stability")
