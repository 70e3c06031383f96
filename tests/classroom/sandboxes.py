"""For tests that need a sandbox: a mark that skips them, with the reason, where none can be made."""

from __future__ import annotations

import pytest

from course_lib.classroom.course import CourseError
from course_lib.classroom.sandbox import require


def why_not() -> str:
    """Why no sandbox can be made on this machine; empty if one can."""
    try:
        require()
    except CourseError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(why_not()), reason=why_not())
