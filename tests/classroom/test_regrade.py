"""Grading again: what changed is shown before it is written; and what nbgrader can do beside still works."""

from __future__ import annotations

import csv
import datetime
import re
import shutil
import sqlite3

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from nbgrader.plugins import LateSubmissionPlugin
from rich.console import Console

from course_lib.classroom import sandbox
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.execution import Executed
from course_lib.classroom.grade import Choices, Class, grade, grade_with_report
from course_lib.classroom.submission import student_seed
from course_lib.classroom.workforce import Place
from tests.classroom.small_class import (
    BY_HAND,
    Graded,
    answer,
    automatic,
    class_of,
    grade_here,
    graded_week,
    notebook_of,
    scores_of,
)
from tests.classroom.stand_in import execute_here, nothing_works
from tests.classroom.tiny_course import ASSIGNMENT, make_course, tiny_notebook, write


@pytest.fixture(scope="module")
def first_week(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    return graded_week(tmp_path_factory.mktemp("week"))


@pytest.fixture
def week(first_week, tmp_path) -> Graded:
    return first_week.copy(tmp_path)


def test_a_regrade_shows_the_difference_and_is_written_with_commit(week, tmp_path):
    before = {student: scores_of(week, student) for student in week.marks}
    answer(week, "half_good", "norm", "def norm(values):\n    return sum(v**2 for v in values) ** 0.5")
    console = Console(record=True, width=200)

    def run(**choices: bool) -> str:
        choice = Choices(Place(1), sandbox=False, **choices)
        assert grade_with_report(week.root, ASSIGNMENT, week.inbox, None, None, choice, console, execute_here) == 0
        return console.export_text()

    shown = run()
    assert "gradebook is as it was" in shown and "--resume --commit" in shown
    assert re.search(r"half_good +test_norm__value +0 / 3 +3 / 3", shown) and not re.search(r"\n +good +test", shown)
    assert re.search(r"half_good +9.5 / 10 +6 / 6", shown)  # with what was marked by hand
    assert {student: scores_of(week, student) for student in week.marks} == before
    [changed] = csv.DictReader((week.data / "regrades" / ASSIGNMENT / "changes.csv").open())
    assert changed == {"student": "half_good", "what": "test_norm__value", "old": "0 / 3", "new": "3 / 3"}
    old = nbformat.read(week.data / "autograded" / "half_good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", as_version=4)
    assert "sum(v**2" not in str(old)

    def never(*arguments: object) -> Executed:
        raise AssertionError("what was shown is what is committed")

    commits = Choices(Place(1), resume=True, commit=True, sandbox=False)
    assert grade_with_report(week.root, ASSIGNMENT, week.inbox, None, None, commits, console, never) == 0
    shown = console.export_text()
    assert "Changed marks" in shown and re.search(r"half_good +test_norm__value +0 / 3 +3 / 3", shown)
    assert scores_of(week, "half_good")["test_norm__value"] == (3, None, False)
    assert scores_of(week, "half_good")["why"][1:] == (3.5, True)  # another answer: look at it again
    assert scores_of(week, "good") == before["good"]  # not edited, so nobody has to
    new = nbformat.read(week.data / "autograded" / "half_good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", as_version=4)
    assert "sum(v**2" in str(new)
    assert "Marks" not in run()  # nothing is left to show


def test_resume_grades_what_is_new_or_changed_and_nothing_else(week):
    graded_now: list[str] = []

    def watched(notebook, source, files, seed, options) -> Executed:
        graded_now.append(next(student for student in SEEDS if student_seed(student, ASSIGNMENT) == seed))
        return execute_here(notebook, source, files, seed, options)

    SEEDS = ("good", "half_good", "new")

    def run(**choices: bool) -> Class:
        graded_now.clear()
        choice = Choices(Place(1), sandbox=False, **choices)
        return grade(week.root, ASSIGNMENT, week.inbox, None, choice, execute=watched)

    class_ = run(resume=True)
    assert (graded_now, class_.outcome) == ([], {"kept": 2})
    assert [mark.score() for mark in class_] == [6 + 3.5, 3 + 3.5]  # with what was marked by hand meanwhile
    shutil.copytree(week.inbox / "good", week.inbox / "new")
    assert run(resume=True).outcome == {"kept": 2, "committed": 1} and graded_now == ["new"]
    (week.inbox / "good" / ASSIGNMENT / "table.csv").write_text("1,2")
    run(resume=True)
    assert graded_now == ["good"]
    stricter = tiny_notebook()
    stricter.cells[5].source += "\nassert norm([0]) == 0"
    write(week.root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", stricter)
    run(resume=True)
    assert graded_now == ["good", "half_good", "new"]
    run()
    assert graded_now == ["good", "half_good", "new"]
    (week.data / "gradebook.db").unlink()
    assert run(resume=True).outcome == {"committed": 3}  # results whose marks are gone count for nothing


def test_last_weeks_mark_does_not_survive_but_manual_marks_do(week):
    notebook_of(week.inbox, "good").write_text("{")
    shown = class_of(week.root, week.inbox)
    [change] = shown.changed
    assert (change.student, change.old) == ("good", "6 automatic points") and "is not JSON" in change.new
    assert scores_of(week, "good")["test_norm__value"] == (3, None, False)  # not without being told to
    marks = grade_here(week.root, week.inbox, commit=True)
    assert "is not JSON" in marks["good"].problem
    [page] = (week.data / "feedback" / "good" / ASSIGNMENT).iterdir()
    assert "This could not be graded yet" in page.read_text()
    assert not (week.data / "autograded" / "good" / ASSIGNMENT).exists()
    assert scores_of(week, "good") == {
        name: (None, 3.5 if name == "why" else None, True) for name in scores_of(week, "good")
    }
    shutil.copy(notebook_of(BY_HAND, "good"), notebook_of(week.inbox, "good"))
    marks = grade_here(week.root, week.inbox)  # there are no marks to lose: written at once
    assert (marks["good"].problem, marks["good"].score(), marks["good"].needs_manual) == ("", 6 + 3.5, True)


def test_what_did_not_even_begin_is_tried_again(week):
    choices = Choices(Place(1), resume=True, commit=True, sandbox=False)
    shutil.copytree(week.inbox / "good", week.inbox / "unlucky")
    class_ = grade(week.root, ASSIGNMENT, week.inbox, None, choices, execute=nothing_works)
    assert {mark.student: mark.problem for mark in class_}["unlucky"] == "the kernel did not start"
    assert class_.outcome == {"kept": 2, "committed": 1}
    assert grade_here(week.root, week.inbox, resume=True)["unlucky"].score(manual=False) == 6


def test_scores_by_hand_outweigh_automatic_ones_also_after_a_regrade(week):
    with week.gradebook() as gradebook:
        cell = gradebook.find_grade("test_norm__value", ASSIGNMENT, ASSIGNMENT, "half_good")
        cell.manual_score, cell.needs_manual_grade = 1.5, False
        gradebook.db.commit()
    assert grade_here(week.root, week.inbox)["half_good"].score(manual=False) == 3 + 1.5
    assert scores_of(week, "half_good")["test_norm__value"] == (0, 1.5, False)


def test_a_changed_assignment_reaches_the_gradebook(tmp_path):
    root = make_course(tmp_path / "course", tiny_notebook())
    grade_here(root, BY_HAND)
    inbox = tmp_path / "inbox"
    shutil.copytree(BY_HAND / "half_good", inbox / "half_good")
    shutil.copytree(BY_HAND / "half_good", inbox / "first_time")

    stricter = tiny_notebook()  # same cells, other points and another test
    stricter.cells[2].metadata.nbgrader.points = 7
    stricter.cells[5].source = "assert norm([3, 4]) == 7"
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", stricter)
    class_ = class_of(root, inbox)  # other points would change other students' totals: all of it waits
    assert class_.outcome == {"waiting": 2}
    assert [(c.what, c.old, c.new) for c in class_.changed] == [
        ("test_double__value", "2 / 2", "7 / 7"),
        ("test_norm__value", "0 / 3", "3 / 3"),
    ]
    with Course.at(root).gradebook() as gradebook:
        assert gradebook.find_grade_cell("test_double__value", ASSIGNMENT, ASSIGNMENT).max_score == 2
    marks = grade_here(root, inbox, commit=True)
    assert automatic(marks["half_good"]) == automatic(marks["first_time"]) == (7 + 1 + 3, 11)

    fewer = tiny_notebook()
    del fewer.cells[3]
    write(root / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", fewer)
    with pytest.raises(CourseError, match="would be lost"):  # other students have marks of the old version
        grade_here(root, inbox, commit=True)
    everybody = tmp_path / "everybody"
    with sqlite3.connect(root / "classroom_data" / "gradebook.db") as connection:
        known = {name for (name,) in connection.execute("select student_id from submitted_assignment")}
    for student in known - {"half_good"}:
        (everybody / student).mkdir(parents=True)
    shutil.copytree(BY_HAND / "half_good", everybody / "half_good")
    assert class_of(root, everybody).outcome == {"waiting": len(known)}
    with sqlite3.connect(root / "classroom_data" / "gradebook.db") as connection:
        assert known == {name for (name,) in connection.execute("select student_id from submitted_assignment")}
    marks = grade_here(root, everybody, resume=True, commit=True)
    assert automatic(marks["half_good"]) == (2, 5)
    assert any("test_double__list" in note for note in marks["half_good"].notes)


# --- what nbgrader can do beside ----------------------------------------------------------------------------------


class PointADay(LateSubmissionPlugin):
    """A penalty plugin as an instructor writes it."""

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        return total_seconds_late / 86400


def test_late_penalties_and_extensions(tmp_path):
    root = make_course(tmp_path / "course")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(f"\nc.AssignLatePenalties.plugin_class = {f'{__name__}.{PointADay.__name__}'!r}\n")
    inbox = tmp_path / "inbox"
    days = {"early": 1, "on_time": 2, "late": 4, "very_late": 30, "no_date": None}
    for student, day in days.items():
        shutil.copytree(BY_HAND / "half_good", inbox / student)
        if day:
            stamp = f"2026-09-{day:02d} 12:00:00 UTC"
            (inbox / student / ASSIGNMENT / "timestamp.txt").write_text(stamp)
    (inbox / "no_mark" / ASSIGNMENT).mkdir(parents=True)
    (inbox / "no_mark" / ASSIGNMENT / "timestamp.txt").write_text("2026-09-30 12:00:00 UTC")
    due = datetime.datetime(2026, 9, 2, 12)

    marks = grade_here(root, inbox, dated=True)
    assert {mark.penalty for mark in marks.values()} == {0}  # there is no due date yet
    with Course.at(root).gradebook() as gradebook:
        gradebook.update_or_create_assignment(ASSIGNMENT, duedate=due)
    marks = grade_here(root, inbox, resume=True, dated=True)
    penalties = {student: mark.penalty for student, mark in marks.items()}
    assert penalties == {"early": 0, "on_time": 0, "late": 2, "very_late": 3, "no_date": 0, "no_mark": 0}
    assert [marks[student].total() for student in days] == [3, 3, 1, 0, 3]  # never more than the score
    assert marks["late"].score() == 3
    with Course.at(root).gradebook() as gradebook:
        assert gradebook.find_submission(ASSIGNMENT, "late").late_submission_penalty == 2
        gradebook.grant_extension(ASSIGNMENT, "late", days=1)
    assert grade_here(root, inbox, resume=True, dated=True)["late"].penalty == 1
    assert grade_here(root, inbox, dated=True)["late"].penalty == 1

    (inbox / "late" / ASSIGNMENT / "timestamp.txt").write_text("2026-09-05 12:00:00 UTC")
    [change] = class_of(root, inbox, dated=True).changed
    assert (change.student, change.old, change.new) == ("late", "2026-09-04 12:00:00", "2026-09-05 12:00:00")
    assert grade_here(root, inbox, commit=True, dated=True)["late"].penalty == 2


def test_students_do_not_say_themselves_when_they_handed_in(tmp_path):
    root = make_course(tmp_path / "course")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(f"\nc.AssignLatePenalties.plugin_class = {f'{__name__}.{PointADay.__name__}'!r}\n")
    shutil.copytree(BY_HAND / "half_good", tmp_path / "inbox" / "late")
    stamp = tmp_path / "inbox" / "late" / ASSIGNMENT / "timestamp.txt"
    stamp.write_text("2026-09-04 12:00:00 UTC")
    grade_here(root, tmp_path / "inbox", dated=True)
    with Course.at(root).gradebook() as gradebook:
        gradebook.update_or_create_assignment(ASSIGNMENT, duedate=datetime.datetime(2026, 9, 2, 12))
    stamp.write_text("2026-09-01 12:00:00 UTC")
    class_ = class_of(root, tmp_path / "inbox", commit=True)
    [mark] = class_
    assert (mark.penalty, class_.undated) == (2, 1)
    assert any("timestamp.txt was left out" in note for note in mark.notes)
    copy = root / "classroom_data" / "submitted" / "late" / ASSIGNMENT
    assert sorted(p.name for p in copy.iterdir()) == [f"{ASSIGNMENT}.ipynb"]  # or it would be believed there


def test_folders_of_a_group_of_instructors_stay_writable_for_them(tmp_path):
    root = make_course(tmp_path / "course")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write("\nc.CourseDirectory.groupshared = True\n")
    shutil.copytree(BY_HAND / "good", tmp_path / "inbox" / "good")
    assert grade_here(root, tmp_path / "inbox")["good"].problem == ""
    folder = root / "classroom_data" / "autograded" / "good" / ASSIGNMENT
    assert folder.stat().st_mode & 0o2770 == 0o2770
    assert (folder / f"{ASSIGNMENT}.ipynb").stat().st_mode & 0o777 == 0o664


def test_the_instructors_files_replace_submitted_ones(tmp_path):
    root = make_course(tmp_path / "course")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(f"\nc.Autograde.exclude_overwriting = {{{ASSIGNMENT!r}: ['mine.txt']}}\n")
    for name in ("ours.txt", "mine.txt"):
        (root / "solutions" / ASSIGNMENT / name).write_text("instructor")
    good = nbformat.read(notebook_of(BY_HAND, "good"), as_version=4)
    good.cells.insert(0, new_code_cell("print([(FILES / f'{n}.txt').read_text() for n in ('ours', 'mine', 'other')])"))
    folder = write(notebook_of(tmp_path / "inbox", "good"), good).parent
    for name in ("ours.txt", "mine.txt", "other.txt"):
        (folder / name).write_text("student")
    assert grade_here(root, tmp_path / "inbox")["good"].problem == ""
    executed = root / "classroom_data" / "autograded" / "good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    assert nbformat.read(executed, as_version=4).cells[0].outputs[0].text == "['instructor', 'student', 'student']\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import no_such_package", "does not run: ModuleNotFoundError"),
        ("c.Autograde.post_convert_hook = print", "post_convert_hook, which `course grade` does not run"),
    ],
)
def test_a_configuration_that_cannot_be_kept_stops_grading(week, line, reason):
    def state() -> tuple:
        with sqlite3.connect(week.data / "gradebook.db") as connection:
            return connection.execute("select * from grade order by id").fetchall(), sorted(week.data.rglob("*"))

    before = state()
    with (week.root / "nbgrader_config.py").open("a") as file:
        file.write(f"\n{line}\n")
    notebook_of(week.inbox, "good").write_text("{")
    with pytest.raises(CourseError, match=reason):
        grade_here(week.root, week.inbox, commit=True)
    assert state() == before


def test_without_the_sandboxs_parts_nothing_is_graded(week, monkeypatch):
    def require() -> None:
        raise CourseError("apt-get install bubblewrap")

    monkeypatch.setattr(sandbox, "require", require)
    with pytest.raises(CourseError, match="apt-get install bubblewrap"):
        grade(week.root, ASSIGNMENT, week.inbox, None, Choices(Place(1)), execute=execute_here)
    assert class_of(week.root, week.inbox).outcome == {"committed": 2}  # without it, when asked to
