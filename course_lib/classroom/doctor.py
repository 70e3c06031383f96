"""``course doctor``: can this machine run the course, and if not, what helps?"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

OLDEST_PYTHON = (3, 11)
INSTALL = "run `make setup`, or `pip install -c constraints.txt -e .`"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is well, what was found, and how to fix it."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything; a part that cannot even be looked at is a problem of its own and hides no other."""
    findings: list[Finding] = []
    for look in (_python, _torch, _device, _data, _kernel, _lab, _widgets, _sandbox):
        try:
            findings += look()
        except Exception as error:  # a broken installation fails in unforeseeable ways; each is a finding
            name = look.__name__.strip("_")
            findings.append(Finding(name, False, f"{type(error).__name__}: {error}", INSTALL))
    return findings


def show(findings: list[Finding], console: Console) -> None:
    """A line for each finding, and a last one that says how many are wrong."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        state = Text("ok", style="green") if finding.ok else Text("problem", style="bold red")
        detail = Text(finding.found)
        if finding.fix:
            detail.append(f"\n→ {finding.fix}", style="cyan")
        table.add_row(state, finding.name, detail)
    console.print(table)
    wrong = sum(not finding.ok for finding in findings)
    if wrong:
        console.print(f"\n[red]{wrong} problem{'s' * (wrong != 1)}[/red]; the arrows say how to fix them")
    else:
        console.print("\n[green]This machine can run the course.[/green]")


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    yield Finding("Python", ok, f"{version} at {sys.executable}", "" if ok else f"install Python {oldest} or newer")


def _torch() -> Iterator[Finding]:
    import torch

    works = torch.equal(torch.ones(2, 2) @ torch.ones(2, 2), torch.full((2, 2), 2.0))
    yield Finding("torch", works, torch.__version__, "" if works else INSTALL)


def _device() -> Iterator[Finding]:
    import torch

    from course_lib.core.device import available_cores, describe_device

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding("device", True, describe_device(torch.device("cuda", index)))
        return
    cores = available_cores()
    yield Finding("device", True, f"CPU, {cores} core{'s' * (cores != 1)}")
    gpus = _gpus_of_driver()
    if gpus:
        build = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "was built without CUDA"
        fix = "install a CUDA build of torch that suits the driver (README, “On a GPU”)"
        yield Finding("GPU", False, f"{gpus[0]} is here, but torch {torch.__version__} {build} and cannot use it", fix)


def _gpus_of_driver() -> list[str]:
    """Names of the GPUs that NVIDIA's driver sees, whatever torch thinks."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run(
        [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=False
    )
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()] if listed.returncode == 0 else []


def _data() -> Iterator[Finding]:
    from course_lib.data import NAMES, load
    from course_lib.data.dataset import MissingDataPackage
    from course_lib.data.toy2d import DENSITIES

    for name in (name for name in NAMES if name not in DENSITIES):
        yield _loads(f"data: {name}", lambda: str(tuple(load(name, "train").x.shape)), MissingDataPackage)
    yield _loads(
        "data: toy2d", lambda: f"{sum(len(load(n, 'val').x) > 0 for n in DENSITIES)} densities", MissingDataPackage
    )


def _loads(name: str, describe: Callable[[], str], missing: type[ImportError]) -> Finding:
    try:
        return Finding(name, True, describe())
    except missing as error:
        what, _, fix = str(error).partition("; ")
        return Finding(name, False, what, fix)
    except Exception as error:  # an installed package whose pictures cannot be read
        return Finding(name, False, f"{type(error).__name__}: {error}", INSTALL)


def _kernel() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    importlib.import_module("ipykernel")
    fix = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        yield Finding("Jupyter kernel", False, "no kernel `python3`", fix)
        return
    # jupyter_client runs a bare `python` with the interpreter that it runs under itself
    if Path(command).is_absolute() and Path(command) != Path(sys.executable):
        yield Finding("Jupyter kernel", False, f"python3 runs {command}, not this Python", fix)
    else:
        yield Finding("Jupyter kernel", True, "python3, this Python")


def _lab() -> Iterator[Finding]:
    yield Finding("JupyterLab", True, importlib.import_module("jupyterlab").__version__)


def _widgets() -> Iterator[Finding]:
    """ipywidgets in the kernel, and its other half among JupyterLab's extensions: without it a slider is plain text."""
    from jupyter_core.paths import jupyter_path

    python = importlib.import_module("ipywidgets").__version__
    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    for folder in jupyter_path("labextensions"):
        manifest = Path(folder) / extension
        if manifest.is_file():
            version = json.loads(manifest.read_text())["version"]
            yield Finding("widgets", True, f"ipywidgets {python}, JupyterLab extension {version}")
            return
    fix = "`pip install --force-reinstall -c constraints.txt jupyterlab_widgets`"
    yield Finding("widgets", False, f"ipywidgets {python}, but JupyterLab lacks its extension", fix)


def _sandbox() -> Iterator[Finding]:
    """For instructors only, so what is missing is said but is no problem."""
    from course_lib.classroom.course import CourseError
    from course_lib.classroom.sandbox import require

    try:
        require()
    except CourseError as error:
        yield Finding("grading", True, f"not on this machine: {error}")
    else:
        yield Finding("grading", True, "a sandbox can be made; `course doctor --grading` attacks it")
