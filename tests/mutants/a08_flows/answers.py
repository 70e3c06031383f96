"""Where the alternative answers to a08_flows are collected."""

from tests.mutants.registry import Answers

answers = Answers("a08_flows")
