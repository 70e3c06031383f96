"""A release is the same bytes every time, is what stock nbgrader makes, and nothing secret gets out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from course_lib.classroom.bundle import TOP, bundle, bundled_files
from course_lib.classroom.cli import app
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.release import MARKERS, leaks, release, secrets
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, make_course, tiny_notebook, write

SECRETS = {  # every line of the tiny course that is longer than a trifle and not public
    "twice_the_value = x + x",
    "return twice_the_value",
    "return sum(v**2 for v in values) ** 0.5",
    "assert double(-3.5) == -7.0",
    "Because it is the long mark scheme.",
}
REAL = sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_course(tmp_path)


def released(root: Path) -> Path:
    return root / "assignments" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"


def test_release_has_no_answers_keeps_ids_and_is_stable(root):
    source = tiny_notebook()
    source.cells[1].outputs = [nbformat.v4.new_output("stream", text="left over")]
    source.cells[1].execution_count = 7
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", source)

    assert release(root).written == [released(root)]
    data = released(root).read_bytes()
    notebook = nbformat.reads(data.decode(), as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert [c.id for c in notebook.cells] == [c.id for c in source.cells]
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    assert data.endswith(b"}\n") and not data.endswith(b"\n\n")
    assert not any(secret in data.decode() for secret in SECRETS)
    assert "raise NotImplementedError()" in notebook.cells[1].source
    assert 'assert double(2) == 4, "double(2) is 4"' in notebook.cells[2].source  # the visible half of the test

    assert release(root).written == []  # nothing changed, nothing written
    released(root).unlink()
    release(root)
    assert released(root).read_bytes() == data


def test_stock_nbgrader_writes_the_same_bytes(root):
    release(root)
    ours = released(root).read_bytes()
    released(root).write_text("something else")
    done = nbgrader(root, "generate_assignment", ASSIGNMENT, "--force")
    assert done.returncode == 0, done.stderr
    assert released(root).read_bytes() == ours
    assert (root / "classroom_data" / "gradebook.db").is_file()
    assert not (root / "gradebook.db").exists()


def test_stock_nbgrader_lists_the_exchange(root):
    done = nbgrader(root, "list")
    assert done.returncode == 0, done.stderr
    assert "Released assignments" in done.stderr


def nbgrader(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR": "1", "HOME": str(root / "home")}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


def test_check_passes_when_all_is_well_and_writes_nothing(root):
    release(root)
    before = released(root).stat()
    result = release(root, check=True)
    assert (result.written, result.problems) == ([], [])
    assert released(root).stat().st_mtime_ns == before.st_mtime_ns
    (released(root).parent / ".ipynb_checkpoints").mkdir()
    (released(root).parent / ".ipynb_checkpoints" / "x.ipynb").write_text("{}")
    assert release(root, check=True).problems == []


def test_check_shows_a_short_diff_of_an_edited_release(root):
    release(root)
    released(root).write_text(released(root).read_text().replace("double(2) == 4", "double(2) == 5"))
    [problem] = release(root, check=True).problems
    assert str(released(root)) in problem
    assert "-" in problem and "double(2) == 5" in problem and "double(2) == 4" in problem
    assert len(problem.splitlines()) < 30
    assert release(root).problems == [] and release(root, check=True).problems == []


def test_check_finds_missing_surplus_and_orphaned_files(root):
    assert "is missing" in release(root, check=True).problems[0]
    release(root)
    (released(root).parent / "notes.txt").write_text("mine")
    write(root / "assignments" / "a91_gone" / "a91_gone.ipynb", tiny_notebook())
    surplus, orphan = release(root, check=True).problems
    assert "notes.txt is not generated" in surplus
    assert "a91_gone has no source" in orphan
    assert [p for p in release(root).problems if "a91_gone" in p]  # says so, and leaves it to a person to delete it
    assert not (released(root).parent / "notes.txt").exists()


def test_secrets_are_the_lines_of_solutions_hidden_tests_and_mark_schemes():
    assert secrets(tiny_notebook()) == SECRETS


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_any_secret_line_is_a_leak_wherever_it_stands(root, secret):
    release(root)
    notebook = nbformat.read(released(root), as_version=4)
    notebook.cells[0].source += f"\n> {secret}   # hint"
    write(released(root), notebook)
    assert any(secret in problem and "of a solution" in problem for problem in release(root, check=True).problems)

    release(root)
    notebook = nbformat.read(released(root), as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("error", ename="E", evalue=secret, traceback=[])]
    write(released(root), notebook)
    assert any(secret in problem and "of a solution" in problem for problem in release(root, check=True).problems)

    (released(root).parent / "utils.py").write_text(f"    {secret}\n")
    assert any("utils.py: the line" in problem for problem in release(root, check=True).problems)


def test_a_mistyped_marker_is_caught_before_anything_is_written(root):
    source = tiny_notebook()
    source.cells[2].source = source.cells[2].source.replace("HIDDEN TESTS", "HIDDEN TEST")  # nbgrader keeps it all
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", source)
    result = release(root)
    assert any("would leak" in problem and "BEGIN HIDDEN" in problem for problem in result.problems)
    assert any("double(-3.5)" in problem for problem in result.problems)
    assert not released(root).exists()


def test_bad_sources_and_names_are_answered(root, tmp_path):
    with pytest.raises(CourseError, match=f"unknown assignment a04; there are: {ASSIGNMENT}"):
        release(root, ["a04"])
    assert Course.at(root).assignments(["a90"]) == [ASSIGNMENT]
    path = root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"

    without_ids = json.loads(path.read_text())
    del without_ids["cells"][0]["id"]
    path.write_text(json.dumps(without_ids))
    with pytest.raises(CourseError, match=r"format 4\.5, each cell with an id"):
        release(root)

    source = tiny_notebook()
    source.cells[1].source = source.cells[1].source.replace("### END SOLUTION", "")
    write(path, source)
    with pytest.raises(CourseError, match=f"{ASSIGNMENT} cannot be released: RuntimeError: no end solution statement"):
        release(root)

    path.write_text("{")
    with pytest.raises(CourseError, match="is not a notebook: JSONDecodeError"):
        release(root)
    with pytest.raises(CourseError, match=r"no nbgrader_config\.py"):
        release(tmp_path / "elsewhere")


def test_a_configuration_that_does_not_run_stops_everything(root):
    (root / "nbgrader_config.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(CourseError, match="does not run: ModuleNotFoundError"):
        release(root)


def test_folder_names_may_mean_something_in_a_regular_expression(tmp_path):
    root = make_course(tmp_path / "C++ course (2026)")
    release(root)
    assert release(root, check=True).problems == []


def test_command_line(root, monkeypatch):
    for folder in ("lectures", "course_lib"):
        (root / folder).mkdir()
    monkeypatch.chdir(root)
    missing = CliRunner().invoke(app, ["release", "--check"])
    assert missing.exit_code == 1 and "is missing" in missing.output
    assert CliRunner().invoke(app, ["release", ASSIGNMENT]).exit_code == 0
    assert CliRunner().invoke(app, ["release", "--check"]).exit_code == 0
    unknown = CliRunner().invoke(app, ["release", "a99"])
    assert unknown.exit_code == 1 and ASSIGNMENT in unknown.output


@pytest.fixture
def bundled(root: Path) -> Path:
    """The tiny course with everything that a bundle takes, and with much that it must not."""
    release(root)
    write(root / "lectures" / "00_first.ipynb", nbformat.v4.new_notebook())
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", "LICENSE", "LICENSE-TEXT"):
        (root / name).write_text(f"# {name}\n")
    (root / "README.md").write_text("![The course](docs/picture.png) ![badge](https://example.org/x.png)\n")
    other = ("docs/picture.png", "docs/internal.md", "tests/mutants/a90_tiny.py", "course_lib/vae.py", ".git/config")
    junk = (
        "course_lib/__pycache__/vae.pyc",
        "lectures/.ipynb_checkpoints/00_first.ipynb",
        "classroom_data/gradebook.db",
    )
    for name in (*other, *junk):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    return root


def test_bundle_unpacked_holds_what_students_need_and_no_secret(bundled, tmp_path):
    out = tmp_path / "out" / "course.zip"
    bundle(bundled, out)
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / TOP
    files = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert files == {
        "lectures/00_first.ipynb",
        f"assignments/{ASSIGNMENT}/{ASSIGNMENT}.ipynb",
        "course_lib/vae.py",
        "docs/picture.png",  # the README shows it
        *("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", "README.md", "LICENSE", "LICENSE-TEXT"),
    }
    for path in (unpacked / name for name in files):
        text = path.read_text()
        assert not MARKERS.search(text) and not any(secret in text for secret in SECRETS), path


def test_bundle_is_the_same_bytes_whenever_it_is_made(bundled, tmp_path):
    bundle(bundled, tmp_path / "one.zip")
    for path in bundled.rglob("*"):
        os.utime(path, (1, 1))
    bundle(bundled, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_bundle_refuses_a_stale_release_and_missing_files(bundled, tmp_path):
    (bundled / "LICENSE").unlink()
    with pytest.raises(CourseError, match="the bundle needs LICENSE"):
        bundle(bundled, tmp_path / "x.zip")
    released(bundled).write_text(released(bundled).read_text().replace("Tiny", "tiny"))
    with pytest.raises(CourseError, match="not fit to hand out"):
        bundle(bundled, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_real_release_is_up_to_date_and_leaks_nothing():
    assert release(ROOT, check=True).problems == []


@pytest.mark.parametrize("assignment", REAL)
def test_real_assignments_have_secrets_that_the_release_lacks(assignment):
    sources = Course.at(ROOT).sources(assignment)
    assert len(set().union(*map(secrets, sources.values()))) > 20
    assert leaks(sources, ROOT / "solutions" / assignment), "the search would not even find them in the source"
    assert leaks(sources, ROOT / "assignments" / assignment) == []


def test_real_bundle_has_what_setting_up_needs(tmp_path):
    files = {path.as_posix() for path in bundle(ROOT, tmp_path / "course.zip")}
    assert files == {path.as_posix() for path in bundled_files(ROOT)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "constraints.txt", "course_lib/__init__.py"} <= files
    assert not [name for name in files if name.split("/")[0] in ("solutions", "tests", "classroom_data", ".git")]
    with zipfile.ZipFile(tmp_path / "course.zip") as archive:
        notebooks = [name for name in archive.namelist() if name.endswith(".ipynb")]
        assert {f"{TOP}/assignments/{a}/{a}.ipynb" for a in REAL} <= set(notebooks)
        assert not any(MARKERS.search(archive.read(name).decode()) for name in notebooks)
