"""Where nbgrader finds the course: stock `nbgrader` commands, formgrader and the `course` command all read this file.

An error in here must stop grading, not let it go on without these settings: `course` stops by itself; for the stock
commands and JupyterLab, set TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR=1.
"""

import os
import sys
from pathlib import Path

c = get_config()  # traitlets puts it into the namespace of this file

root = Path(__file__).resolve().parent
data = root / "classroom_data"  # ignored by git: submissions, marks, feedback
(data / "exchange").mkdir(parents=True, exist_ok=True)  # sqlite and the exchange need their folders to exist

# nbgrader calls `alembic` by name, which fails where .venv/bin/nbgrader is run without activating the environment
programs = str(Path(sys.executable).parent)
if programs not in os.environ["PATH"].split(os.pathsep):
    os.environ["PATH"] = programs + os.pathsep + os.environ["PATH"]

c.CourseDirectory.root = str(root)
c.CourseDirectory.course_id = "deep_generative_models"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "assignments"
c.CourseDirectory.source_with_tests_directory = "classroom_data/source_with_tests"
c.CourseDirectory.submitted_directory = "classroom_data/submitted"
c.CourseDirectory.autograded_directory = "classroom_data/autograded"
c.CourseDirectory.feedback_directory = "classroom_data/feedback"
c.CourseDirectory.solution_directory = "classroom_data/solution"
c.CourseDirectory.db_url = f"sqlite:///{data / 'gradebook.db'}"

# one machine by default; on a JupyterHub, point this at a folder that students and instructors share
c.Exchange.root = str(data / "exchange")
c.Exchange.cache = str(data / "exchange_cache")

c.Execute.timeout = 120  # seconds a cell; nbgrader's 30 are too few for a short training on a busy machine
c.Execute.shutdown_kernel = "immediate"  # nothing of a graded kernel is wanted any more; saves a second each
c.KernelManager.transport_encryption = "auto"  # else every kernel warns that others on this machine could listen

# what formgrader and nbgrader's own feedback show was written by strangers, and would run with the rights of the reader
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {name: f"course_lib.classroom.safe_html.{name}" for name in ("clean_html", "markdown2html")}
