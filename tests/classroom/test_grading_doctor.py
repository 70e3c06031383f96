"""Without its parts the sandbox refuses; `course doctor --grading` attacks the machine, and says what held."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from jupyter_core.utils import run_sync
from rich.console import Console
from typer.testing import CliRunner

from course_lib.classroom import doctor, sandbox
from course_lib.classroom.attack import TRIAL, Outcome, show
from course_lib.classroom.cli import app
from course_lib.classroom.course import CourseError
from course_lib.classroom.sandbox import SandboxedKernelManager
from tests.classroom.sandboxes import needs_sandbox
from tests.classroom.tiny_course import ROOT


@pytest.fixture
def forgetful(monkeypatch) -> Iterator[pytest.MonkeyPatch]:
    """What the module has found out about this machine is found out again, in the test and after it."""
    for known in (sandbox._bubblewrap_version, sandbox._refusal):
        known.cache_clear()
    yield monkeypatch
    for known in (sandbox._bubblewrap_version, sandbox._refusal):
        known.cache_clear()


def test_without_its_parts_nothing_runs(forgetful, tmp_path):
    forgetful.setenv("PATH", str(tmp_path))
    forgetful.setattr(sandbox.seccomp, "library", lambda: None)
    parts = " ".join(sandbox.missing_parts())
    assert all(package in parts for package in ("bubblewrap", "util-linux", "libseccomp2"))
    manager = SandboxedKernelManager()
    with pytest.raises(CourseError, match="apt-get install bubblewrap libseccomp2 util-linux"):
        run_sync(manager.start_kernel)()
    assert not manager.has_kernel


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo bubblewrap 0.6.2", r"bwrap 0\.8 or newer \(package bubblewrap; found 0\.6\)"),
        (
            "[ $1 = --version ] && echo bubblewrap 0.9.0 && exit; echo 'bwrap: No permissions' >&2; exit 1",
            "bwrap: No perm",
        ),
    ],
)
def test_a_bubblewrap_that_cannot_do_it(forgetful, tmp_path, script, message):
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    forgetful.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CourseError, match=message):
        run_sync(SandboxedKernelManager().start_kernel)()


PROGRAM = """
import json, tempfile
from dataclasses import astuple
from pathlib import Path
from course_lib.classroom.attack import attack_this_machine
with tempfile.TemporaryDirectory() as root:
    for name in ("solutions/a04.ipynb", "classroom_data/gradebook.db"):
        path = Path(root, name)
        path.parent.mkdir()
        path.write_text("secret")
    print(json.dumps([astuple(outcome) for outcome in attack_this_machine(Path(root))]))
"""


@needs_sandbox
def test_an_ordinary_user_gets_the_same_promises():
    """What `course doctor --grading` does, by somebody without any rights."""
    command = [sys.executable, "-c", PROGRAM]
    if os.geteuid() == 0:
        command = [*_view_of_nobody(), *command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    outcomes = [Outcome(*fields) for fields in json.loads(ended.stdout)]
    assert [outcome for outcome in outcomes if not outcome.contained] == []
    names = {outcome.promise for outcome in outcomes}
    assert names >= {
        "network",
        "your files",
        "system calls",
        "fork bomb",
        "memory",
        "processor",
        "processes that outlive",
    }
    details = {outcome.promise: outcome.detail for outcome in outcomes}
    assert details["memory"] == f"the kernel was ended: used more than {TRIAL.memory_mib} MiB of memory"


def _view_of_nobody() -> list[str]:
    """A command's beginning: as user `nobody`, who can reach this interpreter and library wherever they are."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), ROOT / "course_lib"]
    fonts = Path(matplotlib.get_cachedir())
    command = ["bwrap", "--dev-bind", "/", "/"]
    outside = [path for path in needed if not path.is_relative_to("/usr")]
    for top in sorted({Path(*path.parts[:2]) for path in outside} | {Path("/tmp")}):
        command += ["--perms", "1777" if top == Path("/tmp") else "0755", "--tmpfs", str(top)]
    made = {Path("/tmp")}
    for path, target in [*((path, path) for path in outside), (fonts, Path("/tmp/.cache/matplotlib"))]:
        for folder in list(reversed(target.parents))[2:]:
            if folder not in made:
                made.add(folder)
                command += ["--perms", "0755", "--dir", str(folder)]
        command += ["--ro-bind", str(path), str(target)]
    command += ["--chdir", "/tmp", "--setenv", "HOME", "/tmp", "--cap-drop", "ALL"]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*command, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=-all"]


def test_the_doctors_report():
    console = Console(record=True, width=100, file=io.StringIO())
    good = Outcome("network", True, "Connection refused")
    assert show(iter([good, Outcome("disk", True, "")]), console)
    assert "Students' code is contained on this machine" in console.export_text()
    assert not show(iter([good, Outcome("network", False, "a connection to port 80")]), console)
    text = console.export_text()
    assert re.search(r"NOT contained +network +2 attacks, reached: a connection to port 80", text)
    assert "1 of 1 promises do not hold here" in text


def test_the_doctor_refuses_without_a_sandbox(forgetful, tmp_path):
    forgetful.setenv("PATH", str(tmp_path))
    ended = CliRunner().invoke(app, ["doctor", "--grading"])
    assert ended.exit_code == 1
    assert "apt-get install bubblewrap" in ended.output
    assert "contained" not in ended.stdout
    [finding] = doctor._sandbox()
    assert finding.ok
    assert finding.found.startswith("not on this machine: submissions can only be graded in a sandbox")
