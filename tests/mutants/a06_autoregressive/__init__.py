"""Answers to assignment a06_autoregressive: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a06_autoregressive import (
    causal_mask_to_bits_per_dim,
    straight_through_to_perplexity,
    training_step_to_logistic_log_prob,
)
from tests.mutants.a06_autoregressive.answers import answers

__all__ = [
    "answers",
    "causal_mask_to_bits_per_dim",
    "straight_through_to_perplexity",
    "training_step_to_logistic_log_prob",
]
