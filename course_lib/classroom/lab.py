"""``course lab``: JupyterLab on the course, at a lecture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from course_lib.classroom.places import UnknownNotebook, by_name, lecture_notebooks


def lab_command(root: Path, lecture: str | None, port: int, browser: bool) -> list[str]:
    """The command that opens JupyterLab with ``root`` as its folder.

    Args:
        root: of the course.
        lecture: number or name, as in ``by_name``; None opens the folder.
        port: of the server.
        browser: whether to open a window.

    Raises:
        UnknownNotebook: no such lecture; the message lists what exists.
    """
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", f"--ServerApp.port={port}"]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers; Jupyter refuses otherwise
    if lecture is not None:
        lectures = lecture_notebooks(root)
        matches = by_name(lecture, lectures)
        if not matches:
            there = ", ".join(path.stem for path in lectures) or f"none under {root / 'lectures'}"
            raise UnknownNotebook(f"no lecture {lecture!r}; there are {there}")
        command.append(str(matches[0]))
    return command


def open_lab(root: Path, lecture: str | None, port: int, browser: bool) -> int:
    """Run JupyterLab in the foreground until it is stopped; returns its exit code. Raises as ``lab_command`` does."""
    command = lab_command(root, lecture, port, browser)
    # kernel `python3` is this interpreter's, not one in the user's home
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    # formgrader must not grade without nbgrader_config.py because of an error in it
    environment["TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR"] = "1"
    if os.name == "posix":
        os.execve(command[0], command, environment)  # JupyterLab asks on Ctrl-C: nothing may stand in between
    return subprocess.run(command, env=environment, check=False).returncode
