"""Answers to assignment a09_gan_theory: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a09_gan_theory import discriminator_loss_to_jsd_bound, r1_penalty_to_covered_modes
from tests.mutants.a09_gan_theory.answers import answers

__all__ = ["answers", "discriminator_loss_to_jsd_bound", "r1_penalty_to_covered_modes"]
