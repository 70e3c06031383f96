"""Answers to assignment a21_guidance: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a21_guidance import (
    class_log_posterior_to_guided_eps,
    composed_to_sdedit_start,
    hidden_labels_to_two_variances,
    holes_to_palette_loss,
)
from tests.mutants.a21_guidance.answers import answers

__all__ = [
    "answers",
    "class_log_posterior_to_guided_eps",
    "composed_to_sdedit_start",
    "hidden_labels_to_two_variances",
    "holes_to_palette_loss",
]
