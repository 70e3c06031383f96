"""Who grades: this process, Dask workers on this machine, or those of a running scheduler; a few tasks in flight.

Tasks are submitted as results come back, so neither this process nor the scheduler ever holds the whole class.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace

import dask
import psutil

from course_lib.classroom import sandbox
from course_lib.classroom.course import CourseError
from course_lib.classroom.execution import ExecutionOptions
from course_lib.classroom.processes import descendants
from course_lib.classroom.scores import Mark
from course_lib.classroom.submission import (
    Execute,
    Graded,
    Submission,
    execute_submission,
    grade_one,
    grader_version,
    kernel_environment,
)
from course_lib.core import thread_limit
from course_lib.core.device import available_cores

# Dask logs what it also raises, and every connection that an interrupt cuts. Workers read this when they start.
QUIET = dict.fromkeys(("distributed", "distributed.client"), "critical")
# Submissions travel inside the tasks, which Dask would otherwise warn about.
dask.config.set({"logging": QUIET, "distributed.admin.large-graph-warning-threshold": "1GiB"})
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin  # noqa: E402
from distributed.comm import CommClosedError  # noqa: E402

for name, level in QUIET.items():  # where another module has imported distributed before
    logging.getLogger(name).setLevel(level.upper())

CONNECT_SECONDS = 5
AHEAD = 2  # tasks in flight for each that runs, so that no worker waits for this process
GRACE = 10.0  # seconds for kernels to end after an interrupt
LOOK_SECONDS, NO_WORKERS_SECONDS = 5.0, 60.0  # how often to look for workers, and how long to wait for one
TRIES = 3  # of one submission, when the connection to its worker is lost
LOST = "the connection to the Dask scheduler was lost; --resume goes on from here"


@dataclass(frozen=True)
class Place:
    """Where to grade.

    Attributes:
        workers: submissions at a time; None: as many as `fitting` says, or as the scheduler's workers take.
        scheduler: address of a running Dask scheduler; None: this machine.
    """

    workers: int | None = None
    scheduler: str | None = None


def carry_out(
    tasks: Iterable[Submission], place: Place, execute: Execute = execute_submission
) -> Iterator[tuple[Submission, Graded]]:
    """Grade `tasks`, each once, and give back every one with its result, in the order in which they end.

    Args:
        tasks: taken one at a time, when a worker is about to be free.
        place: where.
        execute: what runs a normalized notebook.

    Raises:
        CourseError: no scheduler there, its workers cannot grade or are gone, or the connection to it was lost.
    """
    tasks = iter(tasks)
    task = next(tasks, None)
    if task is None:
        return
    if place.scheduler is not None:
        with _connect(place.scheduler) as client:
            slots = _survey(client, place.scheduler, task.options.sandbox)
            slots = min(slots, place.workers or slots)
            yield from _with_dask(itertools.chain([task], tasks), client, slots, execute)
        return
    first = [task, *itertools.islice(tasks, (place.workers or fitting(task.options)) - 1)]
    if len(first) > 1:
        with _local_cluster(len(first)) as client:
            yield from _with_dask(itertools.chain(first, tasks), client, len(first), execute)
        return
    others = set(descendants(os.getpid()))
    with kernel_environment():  # one at a time needs no other process
        for task in itertools.chain(first, tasks):
            yield task, _grade_here(task, execute, others)


def fitting(options: ExecutionOptions) -> int:
    """How many submissions this machine grades at a time: one a core, while each has all the memory that it may use.

    Otherwise a few greedy ones could bring the system to end the kernels of others.
    """
    if not options.sandbox:
        return available_cores()
    each = 2 * options.limits.memory_mib << 20  # two kernels
    return max(1, min(available_cores(), psutil.virtual_memory().total // each))


def _grade_here(task: Submission, execute: Execute, others: set[psutil.Process]) -> Graded:
    """Grade in a thread of this process; an interrupt ends all its processes but `others`.

    In the main thread nbclient would take Ctrl-C for itself and end the kernel, which would look like a failure of the
    submission.
    """
    done: queue.Queue[Graded] = queue.Queue()
    threading.Thread(target=lambda: done.put(grade_one(task, execute)), daemon=True).start()
    try:
        return done.get()
    except BaseException:
        with _uninterrupted():
            deadline = time.monotonic() + GRACE
            while (started := set(descendants(os.getpid())) - others) and time.monotonic() < deadline:
                _kill(started)
                time.sleep(0.05)
        raise


def _with_dask(
    tasks: Iterable[Submission], client: Client, slots: int, execute: Execute
) -> Iterator[tuple[Submission, Graded]]:
    ended: queue.Queue[Future] = queue.Queue()
    running: dict[Future, tuple[Submission, int]] = {}

    def start(task: Submission, tries: int) -> None:
        # pure=False: a key of its own, or Dask would give two equal submissions one result, and one student's name
        future = client.submit(grade_one, task, execute, pure=False)
        running[future] = task, tries
        future.add_done_callback(ended.put)

    waiting, more = iter(tasks), True
    try:
        while more or running:
            while more and len(running) < AHEAD * slots:
                task = next(waiting, None)
                if task is None:
                    more = False
                else:
                    start(task, 1)
            if not running:
                break
            future = _next(ended, client)
            task, tries = running.pop(future)
            try:
                graded = future.result()
            except (CommClosedError, ConnectionError) as error:
                if tries < TRIES:
                    start(task, tries + 1)
                    continue
                graded = _lost(task, f"the connection to its worker was lost {tries} times ({error})")
            except KilledWorker:
                graded = _lost(task, "the workers that graded it died again and again (out of memory?)")
            except CancelledError:
                raise CourseError(LOST) from None
            future.release()
            yield task, graded
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone; what matters has been given back
            client.cancel(list(running))


def _next(ended: queue.Queue[Future], client: Client) -> Future:
    """The next task that has ended; dead workers come back or are replaced, or somebody has to know."""
    without = 0.0
    while True:
        try:
            return ended.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            try:
                without = 0.0 if client.nthreads() else without + LOOK_SECONDS
            except (OSError, TimeoutError):  # the scheduler is gone
                raise CourseError(LOST) from None
            if without >= NO_WORKERS_SECONDS:
                raise CourseError(
                    f"the Dask scheduler has had no workers for {NO_WORKERS_SECONDS:g} s; start some, then --resume"
                ) from None


def _lost(task: Submission, problem: str) -> Graded:
    """A result that the next run does not take for one: its key is empty."""
    return Graded(replace(Mark(task.student, task.assignment.name, notes=task.notes), problem=problem))


class Prepare(WorkerPlugin):
    """Keeps each worker to its share of this machine's cores; imports of the task happen here, once a worker.

    Args:
        workers: how many share the machine.
    """

    name = "course-grade"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def setup(self, worker: Worker) -> None:
        """Called by Dask when a worker starts, also in place of one that died."""
        if hasattr(os, "sched_setaffinity"):
            cores = share(sorted(os.sched_getaffinity(0)), int(worker.name), self.workers)
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
                    os.sched_setaffinity(int(thread), cores)


def share(cores: list[int], number: int, workers: int) -> list[int]:
    """The cores of worker `number` of `workers`: equal parts, or one core for several workers if there are too few."""
    if workers >= len(cores):
        return [cores[number % len(cores)]]
    return cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[Client]:
    """Worker processes of one thread each; when this ends, for whatever reason, they and their kernels are gone."""
    environment = {**thread_limit(1), "COURSE_HEADLESS": "1", "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": ""}
    started: list[psutil.Process] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="course-dask-", ignore_cleanup_errors=True) as scratch,
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # its page is not used; a fixed port may be taken
                memory_limit=0,  # the kernels' memory is the sandbox's business
                local_directory=scratch,
                env=environment,
            ) as cluster,
            Client(cluster) as client,
        ):
            client.register_plugin(Prepare(workers))
            try:
                yield client
            finally:
                with _uninterrupted():
                    for worker in cluster.workers.values():
                        started += descendants(worker.pid)
                    client.close()
                    cluster.close()
    finally:
        _kill(started)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil compares creation times: never a recycled pid
            process.kill()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave kernels behind."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _connect(scheduler: str) -> Client:
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler`"
        raise CourseError(message) from None


def _survey(client: Client, scheduler: str, sandboxed: bool) -> int:
    """How many submissions the scheduler's workers take at a time.

    Raises:
        CourseError: it has no workers, or one that cannot grade as this machine does.
    """
    threads = client.nthreads()
    if not threads:
        raise CourseError(f"the scheduler at {scheduler} has no workers; start some with `dask worker`")
    for address, answer in client.run(abilities, on_error="return").items():
        if isinstance(answer, Exception):
            raise CourseError(f"worker {address} cannot grade: {answer!r}")
        if answer["version"] != grader_version():
            raise CourseError(f"worker {address} has another version of the course, nbgrader, numpy or torch than this")
        if sandboxed and answer["refusal"]:
            raise CourseError(f"worker {address}: {answer['refusal']}")
    return sum(threads.values())


def abilities() -> dict[str, str]:
    """What the client asks every worker before it sends work: version, and why it cannot contain a submission."""
    try:
        sandbox.require()
    except CourseError as error:
        return {"version": grader_version(), "refusal": str(error)}
    return {"version": grader_version(), "refusal": ""}
