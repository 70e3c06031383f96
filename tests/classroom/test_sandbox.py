"""Each promise of the sandbox, kept against an attack that works in an ordinary kernel in the same run.

The attacks touch nothing but files and loopback ports of the tests' own. What is shared by many of them: one ordinary
kernel and one in the sandbox, started in a hostile folder and environment.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync

from course_lib.classroom import attacks, attacks_on_system, sandbox
from course_lib.classroom.attack import TRIAL, Host, Kernel, KernelEnded, Trial, plan, processes_with
from course_lib.classroom.course import CourseError
from course_lib.classroom.sandbox import Limits, SandboxedKernelManager
from tests.classroom.sandboxes import needs_sandbox
from tests.classroom.tiny_course import ROOT

pytestmark = needs_sandbox


@dataclass
class Arena:
    """Two kernels, and what lies around them.

    Attributes:
        host: secrets of this machine for the attacks to find.
        stock, boxed: an ordinary kernel, and one in the sandbox.
        files: the submission's folder, the ordinary kernel's working directory.
        course: what an instructor has; a folder.
        package: an installed file, readable in the sandbox.
        output: where the output of this process goes, as far as the kernels know.
    """

    host: Host
    stock: Kernel
    boxed: Kernel
    files: Path
    course: Path
    package: Path
    output: tuple[Path, Path]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    root = tmp_path_factory.mktemp("arena")
    for folder in ("files", "course", "course/solutions", "packages", "ipc", "planted", "ipython", "host"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "course" / "solutions" / "a04.ipynb").write_text("the solution")
    (root / "course" / "gradebook.db").write_text("marks")
    (root / "packages" / "installed.py").write_text("honest = True")
    startup = root / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("started_by_home = True")
    (root / "planted" / "planted.py").write_text("")
    host = Host(root / "host")
    with pytest.MonkeyPatch.context() as patch, host.there():
        _hostile_files(root / "files", host)
        patch.setenv("PYTHONPATH", str(root / "planted"))
        patch.setenv("IPYTHONDIR", str(root / "ipython"))
        before = signal.signal(signal.SIGUSR1, lambda *_: None)  # an attack sends it to the parent
        outputs = (root / "stock.txt", root / "boxed.txt")
        stock = AsyncKernelManager(transport="ipc", ip=str(root / "ipc" / "k"))
        boxed = SandboxedKernelManager(limits=TRIAL, files=root / "files", readable=[root / "packages"])
        with (
            outputs[0].open("w") as stock_output,
            outputs[1].open("w") as boxed_output,
            Kernel(stock, cwd=root / "files", stdout=stock_output) as first,
            Kernel(boxed, cwd=root / "files", stdout=boxed_output, env=dict(os.environ)) as second,
        ):
            package = root / "packages" / "installed.py"
            yield Arena(host, first, second, root / "files", root / "course", package, outputs)
        signal.signal(signal.SIGUSR1, before)


def _hostile_files(files: Path, host: Host) -> None:
    """A submission with everything in it that should not be, and two honest files."""
    for module in ("course_lib", "safetensors", "sitecustomize", "usercustomize"):
        (files / f"{module}.py").write_text("shadow = True")
    (files / "link.txt").symlink_to(host.secret)
    (files / "linked").symlink_to(host.folder)
    os.link(host.secret, files / "second_name.txt")
    os.mkfifo(files / "pipe")
    (files / "a04.ipynb").write_text("hidden tests")
    (files / "matplotlibrc").write_text("backend: pdf")
    (files / ".profile").write_text("")
    (files / "helper.py").write_text("answer = 42")
    (files / "data").mkdir()
    (files / "data" / "points.csv").write_text("1,2")


def _trials(arena: Arena) -> list[Trial]:
    course = [str(arena.course / "solutions"), str(arena.course / "gradebook.db")]
    return plan(arena.host, [], course, course[1:], [str(arena.package)])


KINDS = [trial.attack.__name__ for trial in plan(Host(Path()), [], [], [], [])]


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_attack_works_in_an_ordinary_kernel_and_fails_in_the_sandbox(arena, number):
    trial = _trials(arena)[number]
    reached, why = arena.stock.attack(trial.attack, **trial.arguments)
    if not reached and (os.geteuid() != 0 or trial.attack is attacks.sees_interfaces):
        pytest.skip(f"this machine itself stops it: {why or 'nothing to reach'}")
    assert reached
    assert arena.boxed.attack(trial.attack, **trial.arguments)[0] == ""


def test_output_past_jupyter_does_not_reach_the_graders(arena):
    for kernel in (arena.stock, arena.boxed):
        kernel.attack(attacks.writes_to_descriptors, text="forged verdict\n")
        kernel.run("import os; os.write(1, b'forged\\n'); os.write(2, b'forged\\n')")
    assert "forged verdict" in arena.output[0].read_text()
    assert arena.output[1].read_text() == ""


def test_the_parent_survives_being_killed(arena):
    arena.boxed.run(
        "import os\nfor pid in (os.getppid(), 1, -1):\n    try:\n        os.kill(pid, 9)\n    except OSError: pass"
    )
    assert arena.boxed.run("print('alive')").strip() == "alive"


@pytest.mark.parametrize(
    ("code", "stock", "boxed"),
    [
        ("import course_lib; print(hasattr(course_lib, 'shadow'))", "True", "False"),
        ("import safetensors as s; print(hasattr(s, 'shadow'))", "True", "False"),
        ("import importlib.util as u; print(u.find_spec('planted') is not None)", "True", "False"),
        ("print('started_by_home' in globals())", "True", "False"),
        ("import os; print('IPYTHONDIR' in os.environ)", "True", "False"),
        ("import matplotlib; print(matplotlib.matplotlib_fname() == 'matplotlibrc')", "True", "False"),
        ("print(open('link.txt').read().startswith('course-'))", "True", "FileNotFoundError"),
        ("print(open('linked/secret.txt').read().startswith('course-'))", "True", "FileNotFoundError"),
        ("print(open('second_name.txt').read().startswith('course-'))", "True", "FileNotFoundError"),
        ("print(open('a04.ipynb').read())", "hidden tests", "FileNotFoundError"),
        ("import os; print(os.path.exists('pipe'), os.path.exists('.profile'))", "True True", "False False"),
        ("import socket; print(socket.gethostname())", platform.node(), "sandbox"),
    ],
)
def test_what_surrounds_the_kernel(arena, code, stock, boxed):
    assert arena.stock.run(code).strip().startswith(stock)
    assert arena.boxed.run(code).strip().startswith(boxed)


def test_files_of_a_submission_can_be_read_and_not_changed(arena):
    assert arena.boxed.run("print(open('data/points.csv').read())").strip() == "1,2"
    assert arena.boxed.run("import helper; print(helper.answer)").strip() == "42"
    assert "Read-only file system" in arena.boxed.run("open('data/points.csv', 'w')")
    assert arena.boxed.run("open('data/new', 'w').write('x'); print('written')").strip() == "written"
    assert not (arena.files / "data" / "new").exists()


def test_the_connection_file_stays_as_it_is(arena):
    assert arena.stock.attack(attacks.rewrites_the_connection_file)[0]
    assert arena.boxed.attack(attacks.rewrites_the_connection_file)[0] == ""


def test_a_link_in_place_of_a_socket_is_not_followed(arena, tmp_path):
    """The last test of the two shared kernels' sockets: the ordinary one's lead elsewhere afterwards."""
    assert _followed(arena.stock, tmp_path / "stock")
    assert not _followed(arena.boxed, tmp_path / "boxed")
    assert arena.boxed.run("print(1 + 1)").strip() == "2"


def _followed(kernel: Kernel, path: Path) -> bool:
    """Whether a client made after the attack connects to a socket of this test instead of the kernel's."""
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        service.settimeout(1)
        reached, why = kernel.attack(attacks.replaces_the_sockets, target=str(path))
        assert reached, why
        client = kernel.manager.blocking_client()
        client.start_channels(hb=False)
        try:
            service.accept()[0].close()
            return True
        except TimeoutError:
            return False
        finally:
            client.stop_channels()


def test_a_kernelspec_of_the_same_name_is_not_asked(monkeypatch, tmp_path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["/tmp/evil"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.delenv("JUPYTER_PREFER_ENV_PATH", raising=False)
    assert AsyncKernelManager().kernel_spec.argv == ["/tmp/evil"]
    assert SandboxedKernelManager().kernel_spec.argv == [sys.executable]


def test_messages_that_nobody_reads_do_not_fill_this_process(arena):
    """How many can still be read when the kernel is gone: these were in the memory of this process."""
    held = []
    for manager in (
        AsyncKernelManager(transport="ipc", ip=str(arena.files.parent / "ipc" / "m")),
        SandboxedKernelManager(),
    ):
        with Kernel(manager) as kernel:
            request = kernel.client.execute("for number in range(60):\n    print('x' * (1 << 20), flush=True)")
            while kernel.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != request:
                pass
            time.sleep(1)  # until all that can arrive has arrived
            os.killpg(manager.provisioner.pgid, signal.SIGKILL)
            messages = []
            while kernel.client.iopub_channel.socket.poll(200):
                messages.append(kernel.client.get_iopub_msg(timeout=1))
            held.append(sum(message["msg_type"] == "stream" for message in messages))
    assert held[0] > 40
    assert held[1] <= sandbox.QUEUED_MESSAGES + 2  # and what was on its way


def test_a_huge_message_does_not_arrive(arena, monkeypatch):
    monkeypatch.setattr(sandbox, "LARGEST_MESSAGE", 4 << 20)
    code = "print('x' * (5 << 20))"
    assert len(arena.stock.run(code)) > 5 << 20
    with Kernel(SandboxedKernelManager()) as kernel:
        assert len(kernel.run("print('x' * (3 << 20))")) > 3 << 20
        with pytest.raises(TimeoutError):  # the channel is cut off, with the news that the cell is done
            kernel.run(code, seconds=3)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """A small file that becomes 250 MB."""
    path = tmp_path_factory.mktemp("files") / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("zeros", "w") as file,
    ):
        for _ in range(250):
            file.write(bytes(1 << 20))
    return path


SMALL = Limits(memory_mib=200, small_files=2000, open_files=2000, wall_s=60)


@pytest.mark.parametrize(
    ("attack", "arguments", "limits", "verdict"),
    [
        (attacks_on_system.takes_memory, {"mib": 300}, SMALL, "used more than 200 MiB of memory"),
        (attacks_on_system.hides_and_takes_memory, {"mib": 300}, SMALL, "used more than 200 MiB of memory"),
        (attacks_on_system.unpacks, {"path": "bomb.zip"}, SMALL, "used more than 200 MiB of memory"),
        (attacks_on_system.makes_small_files, {"count": 20_000}, SMALL, "made more than 2000 files"),
        (attacks_on_system.holds_sockets, {"count": 3600}, SMALL, "held more than 2000 files open"),
        (
            attacks_on_system.ignores_interrupts,
            {"seconds": 90},
            Limits(cpu_s=2),
            "used more than 2 s of processor time",
        ),
        (attacks_on_system.ignores_interrupts, {"seconds": 90}, Limits(wall_s=5), "ran for more than 5 s"),
    ],
)
def test_too_much_ends_the_kernel_with_a_verdict(arena, bomb, attack, arguments, limits, verdict):
    if attack is not attacks_on_system.makes_small_files:  # not into this machine's /tmp
        stock_arguments = {k: str(bomb) if k == "path" else v for k, v in arguments.items()}
        if attack is attacks_on_system.ignores_interrupts:
            stock_arguments = {"seconds": 0.5}
        assert arena.stock.attack(attack, **stock_arguments)[0]
    manager = SandboxedKernelManager(limits=limits, files=bomb.parent)
    with Kernel(manager) as kernel, pytest.raises(KernelEnded, match=verdict):
        kernel.attack(attack, **arguments)
    assert re.fullmatch(verdict, manager.verdict)
    if "memory" in verdict:
        assert manager.peak_mib > limits.memory_mib


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import os; os._exit(3)", r"ended by its own code \(exit status 3\)"),
        ("import ctypes; ctypes.string_at(0)", r"crashed \(SIGSEGV, Segmentation fault\)"),
    ],
)
def test_the_verdict_on_a_kernel_that_ends_itself(code, verdict):
    with Kernel(SandboxedKernelManager()) as kernel, pytest.raises(KernelEnded, match=verdict):
        kernel.run(code)


def test_nothing_outlives_the_kernel(arena):
    mark = f"{arena.host.mark}-orphan"
    with Kernel(AsyncKernelManager(transport="ipc", ip=str(arena.files.parent / "ipc" / "o"))) as stock:
        assert stock.attack(attacks.leaves_an_orphan, mark=mark)[0]
    outlived = processes_with(mark)
    for pid in outlived:
        os.kill(pid, signal.SIGKILL)
    assert outlived
    manager = SandboxedKernelManager()
    with Kernel(manager) as boxed:
        box = Path(manager.connection_file).parent
        assert boxed.attack(attacks.leaves_an_orphan, mark=f"{mark}-boxed")[0]
        assert len(processes_with(f"{mark}-boxed")) == 1
    assert processes_with(f"{mark}-boxed") == []
    assert manager.verdict is None  # this end was asked for
    assert not box.exists()


def test_a_grader_that_is_killed_takes_its_kernels_along(arena, tmp_path):
    mark = f"{arena.host.mark}-left"
    code = (
        "import sys\nfrom course_lib.classroom import attacks\nfrom course_lib.classroom.attack import Kernel\n"
        "from course_lib.classroom.sandbox import SandboxedKernelManager\n"
        "with Kernel(SandboxedKernelManager()) as kernel:\n"
        f"    kernel.attack(attacks.leaves_an_orphan, mark='{mark}')\n"
        "    print('ready', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # which a killed process does not tidy up
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as grader:
        assert grader.stdout.readline() == b"ready\n"
        assert processes_with(mark)
        grader.kill()
    deadline = time.monotonic() + 10
    while processes_with(f"{mark}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_with(mark) == []


def test_an_honest_notebook_has_what_it_needs():
    ours, theirs = socket.socketpair()
    with ours, theirs, Kernel(SandboxedKernelManager(passed_fd=theirs.fileno())) as kernel:
        theirs.close()
        assert kernel.run(
            "import os, torch, course_lib.core\nfrom course_lib.data import load\n"
            "print(torch.get_num_threads(), os.environ['COURSE_HEADLESS'], load('digits8', 'val').x.shape[1:])"
        ).startswith("1 1 torch.Size(")
        kernel.run("import socket; socket.socket(fileno=int(os.environ['COURSE_SEAL_FD'])).sendall(b'through')")
        assert ours.recv(7) == b"through"
        plotted = kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.get_backend())")
        assert plotted.strip() == "module://matplotlib_inline.backend_inline"  # and no warning
        request = kernel.client.execute("import time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(0.01)")
        while kernel.client.get_iopub_msg(timeout=20)["content"].get("text") != "begun\n":
            pass
        run_sync(kernel.manager.interrupt_kernel)()
        reply = kernel.client.get_shell_msg(timeout=20)
        while reply["parent_header"]["msg_id"] != request:
            reply = kernel.client.get_shell_msg(timeout=20)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        run_sync(kernel.manager.restart_kernel)(now=True)
        kernel.client.wait_for_ready(timeout=30)
        assert kernel.run("print('os' in globals())").strip() == "False"
        assert kernel.manager.peak_mib > 20


@pytest.mark.parametrize("path", [ROOT, ROOT / "solutions", ROOT / "tests" / "classroom"])
def test_the_course_itself_is_never_shown(path):
    with pytest.raises(CourseError, match="submissions must not read"):
        run_sync(SandboxedKernelManager(readable=[path]).start_kernel)()


def test_too_many_files_are_refused(tmp_path):
    for number in range(501):
        (tmp_path / str(number)).touch()
    with pytest.raises(CourseError, match="more than 500 files"):
        run_sync(SandboxedKernelManager(files=tmp_path).start_kernel)()
