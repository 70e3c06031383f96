"""Answers to assignment a18_score: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a18_score import (
    annealed_chain_to_weight_error,
    implicit_loss_to_denoise,
    noised_density_to_ebm_loss,
)
from tests.mutants.a18_score.answers import answers

__all__ = [
    "annealed_chain_to_weight_error",
    "answers",
    "implicit_loss_to_denoise",
    "noised_density_to_ebm_loss",
]
