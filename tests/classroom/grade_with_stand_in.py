"""`python -m tests.classroom.grade_with_stand_in ROOT INBOX WORKERS [--resume]`: `course grade` of the tiny course."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from course_lib.classroom.grade import Choices, grade_with_report
from course_lib.classroom.workforce import Place
from tests.classroom.stand_in import execute_here
from tests.classroom.tiny_course import ASSIGNMENT

if __name__ == "__main__":
    root, inbox, workers, *flags = sys.argv[1:]
    choices = Choices(Place(int(workers)), resume="--resume" in flags, sandbox=False)
    console = Console(file=sys.stdout)  # the stand-in redirects what is called that
    sys.exit(grade_with_report(Path(root), ASSIGNMENT, Path(inbox), None, None, choices, console, execute_here))
