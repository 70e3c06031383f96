"""``course run``: execute notebooks on Dask workers, show how they fare, and write the reports."""

from __future__ import annotations

import contextlib
import datetime
import platform
import queue
import signal
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dask
from rich.console import Console

from course_lib.classroom.places import UnknownNotebook, course_root, resolve
from course_lib.classroom.processes import end_processes
from course_lib.classroom.progress import Display, Forecast, summary
from course_lib.classroom.report import NotebookResult, durations, read_executed, warning_messages, write_report
from course_lib.core.device import available_cores, pick_device

# Dask tells of every worker that comes and goes; only what is wrong concerns the user. Read at import of distributed.
dask.config.set({"logging": {"distributed": "error"}})
from distributed import Client, Future, LocalCluster  # noqa: E402

from course_lib.classroom.worker import Job, Outcome, execute_job, survey  # noqa: E402

INTERRUPTED = 130  # exit code, as shells report SIGINT
CONNECT_SECONDS = 5
GRACE = 20.0  # seconds for workers to end their processes after an interrupt
SOURCES = ("lectures", "solutions", "assignments")


class BadRequest(ValueError):
    """The command line asks for what cannot be; ``option`` names the part that is wrong."""

    def __init__(self, option: str, message: str):
        super().__init__(message)
        self.option = option


@dataclass(frozen=True)
class Request:
    """The command line of ``course run``; see there."""

    notebooks: tuple[str, ...] = ()
    budget: str = "quick"
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    out: Path = Path("course_run")
    timeout: float = 1800.0


@dataclass
class Crew:
    """Who does the work: a Dask client, notebooks at a time, and cores for each."""

    client: Client
    slots: int
    threads: int


@dataclass
class Run:
    """State of one run: what waits, what runs, what is done."""

    crew: Crew
    jobs: dict[str, Job]  # by path as shown
    display: Display
    running: dict[Future, str] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)  # marks of jobs whose worker has not said "gone"
    results: dict[str, NotebookResult] = field(default_factory=dict)


def run_course(request: Request, console: Console) -> int:
    """Execute the notebooks of ``request``; returns the exit code: 0 all passed, 1 some did not, 130 interrupted.

    Raises:
        BadRequest: unknown notebook or device, unusable folder, no scheduler; nothing has been started then.
    """
    root = course_root()
    try:
        paths = resolve(list(request.notebooks), root)
    except UnknownNotebook as error:
        raise BadRequest("NOTEBOOK", str(error)) from None
    if request.scheduler is None:
        try:
            pick_device(request.device)
        except ValueError as error:
            raise BadRequest("--device", str(error)) from None
    out = request.out.resolve()
    names = {_shown(path, root): path for path in paths}
    outputs = _outputs(names, out, root)
    forecast = Forecast(durations(out, request.budget), 1)
    with interruptible(), _crew(request, len(paths)) as crew:
        forecast.slots = crew.slots
        run_id = uuid.uuid4().hex
        parameters = {"BUDGET": request.budget, "SEED": request.seed, "DEVICE": request.device}
        order = longest_first(list(names), forecast.earlier)
        jobs = {
            name: Job(f"{run_id}.{i}.", names[name], outputs[name], parameters, crew.threads, request.timeout)
            for i, name in enumerate(order)
        }
        console.print(
            f"{len(jobs)} notebook{'s' * (len(jobs) != 1)}, budget {request.budget}, {crew.slots} at a time "
            f"with {crew.threads} thread{'s' * (crew.threads != 1)} each",
            soft_wrap=True,
        )
        begin = time.monotonic()
        with Display(console, order, forecast) as display:
            run = Run(crew, jobs, display)
            finished = _work(run, out)
        results = [run.results[name] for name in names if name in run.results]
        if not finished:
            console.print(f"interrupted: {len(results)} of {len(jobs)} notebooks had ended; no report was written")
            return INTERRUPTED
        facts = _facts(request, crew, time.monotonic() - begin)
    as_json, as_html = write_report(out, facts, results)
    summary(results, console)
    passed = sum(result.status == "passed" for result in results)
    console.print(f"\n{passed} of {len(results)} passed. Report: {as_html} and {as_json.name}", soft_wrap=True)
    return 0 if passed == len(results) else 1


def longest_first(names: list[str], earlier: dict[str, float]) -> list[str]:
    """``names`` by falling duration, so that no long one is left for the end; those never timed come first."""
    return sorted(names, key=lambda name: -earlier.get(name, float("inf")))


def _work(run: Run, out: Path) -> bool:
    """Run every job; False when interrupted, and then every process of the run has ended."""
    events: queue.Queue[tuple[str, object]] = queue.Queue()
    topic = next(iter(run.jobs.values())).topic
    client = run.crew.client
    client.subscribe_topic(topic, lambda event: events.put(("event", event[1])))
    waiting = deque(run.jobs)
    try:
        while waiting or run.running:
            while waiting and len(run.running) < run.crew.slots:
                name = waiting.popleft()
                run.jobs[name].output.unlink(missing_ok=True)
                run.jobs[name].output.parent.mkdir(parents=True, exist_ok=True)
                future = client.submit(execute_job, run.jobs[name], key=f"notebook-{run.jobs[name].mark}", pure=False)
                run.running[future] = name
                run.display.started(name)
                future.add_done_callback(lambda future: events.put(("done", future)))
            kind, item = events.get()
            if kind == "event":
                _note(run, item)
            else:
                name = run.running.pop(item)
                run.results[name] = _result(name, run.jobs[name], _outcome(item), out)
                run.display.ended(run.results[name])
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the kernels behind
        _stop(run, events, topic)
        return False
    finally:
        client.unsubscribe_topic(topic)
    return True


def _stop(run: Run, events: queue.Queue, topic: str) -> None:
    """Cancel what runs and wait until the workers have ended their processes."""
    run.display.console.print("stopping the notebooks …")
    run.crew.client.cancel(list(run.running))
    deadline = time.monotonic() + GRACE
    # A job submitted just before the interrupt may not have said "started" yet: give its event a moment.
    quiet = time.monotonic() + 1
    while run.alive or time.monotonic() < quiet:
        try:
            kind, item = events.get(timeout=0.25)
        except queue.Empty:
            if time.monotonic() > deadline:
                break
            continue
        if kind == "event":
            _note(run, item)
    end_processes(topic.removeprefix("course-") + ".")


def _note(run: Run, event: dict) -> None:
    """Keep track of what a worker says."""
    if event["event"] == "started":
        run.alive.add(event["mark"])
    elif event["event"] == "gone":
        run.alive.discard(event["mark"])
    else:
        name = next(name for name, job in run.jobs.items() if job.mark == event["mark"])
        if name in run.running.values():
            run.display.cell(name, event["done"], event["total"])


def _outcome(future: Future) -> Outcome:
    """What the worker returned, or why it returned nothing."""
    if future.status == "finished":
        return future.result()
    reason = str(future.exception()) if future.status == "error" else "the connection to the Dask scheduler was lost"
    error = {"name": "WorkerLost", "message": reason, "cell": None, "source": "", "traceback": ""}
    return Outcome("failed", 0.0, 0.0, error=error)


def _result(name: str, job: Job, outcome: Outcome, out: Path) -> NotebookResult:
    executed = read_executed(job.output)
    return NotebookResult(
        path=name,
        status=outcome.status,
        seconds=round(outcome.seconds, 3),
        peak_mib=round(outcome.peak_mib, 1),
        cells=outcome.cells,
        cells_done=outcome.cells_done,
        warnings=len(warning_messages(executed)) if executed else 0,
        error=outcome.error,
        executed=job.output.relative_to(out).as_posix() if executed else None,
    )


@contextlib.contextmanager
def _crew(request: Request, notebooks: int) -> Iterator[Crew]:
    """Dask workers: threads of this process (each only waits for its subprocess), or those of a running scheduler."""
    if request.scheduler is not None:
        with _connect(request.scheduler) as client:
            yield _remote_crew(client, request, notebooks)
        return
    cores = available_cores()
    slots = min(request.workers or min(cores, notebooks), notebooks)
    with (
        tempfile.TemporaryDirectory(prefix="course-dask-") as scratch,
        LocalCluster(
            n_workers=1,
            threads_per_worker=slots,
            processes=False,
            # None would be port 8787 on every interface: taken when a second run starts, and open to others
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,  # the notebooks' memory is not this process's
            local_directory=scratch,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Crew(client, slots, max(1, cores // slots))


def _connect(scheduler: str) -> Client:
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler`"
        raise BadRequest("--scheduler", message) from None


def _remote_crew(client: Client, request: Request, notebooks: int) -> Crew:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        message = f"the scheduler at {request.scheduler} has no workers; start some with `dask worker`"
        raise BadRequest("--scheduler", message)
    answers = client.run(survey, request.device, on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, Exception):
            raise BadRequest("--scheduler", f"worker {address} cannot run the course: {answer!r}")
        if answer["problem"]:
            raise BadRequest("--device", f"worker {address}: {answer['problem']}")
    slots_of_host: dict[str, int] = {}
    for info in workers.values():
        slots_of_host[info["host"]] = slots_of_host.get(info["host"], 0) + info["nthreads"]
    slots = min(request.workers or sum(slots_of_host.values()), sum(slots_of_host.values()), notebooks)
    threads = min(answers[a]["cores"] // min(slots_of_host[info["host"]], slots) for a, info in workers.items())
    return Crew(client, slots, max(1, threads))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal stop a run as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in [*numbers, signal.SIGINT]}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _outputs(names: dict[str, Path], out: Path, root: Path) -> dict[str, Path]:
    """Where each executed notebook goes: as in the course, or by its name alone for one from elsewhere."""
    for source in SOURCES:
        if out.is_relative_to(root / source):
            raise BadRequest("--out", f"{out} is inside {source}/, where nothing may be written")
    taken: dict[str, Path] = {}
    for name, path in names.items():
        place = Path(name) if path.is_relative_to(root) else Path(path.name)
        output, number = out / "notebooks" / place, 2
        while output in taken.values():
            output, number = out / "notebooks" / place.with_stem(f"{place.stem}-{number}"), number + 1
        if output in names.values():
            raise BadRequest("--out", f"the executed notebook would overwrite {path}")
        taken[name] = output
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest("--out", f"cannot make the folder {out}: {error}") from None
    return taken


def _facts(request: Request, crew: Crew, seconds: float) -> dict[str, object]:
    import torch

    return {
        "budget": request.budget,
        "seed": request.seed,
        "device": request.device,
        "notebooks at a time": crew.slots,
        "threads each": crew.threads,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ended": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
