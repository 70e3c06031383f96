"""Answers to assignment a08_flows: plausible mistakes, and a second correct solution of every part."""

from tests.mutants.a08_flows import actnorm_to_chain, logit_to_sample, pushed_log_prob_to_squeeze
from tests.mutants.a08_flows.answers import answers

__all__ = ["actnorm_to_chain", "answers", "logit_to_sample", "pushed_log_prob_to_squeeze"]
