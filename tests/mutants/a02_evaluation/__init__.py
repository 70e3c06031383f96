"""Answers to assignment a02_evaluation: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a02_evaluation import kid_to_diagnose, merge_to_fid, psnr_to_inception_score
from tests.mutants.a02_evaluation.answers import answers

__all__ = ["answers", "kid_to_diagnose", "merge_to_fid", "psnr_to_inception_score"]
