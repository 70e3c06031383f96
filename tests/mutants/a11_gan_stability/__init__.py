"""Answers to assignment a11_gan_stability: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a11_gan_stability import (
    dual_value_to_penalties,
    mode_seeking_to_mode_imbalance,
    wgan_step_to_spectral_weight,
)
from tests.mutants.a11_gan_stability.answers import answers

__all__ = [
    "answers",
    "dual_value_to_penalties",
    "mode_seeking_to_mode_imbalance",
    "wgan_step_to_spectral_weight",
]
