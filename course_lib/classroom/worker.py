"""The Dask task: one notebook in a fresh process, watched for time, memory and cancellation."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from distributed import Worker, get_worker

from course_lib.classroom.processes import MARK, end_processes, resident_bytes
from course_lib.core.device import available_cores, pick_device, thread_limit

TICK = 0.25  # seconds between two looks at clock, memory and cancellation


@dataclass(frozen=True)
class Job:
    """One notebook to execute.

    Attributes:
        mark: ``RUN.NUMBER.``, the value of ``COURSE_RUN`` in every process of this job (a prefix of no other mark).
        path, output: the notebook, and where the executed one goes.
        parameters: for notebooks with a cell tagged ``parameters``.
        threads: cores that each process of the job may use.
        timeout: seconds.
    """

    mark: str
    path: Path
    output: Path
    parameters: dict[str, object] = field(hash=False)
    threads: int
    timeout: float

    @property
    def topic(self) -> str:
        """Dask event topic of the run."""
        return f"course-{self.mark.partition('.')[0]}"


@dataclass
class Outcome:
    """What became of a job. ``status``: passed, failed, timeout, invalid, or cancelled (by the client)."""

    status: str
    seconds: float
    peak_mib: float
    cells: int = 0
    cells_done: int = 0
    error: dict | None = None


def survey(device: str) -> dict[str, object]:
    """What the client asks every worker before it sends work: cores, and whether ``device`` exists there."""
    try:
        pick_device(device)
    except ValueError as error:
        return {"cores": available_cores(), "problem": str(error)}
    return {"cores": available_cores(), "problem": None}


def execute_job(job: Job) -> Outcome:
    """Run ``job`` to its end on this Dask worker; its progress goes to the topic ``job.topic``.

    Whatever the end (passed, failed, out of time, cancelled, killed), no process of the job is left afterwards.
    """
    worker = get_worker()
    task = worker.get_current_task()
    worker.log_event(job.topic, {"event": "started", "mark": job.mark})
    try:
        return _watch(job, worker, task)
    finally:
        worker.log_event(job.topic, {"event": "gone", "mark": job.mark})


def _watch(job: Job, worker: Worker, task: str) -> Outcome:
    begin = time.monotonic()
    outcome = Outcome("failed", 0.0, 0.0)
    source, ended = "", False
    with tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch, "stderr.txt")
        with log.open("wb") as stderr:
            process = _start(job, Path(scratch), stderr)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            measured = 0.0
            while True:
                now = time.monotonic()
                if now - begin > job.timeout:
                    outcome.status = "timeout"
                    break
                if _cancelled(worker, task):
                    outcome.status = "cancelled"
                    break
                if now - measured > TICK:
                    outcome.peak_mib = max(outcome.peak_mib, resident_bytes(process.pid) / 2**20)
                    measured = now
                try:
                    line = lines.get(timeout=TICK)
                except queue.Empty:
                    continue
                if line is None:
                    break
                event = json.loads(line)
                if event["event"] == "end":
                    outcome.status, outcome.error, ended = event["status"], event["error"], True
                    continue
                source, outcome.cells, outcome.cells_done = event["source"], event["total"], event["done"]
                progress = {"event": "cell", "mark": job.mark, "done": outcome.cells_done, "total": outcome.cells}
                worker.log_event(job.topic, progress)
        finally:
            end_processes(job.mark, process.pid)
            code = process.wait()
            process.stdin.close()
            reader.join()
            process.stdout.close()
        outcome.seconds = time.monotonic() - begin
        if outcome.status == "timeout":
            outcome.error = _timed_out(job, outcome)
        elif outcome.status == "failed" and not ended:
            outcome.error = _died(code, log)
        if outcome.error and source and outcome.error["cell"] is None:  # it ended in the middle of a cell
            outcome.error |= {"cell": outcome.cells_done + 1, "source": source}
    return outcome


def _start(job: Job, scratch: Path, stderr: IO[bytes]) -> subprocess.Popen:
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures go into cells
    environment = {
        **inherited,
        **thread_limit(job.threads),
        MARK: job.mark,
        "COURSE_HEADLESS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # kernel `python3` is this interpreter's, not one from elsewhere
        "JUPYTER_PATH": "",
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "IPYTHONDIR": str(scratch / "ipython"),  # nobody's start-up files and history
        "PYTHONUNBUFFERED": "1",
    }
    (scratch / "runtime").mkdir()
    request = {"path": str(job.path), "output": str(job.output), "parameters": job.parameters}
    return subprocess.Popen(
        [sys.executable, "-m", "course_lib.classroom.execute", json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        start_new_session=True,
    )


def _read(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.decode())
    lines.put(None)


def _cancelled(worker: Worker, task: str) -> bool:
    """The client let go of the task: it was interrupted, or the scheduler noticed that it is gone."""
    state = worker.state.tasks.get(task)
    return state is None or state.state == "cancelled"


def _timed_out(job: Job, outcome: Outcome) -> dict:
    if not outcome.cells:
        where = "before the first cell"
    elif outcome.cells_done == outcome.cells:
        where = "after the last cell"
    else:
        where = f"in cell {outcome.cells_done + 1} of {outcome.cells}"
    message = f"stopped after {job.timeout:g} s, {where}; `--timeout SECONDS` gives it longer"
    return {"name": "Timeout", "message": message, "cell": None, "source": "", "traceback": ""}


def _died(code: int, log: Path) -> dict:
    ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = "; perhaps the machine ran out of memory" * (code == -signal.SIGKILL)
    tail = log.read_text(errors="replace")[-4000:]
    message = f"the process that executes the notebook ended with {ending}{hint}"
    return {"name": "ProcessDied", "message": message, "cell": None, "source": "", "traceback": tail}
