"""Answers to assignment a19_ddpm: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a19_ddpm import (
    ancestral_to_ddim_step,
    loss_to_reverse_step,
    posterior_to_step_bound,
    schedules_to_noised,
)
from tests.mutants.a19_ddpm.answers import answers

__all__ = [
    "ancestral_to_ddim_step",
    "answers",
    "loss_to_reverse_step",
    "posterior_to_step_bound",
    "schedules_to_noised",
]
