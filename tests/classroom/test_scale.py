"""A class on Dask: workers that die, runs that are interrupted, and a parent that stays small and writes alone."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed import KilledWorker
from distributed.comm import CommClosedError
from nbformat.v4 import new_code_cell, new_output

from course_lib.classroom import workforce
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.execution import Executed, ExecutionOptions
from course_lib.classroom.feedback import write_feedback
from course_lib.classroom.grade import Choices, answered, grade, instructors_part
from course_lib.classroom.register import Register
from course_lib.classroom.release import generate
from course_lib.classroom.sandbox import Limits
from course_lib.classroom.submission import Submission, grade_one, hand_in
from course_lib.classroom.workforce import AHEAD, TRIES, Place, carry_out
from tests.classroom.stand_in import execute_here
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course, tiny_notebook, write

PATIENCE = 180  # seconds until a test gives up; never asserted on
IMPORTS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # workers import the stand-in


class Room:
    """A course whose submissions write down when they begin and end; those of `stuck` wait for the file `go`."""

    def __init__(self, folder: Path, students: list[str], stuck: tuple[str, ...] = ()) -> None:
        self.root = make_course(folder / "course")
        self.inbox, self.log, self.go = folder / "inbox", folder / "log.txt", folder / "go"
        self.log.touch()
        self.students = students
        with_answers = answered(tiny_notebook(), tiny_notebook())
        for student in students:
            notebook = answered(with_answers, with_answers)
            notebook.cells.insert(0, new_code_cell(self._cell(student, "begin")))
            if student in stuck:
                wait = f"import time\nwhile not Path({str(self.go)!r}).exists():\n    time.sleep(0.02)"
                notebook.cells.insert(1, new_code_cell(wait))
            notebook.cells.append(new_code_cell(self._cell(student, "end")))
            write(self.inbox / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", notebook)

    def _cell(self, student: str, what: str) -> str:
        line = f"{student} {what}"
        return (
            "import os\nfrom pathlib import Path\n"
            f"with open({str(self.log)!r}, 'a') as log:\n    log.write(f'{line} {{os.getpid()}}\\n')"
        )

    def lines(self, what: str) -> list[tuple[str, int]]:
        """(student, pid) of the lines in the log."""
        split = [line.split() for line in self.log.read_text().splitlines()]
        return [(student, int(pid)) for student, kind, pid in split if kind == what]

    def gradebook(self) -> Counter[str]:
        """How many submissions with full automatic marks each student has in the gradebook."""
        query = """select a.student_id from grade g join submitted_notebook n on g.notebook_id = n.id
                   join submitted_assignment a on n.assignment_id = a.id group by a.id having sum(g.auto_score) = 6"""
        with contextlib.closing(sqlite3.connect(self.root / "classroom_data" / "gradebook.db")) as connection:
            return Counter(student for (student,) in connection.execute(query))

    def course(self) -> Course:
        return Course.at(self.root)


def tasks_of(room: Room, sandbox: bool = False) -> Iterator[Submission]:
    course = room.course()
    ours = instructors_part(course, generate(course, [ASSIGNMENT], room.root / "out") / ASSIGNMENT)
    for student in room.students:
        yield hand_in(room.inbox / student / ASSIGNMENT, student, ours, ExecutionOptions(sandbox=sandbox))


def names(number: int) -> list[str]:
    return [f"s{i:03d}" for i in range(number)]


def until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def scheduler(tmp_path) -> Iterator[str]:
    """Address of a Dask scheduler on loopback with two worker processes of one thread each."""
    where = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": IMPORTS, "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    commands = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where)],
        *2 * [[*dask, "worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-nanny", "--no-dashboard"]],
    ]
    processes = [subprocess.Popen(command, **quiet) for command in commands]
    try:
        until(where.is_file, "the scheduler")
        address = json.loads(where.read_text())["address"]
        with workforce._connect(address) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        yield address
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_worker_killed_in_the_middle_costs_no_submission_and_none_is_graded_twice(tmp_path, scheduler):
    room = Room(tmp_path, names(8), stuck=("s003",))
    announced: list[str] = []

    def kill_the_worker() -> None:
        until(lambda: "s003" in dict(room.lines("begin")), "s003 to begin")
        victim = dict(room.lines("begin"))["s003"]
        # what that worker has finished must be here before it dies, or it is lost with it and rightly made again
        until(lambda: {s for s, pid in room.lines("end") if pid == victim} <= set(announced), "its earlier results")
        os.kill(victim, signal.SIGKILL)
        room.go.touch()

    killer = threading.Thread(target=kill_the_worker, daemon=True)
    killer.start()
    choices = Choices(Place(scheduler=scheduler), sandbox=False)
    class_ = grade(room.root, ASSIGNMENT, room.inbox, None, choices, lambda s, i, of: announced.append(s), execute_here)
    killer.join()
    assert sorted(announced) == room.students and class_.outcome == {"committed": 8}
    assert {mark.problem for mark in class_} == {""} and {mark.score(manual=False) for mark in class_} == {6}
    assert room.gradebook() == Counter(room.students)
    ended = Counter(student for student, _ in room.lines("end"))
    assert ended == Counter(room.students)
    assert len([pid for student, pid in room.lines("begin") if student == "s003"]) == 2
    assert len({pid for _, pid in room.lines("begin")}) == 2  # both workers had work


def test_tasks_are_made_as_workers_get_free(tmp_path, scheduler):
    room = Room(tmp_path, names(14))
    made = returned = most = 0

    def counted() -> Iterator[Submission]:
        nonlocal made, most
        for task in tasks_of(room):
            made += 1
            most = max(most, made - returned)
            yield task

    for task, graded in carry_out(counted(), Place(scheduler=scheduler), execute_here):
        returned += 1
        assert (graded.mark.student, graded.mark.problem) == (task.student, "")
    assert (made, returned) == (14, 14)
    assert most <= AHEAD * 2


@pytest.mark.parametrize("workers", [1, 2])  # in the process itself, and with Dask
def test_interrupt_and_resume(tmp_path, workers):
    stuck = ("s003", "s004", "s005")
    room = Room(tmp_path, names(6), stuck)
    tag = f"scale-{os.getpid()}-{tmp_path}"
    environment = {**os.environ, "PYTHONPATH": IMPORTS, "COURSE_TEST_MARK": tag}
    command = [sys.executable, "-m", "tests.classroom.grade_with_stand_in", str(room.root), str(room.inbox)]
    command.append(str(workers))
    results = room.root / "classroom_data" / "results" / ASSIGNMENT
    # a shell that starts the tests in the background has interrupts ignored, and an ignored signal is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = tmp_path / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        until(lambda: len(list(results.glob("*.json"))) == 3 and len(room.lines("begin")) == 3 + workers, "results")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to workers as well
        assert process.wait(PATIENCE) == 130, log.read_text()
    assert "interrupted" in log.read_text() and "--resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    until(lambda: not marked(tag), "workers to be gone")
    assert sorted(path.stem for path in results.glob("*.json")) == ["s000", "s001", "s002"]
    assert sorted(room.gradebook()) == ["s000", "s001", "s002"]

    room.go.touch()
    again = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 written to the gradebook" in again.stdout and "3 unchanged, not graded again" in again.stdout
    assert Counter(student for student, _ in room.lines("end")) == Counter(room.students)
    assert room.gradebook() == Counter(room.students)


def marked(tag: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("COURSE_TEST_MARK") == tag:
                found.append(process)
    return found


def bulky(notebook, source, files, student_seed, options) -> Executed:
    """An execution with much output."""
    executed = execute_here(notebook, source, files, student_seed, options)
    executed.notebook.cells[0].outputs = [new_output("stream", name="stdout", text=os.urandom(150_000).hex())]
    return executed


def test_the_parents_memory_does_not_grow_with_the_class(tmp_path):
    room = Room(tmp_path, names(1))
    for student in names(200)[1:]:
        shutil.copytree(room.inbox / "s000", room.inbox / student)
    resident: dict[int, int] = {}

    def measure(student: str, number: int, of: int) -> None:
        if number in (50, 200):
            gc.collect()
            resident[number] = psutil.Process().memory_info().rss

    class_ = grade(room.root, ASSIGNMENT, room.inbox, None, Choices(Place(1), sandbox=False), measure, bulky)
    assert class_.outcome == {"committed": 200}
    notebook = room.root / "classroom_data" / "autograded" / "s100" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    kept = 150 * notebook.stat().st_size  # what a list of the results would hold
    assert kept > 40 * 2**20
    assert resident[200] - resident[50] < kept / 4
    assert sum(mark.score(manual=False) == 6 for mark in class_) == 200


def test_workers_know_nothing_of_the_gradebook_and_only_one_run_writes(tmp_path):
    room = Room(tmp_path, names(2))
    for task in tasks_of(room):
        assert str(room.root).encode() not in pickle.dumps(task)
    with (
        Register(room.course(), ASSIGNMENT, write_feedback),
        pytest.raises(CourseError, match="another `course grade` is writing"),
    ):
        grade(room.root, ASSIGNMENT, room.inbox, None, Choices(Place(1), sandbox=False), execute=execute_here)
    assert room.lines("begin") == []
    grade(room.root, ASSIGNMENT, room.inbox, None, Choices(Place(1), sandbox=False), execute=execute_here)
    assert room.gradebook() == Counter(room.students)


class Flaky:
    """A Dask client whose futures fail in a given way the first times."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.submitted = error, times, 0

    def submit(self, function, *arguments, pure):
        self.submitted += 1
        return Future(function, arguments, self.error if self.submitted <= self.times else None)

    def cancel(self, futures):
        assert futures == []


class Future:
    def __init__(self, function, arguments, error):
        self.function, self.arguments, self.error = function, arguments, error

    def add_done_callback(self, callback):
        callback(self)

    def result(self):
        if self.error:
            raise self.error
        return self.function(*self.arguments)

    def release(self):
        pass


@pytest.mark.parametrize(
    ("error", "times", "submitted", "problem"),
    [
        (CommClosedError("gone"), TRIES - 1, TRIES, ""),
        (ConnectionResetError("gone"), TRIES - 1, TRIES, ""),
        (CommClosedError("gone"), TRIES, TRIES, "the connection to its worker was lost"),
        (KilledWorker("task", None, 3), 1, 1, "died again and again"),
    ],
)
def test_only_the_machinery_is_tried_again(tmp_path, error, times, submitted, problem):
    room = Room(tmp_path, names(1))
    client = Flaky(error, times)
    [(_, graded)] = workforce._with_dask(tasks_of(room), client, 1, execute_here)
    assert client.submitted == submitted
    assert problem in graded.mark.problem and bool(problem) == bool(graded.mark.problem)
    assert bool(graded.mark.key) != bool(problem)  # without a key, a resumed run tries once more


def test_a_submissions_own_failure_is_its_result(tmp_path):
    room = Room(tmp_path, names(1))
    calls = []

    def fails(*arguments) -> Executed:
        calls.append(arguments)
        raise ValueError("half a notebook")

    client = Flaky(ConnectionError(), 0)
    [(_, graded)] = workforce._with_dask(tasks_of(room), client, 1, fails)
    assert (len(calls), client.submitted) == (1, 1)
    assert graded.mark.problem == "the grader itself failed on it: ValueError: half a notebook"
    [task] = tasks_of(room)
    assert grade_one(task, execute_here).mark.problem == ""


def without_parts() -> dict[str, str]:
    return {"version": workforce.grader_version(), "refusal": "apt-get install bubblewrap"}


def test_no_scheduler_and_no_such_worker(tmp_path, scheduler, monkeypatch):
    room = Room(tmp_path, names(1))
    with pytest.raises(CourseError, match="no Dask scheduler answers"):
        list(carry_out(tasks_of(room), Place(scheduler="tcp://127.0.0.1:1"), execute_here))
    real = workforce.grader_version
    monkeypatch.setattr(workforce, "abilities", without_parts)
    with pytest.raises(CourseError, match="apt-get install bubblewrap"):
        list(carry_out(tasks_of(room, sandbox=True), Place(scheduler=scheduler), execute_here))
    [(_, graded)] = carry_out(tasks_of(room), Place(scheduler=scheduler), execute_here)  # which nobody has to contain
    assert graded.mark.problem == ""
    monkeypatch.setattr(workforce, "grader_version", lambda: f"not {real()}")
    with pytest.raises(CourseError, match="has another version of the course"):
        list(carry_out(tasks_of(room), Place(scheduler=scheduler), execute_here))


def test_each_worker_has_its_share_of_the_cores():
    assert [workforce.share([0, 1, 2, 3], i, 2) for i in range(2)] == [[0, 1], [2, 3]]
    assert [workforce.share([4, 5, 7], i, 2) for i in range(2)] == [[4], [5, 7]]
    assert [workforce.share([0, 1], i, 3) for i in range(3)] == [[0], [1], [0]]


def test_no_more_at_a_time_than_have_all_the_memory_they_may_use(monkeypatch):
    monkeypatch.setattr(workforce, "available_cores", lambda: 8)
    for gib, number in {1: 1, 9: 2, 17: 4, 64: 8}.items():
        monkeypatch.setattr(psutil, "virtual_memory", lambda gib=gib: SimpleNamespace(total=gib << 30))
        assert workforce.fitting(ExecutionOptions(limits=Limits(memory_mib=2048))) == number
        assert workforce.fitting(ExecutionOptions(sandbox=False)) == 8


def test_a_scheduler_without_workers_is_not_waited_for_forever(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(workforce, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(workforce, "NO_WORKERS_SECONDS", 1.0)
    room = Room(tmp_path, names(2), stuck=("s000", "s001"))

    def kill_both() -> None:
        until(lambda: len(room.lines("begin")) == 2, "both to begin")
        for _, pid in room.lines("begin"):
            psutil.Process(pid).kill()

    threading.Thread(target=kill_both, daemon=True).start()
    with pytest.raises(CourseError, match="has had no workers"):
        list(carry_out(tasks_of(room), Place(scheduler=scheduler), execute_here))
