"""Training loop, devices, budgets, checks and files: what every family uses and no slide derives."""

from course_lib.core.budget import Budget, Lesson, start
from course_lib.core.device import pick_device, thread_limit
from course_lib.core.ema import EMA
from course_lib.core.fit import FitOptions, History, fit
from course_lib.core.player import Player, minibatches, stream, warmup_cosine

__all__ = [
    "EMA",
    "Budget",
    "FitOptions",
    "History",
    "Lesson",
    "Player",
    "fit",
    "minibatches",
    "pick_device",
    "start",
    "stream",
    "thread_limit",
    "warmup_cosine",
]
