"""Conda users, pip users and CI must have the very same packages, and the code must name what it uses."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SEVEN = {"torch", "jupyterlab", "ipywidgets", "matplotlib", "nbgrader", "papermill", "numpy"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# import name → distribution, where they differ
DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
    "IPython": "ipython",
    "dask": "dask",
}
# installed by a package that the project names: distributed → dask, ipykernel → ipython and traitlets, …
BROUGHT_ALONG = {
    "dask": "distributed",
    "ipython": "ipykernel",
    "jupyter-client": "nbclient",
    "jupyter-core": "nbclient",
    "packaging": "pytest",
    "sqlalchemy": "nbgrader",
    "traitlets": "ipykernel",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(NAME.match(r)[0]) for r in requirements}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    lines = [line.split("#")[0].strip() for line in lines]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;,*]+)", line) for line in lines if line]
    assert all(found), "every line of constraints.txt must be an exact pin"
    result = {normal(m[1]): m[2] for m in found}
    assert len(result) == len(found), "a package is pinned twice"
    return result


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def by_pip(conda) -> list[str]:
    (sections,) = [d["pip"] for d in conda["dependencies"] if isinstance(d, dict)]
    return sections


def test_torch_is_the_agreed_version(pins):
    assert pins["torch"] == "2.13.0"


def test_what_the_project_needs_is_pinned(project, pins):
    wanted = names(project["dependencies"]) | names(project["optional-dependencies"]["dev"])
    assert wanted <= set(pins), f"add to constraints.txt: {sorted(wanted - set(pins))}"
    assert names(project["dependencies"]) >= SEVEN


def test_versions_stand_in_one_place(project):
    """A version in pyproject.toml could disagree with constraints.txt."""
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        assert NAME.fullmatch(requirement), requirement


def test_installed_is_what_is_pinned(project, pins):
    wanted = names(project["dependencies"]) | names(project["optional-dependencies"]["dev"])
    wrong = {}
    for name, version in pins.items():
        try:
            installed = importlib.metadata.version(name).split("+")[0]  # 2.13.0+cpu is a build of 2.13.0
        except importlib.metadata.PackageNotFoundError:
            installed = None
        # a package that only other platforms need may be missing, one that the project names may not
        if installed != version and not (installed is None and name not in wanted):
            wrong[name] = (installed, version)
    assert not wrong, f"installed, pinned: {wrong}; run `make setup`"


def test_what_the_named_packages_need_is_pinned_too(pins):
    """Else two machines that install on different days differ."""
    waiting, seen = ["course_lib[dev]"], set()
    while waiting:
        requirement = Requirement(waiting.pop())
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key in seen or key[0].startswith(("nvidia-", "cuda-", "triton")):  # of torch's CUDA builds, which pins them
            continue
        seen.add(key)
        for text in importlib.metadata.requires(requirement.name) or []:
            marker = Requirement(text).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}):
                waiting.append(text)
    needed = {name for name, _ in seen} - {"course-lib", "pip", "setuptools", "wheel"}
    assert len(needed) > 100
    assert needed <= set(pins), f"add to constraints.txt: {sorted(needed - set(pins))}"


def test_conda_gives_python_and_pip_only(conda, project):
    assert conda["name"] and conda["channels"] == ["conda-forge"]
    plain = [d for d in conda["dependencies"] if isinstance(d, str)]
    assert names(plain) == {"python", "pip"}, "a package from conda would not be the pinned one"
    (python,) = [d for d in plain if d.startswith("python")]
    version = tuple(map(int, re.fullmatch(r"python=(\d+)\.(\d+)", python).groups()))
    at_least = tuple(map(int, re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"]).groups()))
    assert version >= at_least and sys.version_info >= at_least


def test_conda_installs_the_same_set(by_pip, pins, project):
    assert "-c constraints.txt" in by_pip, "without the constraints pip takes the newest versions"
    assert "-e .[dev]" in by_pip
    wanted = names(project["dependencies"]) | names(project["optional-dependencies"]["dev"])
    named = [line for line in by_pip if not line.startswith("-")]
    assert names(named) >= SEVEN
    assert names(named) <= wanted, f"not in pyproject.toml: {sorted(names(named) - wanted)}"
    for line in named:
        name, _, version = line.partition("==")
        assert NAME.fullmatch(name.strip()), f"{line}: a range could disagree with constraints.txt"
        assert not version or version.strip() == pins[normal(name)], line


def test_options_of_pip_are_the_two_that_are_meant(by_pip):
    """An --index-url or -r would bring other packages in."""
    assert sorted(line for line in by_pip if line.startswith("-")) == ["-c constraints.txt", "-e .[dev]"]


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(), str(path))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"course_lib", "tests", "__future__"}


@pytest.mark.parametrize("folder", ["course_lib", "tests"])
def test_what_the_code_imports_is_a_named_dependency(folder, project):
    allowed = names(project["dependencies"])
    if folder == "tests":
        allowed |= names(project["optional-dependencies"]["dev"])
    allowed |= {extra for extra, bringer in BROUGHT_ALONG.items() if bringer in allowed}
    missing = {}
    for path in (ROOT / folder).rglob("*.py"):
        for module in imported(path):
            if normal(DISTRIBUTIONS.get(module, module)) not in allowed:
                missing.setdefault(module, path.name)
    assert not missing, f"imported, but not in pyproject.toml: {missing}"
