"""`python -m tests.classroom.grade_with_stock ROOT...`: each ROOT a course with one submission, named like ROOT.

In a process of its own, because one of the submissions ends the process that grades it. What came of a submission is
written to ROOT/outcome.json: scores by cell, or why there are none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nbgrader.converters import Autograde

from course_lib.classroom.course import Course, CourseError
from tests.classroom.tiny_course import ASSIGNMENT

if __name__ == "__main__":
    for root in map(Path, sys.argv[1:]):
        course = Course.at(root)
        try:
            course.nbgrader(Autograde, ASSIGNMENT, root.name)
            with course.gradebook() as gradebook:
                [notebook] = gradebook.find_submission(ASSIGNMENT, root.name).notebooks
                outcome = {"scores": {g.name: g.auto_score for g in notebook.grades}}
        except CourseError as error:
            outcome = {"problem": str(error)}
        (root / "outcome.json").write_text(json.dumps(outcome))
