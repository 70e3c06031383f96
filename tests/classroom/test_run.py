"""``course run``: what becomes of notebooks that pass, raise, hang, die or are none, and of their processes."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from typer.testing import CliRunner

from course_lib.classroom import run as run_module
from course_lib.classroom.cli import app
from course_lib.classroom.execute import execute
from course_lib.classroom.places import UnknownNotebook, resolve
from course_lib.classroom.progress import Forecast, clock
from course_lib.classroom.report import NotebookResult, durations, warning_messages, write_report

FIELDS = {"path", "status", "seconds", "peak_mib", "cells", "warnings", "error"}
PATIENCE = 90  # seconds until a test gives up; never asserted on
FACTS = """\
import json, os, sys, torch
facts = dict(budget=BUDGET, seed=SEED, device=DEVICE, python=sys.executable, threads=torch.get_num_threads(),
             omp=os.environ["OMP_NUM_THREADS"], headless=os.environ["COURSE_HEADLESS"], cwd=os.getcwd())
print(json.dumps(facts))"""
FIGURE = """\
import matplotlib.pyplot as plt
plt.plot([1, 3, 2])
plt.show()"""
# a kernel, and below it a process that leaves its session and would survive its parents
SLEEPS = """\
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("asleep").touch()
time.sleep(600)"""


def write(path: Path, *cells: str | nbformat.NotebookNode) -> Path:
    """A notebook of code cells (strings) and ready-made cells."""
    made = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made), path)
    return path


def parameters() -> nbformat.NotebookNode:
    return new_code_cell('BUDGET = "full"\nSEED = 0\nDEVICE = "auto"', metadata={"tags": ["parameters"]})


def start_course(*arguments: object, mark: str = "") -> subprocess.Popen:
    command = [sys.executable, "-m", "course_lib.classroom.cli", *map(str, arguments)]
    environment = {**os.environ, "COURSE_TEST_MARK": mark}
    # a shell that starts the tests in the background has interrupts ignored, and an ignored signal is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that inherited ``mark``."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("COURSE_TEST_MARK") == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.1)


# --- one run, many notebooks ------------------------------------------------------------------------------------


@dataclass
class Ran:
    code: int
    stdout: str
    stderr: str
    out: Path
    folder: Path
    report: dict

    def row(self, stem: str) -> dict:
        return next(row for row in self.report["notebooks"] if Path(row["path"]).stem == stem)

    def executed(self, stem: str) -> nbformat.NotebookNode:
        return nbformat.read(self.out / self.row(stem)["executed"], as_version=4)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("notebooks")
    out = tmp_path_factory.mktemp("out")
    notebooks = [
        write(folder / "hangs.ipynb", "done = 1", SLEEPS),
        write(folder / "passes.ipynb", new_markdown_cell("# 99 · A *title*"), parameters(), FACTS, "", FIGURE),
        write(folder / "raises.ipynb", "def f(x):\n    return 1 / x", "f(0)", "print('never')"),
        write(folder / "warns.ipynb", "import warnings\nwarnings.warn('odd')\nwarnings.warn('odder')"),
        write(folder / "dies.ipynb", "import os", "os._exit(3)"),
        folder / "broken.ipynb",
        folder / "other.ipynb",
    ]
    (folder / "broken.ipynb").write_text('{"cells": [')
    (folder / "other.ipynb").write_text('["JSON, but no notebook"]')
    mark = uuid.uuid4().hex
    course = start_course("run", *notebooks, "--workers", 2, "--seed", 7, "--timeout", 30, "--out", out, mark=mark)
    stdout, stderr = course.communicate(timeout=4 * PATIENCE)
    assert not marked(mark)
    return Ran(course.returncode, stdout, stderr, out, folder, json.loads((out / "report.json").read_text()))


def test_every_notebook_has_its_status_and_a_failure_stops_no_other(ran):
    assert ran.code == 1
    statuses = {Path(row["path"]).stem: row["status"] for row in ran.report["notebooks"]}
    assert statuses == {
        "hangs": "timeout",
        "passes": "passed",
        "raises": "failed",
        "warns": "passed",
        "dies": "failed",
        "broken": "invalid",
        "other": "invalid",
    }
    assert ran.report["counts"] == {"passed": 2, "failed": 2, "timeout": 1, "invalid": 2}
    assert all(row.keys() >= FIELDS for row in ran.report["notebooks"])
    assert all((row["error"] is None) == (row["status"] == "passed") for row in ran.report["notebooks"])
    assert ran.row("passes")["peak_mib"] > 100  # a Python with torch
    assert ran.row("passes")["seconds"] > 0


def test_parameters_are_injected_and_the_environment_is_ours(ran):
    outputs = [output for cell in ran.executed("passes").cells for output in cell.get("outputs", [])]
    facts = json.loads(next(output.text for output in outputs if output.output_type == "stream"))
    share = str(max(1, run_module.available_cores() // 2))
    assert facts == {
        "budget": "quick",
        "seed": 7,
        "device": "auto",
        "python": sys.executable,
        "threads": int(share),
        "omp": share,
        "headless": "1",
        "cwd": str(ran.folder),
    }


def test_only_tagged_notebooks_get_parameters(ran):
    assert "BUDGET" not in "".join(cell.source for cell in ran.executed("warns").cells)
    assert ran.row("warns")["cells"] == 1
    # parameters, injected parameters, facts, figure; the empty cell does not count
    assert (ran.row("passes")["cells"], ran.row("passes")["cells_done"]) == (4, 4)


def test_the_failing_cell_is_shown(ran):
    row = ran.row("raises")
    assert (row["cells_done"], row["cells"]) == (1, 3)
    error = row["error"]
    assert (error["name"], error["cell"], error["source"]) == ("ZeroDivisionError", 2, "f(0)")
    assert "return 1 / x" in error["traceback"]
    assert "\x1b" not in error["traceback"]
    for text in ("ZeroDivisionError: division by zero", "raises.ipynb · In [2]", "----> 1 f(0)"):
        assert text in ran.stdout
    assert "Traceback (most recent call last):" not in ran.stderr


def test_a_hung_notebook_says_where(ran):
    row = ran.row("hangs")
    assert "in cell 2 of 2" in row["error"]["message"]
    assert (row["error"]["cell"], row["error"]["source"], row["cells_done"]) == (2, SLEEPS, 1)


def test_a_dead_kernel_is_a_failure_with_its_cell(ran):
    error = ran.row("dies")["error"]
    assert "kernel died" in error["message"]
    assert (error["cell"], error["source"]) == (2, "os._exit(3)")


def test_warnings_are_counted(ran):
    assert ran.row("warns")["warnings"] == 2
    assert ran.row("passes")["warnings"] == 0


def test_output_off_a_terminal_is_one_line_a_notebook_and_no_noise(ran):
    lines = [line for line in ran.stdout.splitlines() if line.startswith("passed ")]
    assert sorted(Path(line.split()[1]).stem for line in lines) == ["passes", "warns"]
    assert ran.stderr == ""


def test_nothing_is_written_beside_the_notebooks(ran):
    assert {path.name for path in ran.folder.iterdir() if path.suffix != ".ipynb"} == {"asleep"}  # by the notebook


def test_the_page_shows_the_figures(ran):
    page = (ran.out / "report.html").read_text()
    assert page.count('src="data:image/webp;base64,') == 1
    assert "99 · A title" in page
    assert 'href="notebooks/passes.ipynb"' in page
    assert (ran.out / "figures" / "passes" / "01.png").is_file()
    assert "http" not in page  # works offline


# --- no process is left -----------------------------------------------------------------------------------------


def asleep(tmp_path: Path, *options: object) -> tuple[subprocess.Popen, str]:
    """A ``course run`` whose notebook sleeps, with all its processes up."""
    notebook, mark = write(tmp_path / "nb" / "sleeps.ipynb", SLEEPS), uuid.uuid4().hex
    course = start_course("run", notebook, "--out", tmp_path / "out", *options, mark=mark)
    until(lambda: (tmp_path / "nb" / "asleep").exists() or course.poll() is not None, "the notebook to start")
    assert course.poll() is None, course.communicate()
    return course, mark


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_ended_run_leaves_no_process(tmp_path, number, code):
    course, mark = asleep(tmp_path)
    assert len(marked(mark)) >= 4  # course, executor, kernel, the process that the notebook started
    course.send_signal(number)
    stdout, stderr = course.communicate(timeout=PATIENCE)
    assert course.returncode == code
    if number == signal.SIGKILL:  # nobody is left to wait: the executor notices on its own
        until(lambda: not marked(mark), "the executor to end its kernel")
    else:
        assert not marked(mark)
        assert "interrupted: 0 of 1 notebooks" in stdout
        assert stderr == ""


# --- a running scheduler ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        memory_limit=0,
    ) as cluster:
        yield cluster


def test_notebooks_run_on_the_workers_of_a_scheduler(tmp_path, cluster):
    ancestors = "import psutil\nprint([p.pid for p in psutil.Process().parents()])"
    notebooks = [write(tmp_path / f"{name}.ipynb", ancestors) for name in "ab"]
    course = start_course("run", *notebooks, "--scheduler", cluster.scheduler_address, "--out", tmp_path / "out")
    stdout, stderr = course.communicate(timeout=PATIENCE)
    assert (course.returncode, stderr) == (0, ""), stdout
    worker = next(iter(cluster.workers.values())).pid  # of its nanny's child
    for name in "ab":
        executed = nbformat.read(tmp_path / "out" / "notebooks" / f"{name}.ipynb", as_version=4)
        above = json.loads(executed.cells[0].outputs[0].text)
        assert worker in above
        assert course.pid not in above


def test_an_interrupt_reaches_the_workers_of_a_scheduler(tmp_path, cluster):
    course, _ = asleep(tmp_path, "--scheduler", cluster.scheduler_address)
    worker = psutil.Process(next(iter(cluster.workers.values())).pid)
    assert worker.children(recursive=True)
    course.send_signal(signal.SIGINT)
    _, stderr = course.communicate(timeout=PATIENCE)
    assert (course.returncode, stderr) == (130, "")
    assert not [p for p in worker.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path / "nb")]


# --- bad requests: exit code 2, one clear message, nothing started ----------------------------------------------


def refused(monkeypatch, *arguments: object) -> str:
    """The message of a ``course run`` that must be refused, without the box around it."""
    monkeypatch.setattr(run_module, "_work", lambda *_: pytest.fail("work was started"))
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write(tmp_path / "tiny.ipynb", "1")


def test_unknown_notebook_lists_what_exists(monkeypatch):
    message = refused(monkeypatch, "77")
    assert "no notebook '77'" in message
    assert "04_vae" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "huge"], "'huge' is not one of 'quick', 'full'"),
        (["--workers", "0"], "greater than or equal to 1"),
        (["--timeout", "0"], "greater than or equal to 1"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--scheduler", "nonsense"], "no Dask scheduler answers at 'nonsense'"),
        (["--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        (["--out", run_module.course_root() / "lectures" / "x"], "is inside lectures/"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, tmp_path, tiny, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "CONNECT_SECONDS", 0.5)
    assert message in refused(monkeypatch, tiny, *options)
    assert not (tmp_path / "course_run" / "report.json").exists()


def test_cuda_without_cuda_is_refused(monkeypatch, tiny):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "sees no CUDA GPU" in refused(monkeypatch, tiny, "--device", "cuda")


def test_the_source_is_never_overwritten(monkeypatch, tmp_path):
    notebook = write(tmp_path / "notebooks" / "tiny.ipynb", "1")
    assert "would overwrite" in refused(monkeypatch, notebook, "--out", tmp_path)


def test_a_scheduler_without_workers_is_refused(monkeypatch, tiny):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as empty:
        assert "has no workers" in refused(monkeypatch, tiny, "--scheduler", empty.scheduler_address)


# --- parts ------------------------------------------------------------------------------------------------------


def test_names_of_notebooks(tmp_path, monkeypatch):
    vae = write(tmp_path / "lectures" / "04_vae.ipynb", "1")
    gan = write(tmp_path / "lectures" / "10_gan.ipynb", "1")
    task = write(tmp_path / "solutions" / "a04_vae" / "a04_vae.ipynb", "1")
    write(tmp_path / "solutions" / "a04_vae" / "scratch.ipynb", "1")
    assert resolve([], tmp_path) == [vae, gan, task]
    for name in ("04", "4", "04_vae", str(vae)):
        assert resolve([name], tmp_path) == [vae]
    assert resolve(["a04", "10", str(task)], tmp_path) == [task, gan]
    assert resolve([str(tmp_path / "lectures")], tmp_path) == [vae, gan]
    with pytest.raises(UnknownNotebook, match="no notebook '1'; there are 04_vae, 10_gan, a04_vae"):
        resolve(["1"], tmp_path)
    with pytest.raises(UnknownNotebook, match="there are no notebooks under"):
        resolve([], tmp_path / "lectures")


def test_two_notebooks_of_one_name_get_two_outputs(tmp_path):
    names = {str(tmp_path / folder / "x.ipynb"): tmp_path / folder / "x.ipynb" for folder in "ab"}
    outputs = run_module._outputs(names, tmp_path / "out", tmp_path / "course")
    assert [path.name for path in outputs.values()] == ["x.ipynb", "x-2.ipynb"]


def result(path: str, seconds: float = 1.0, **fields) -> NotebookResult:
    values = {"peak_mib": 1.0, "cells": 1, "cells_done": 1, "warnings": 0, "error": None, "executed": None}
    return NotebookResult(path, fields.pop("status", "passed"), seconds, **{**values, **fields})


def test_an_earlier_report_orders_the_next_run(tmp_path):
    write_report(tmp_path, {"budget": "quick"}, [result("short", 2.0), result("long", 50.0)])
    assert durations(tmp_path, "full") == {}
    earlier = durations(tmp_path, "quick")
    assert earlier == {"short": 2.0, "long": 50.0}
    assert run_module.longest_first(["short", "new", "long"], earlier) == ["new", "long", "short"]
    (tmp_path / "report.json").write_text("{")
    assert durations(tmp_path, "quick") == {}


def test_forecast():
    forecast = Forecast({"a": 100.0}, slots=2)
    assert forecast.notebook("a", elapsed=30, done=1, total=50) == 70  # known from the last run
    assert forecast.notebook("b", elapsed=30, done=10, total=40) == 90  # from its cells
    assert forecast.notebook("b", elapsed=30, done=0, total=40) is None
    assert forecast.run([70.0], ["b"]) is None
    forecast.finished.append(20.0)
    assert forecast.run([70.0], ["b"]) == 70  # 90 seconds of work for two, but one part takes 70
    assert forecast.run([10.0, 30.0], ["b", "b"]) == 40
    assert [clock(s) for s in (8.26, 125, 3725)] == ["8.3 s", "2:05", "1:02:05"]


def test_warning_messages():
    text = "x.py:1: UserWarning: odd\n  warnings.warn('odd')\ny.py:2: FutureWarning: soon\n"
    streams = [new_output("stream", name="stderr", text=t) for t in (text, "progress 10 %\n")]
    cell = new_code_cell("x", outputs=[*streams, new_output("stream", name="stdout", text="a UserWarning: no")])
    messages = warning_messages(new_notebook(cells=[cell]))
    assert messages == ["x.py:1: UserWarning: odd", "y.py:2: FutureWarning: soon", "progress 10 %"]


def test_the_page_escapes_and_shrinks(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 500), "teal").save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    cell = new_code_cell("x", outputs=[new_output("display_data", {"image/png": png})])
    write(tmp_path / "notebooks" / "wide.ipynb", new_markdown_cell("## A <script>heading"), cell)
    error = {"name": "E", "message": "<script>alert(1)", "cell": 3, "source": "a < b", "traceback": ""}
    failed = result("wide.ipynb", status="failed", error=error, executed="notebooks/wide.ipynb")
    _, page = write_report(tmp_path, {"budget": "quick"}, [failed])
    html = page.read_text()
    assert "<script>" not in html
    assert 'width="360" height="90"' in html
    embedded = html.split("data:image/webp;base64,")[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(embedded))).size == (720, 180)
    assert Image.open(tmp_path / "figures" / "wide" / "01.png").size == (2000, 500)


def test_an_unreadable_file_is_invalid(tmp_path):
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    status, error = execute(tmp_path / "bytes.ipynb", tmp_path / "out.ipynb", {}, lambda *_, **__: None)
    assert status == "invalid"
    assert "not a Jupyter notebook" in error["message"]
