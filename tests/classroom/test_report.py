"""The instructor's report: statistics with known values, planted pairs, exports, pages of 0, 1 and many students."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import sqlite3
from pathlib import Path

import nbformat
import numpy as np
import pytest
from typer.testing import CliRunner

from course_lib.classroom import results
from course_lib.classroom.class_report import current_marks, report
from course_lib.classroom.cli import app
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.exports import Person, Roster, missing, read_roster, write_canvas, write_moodle
from course_lib.classroom.item_analysis import common_failures, correlation, fisher_interval, items, outliers
from course_lib.classroom.release import generate, secrets
from course_lib.classroom.scores import Cell, Mark
from course_lib.classroom.similarity import (
    FEWEST_SHINGLES,
    SHINGLE,
    Piece,
    compare,
    own_pieces,
    released_lines,
    shingles,
    side_by_side,
)
from tests.classroom.html_pages import HOSTILE, Tags, assert_harmless
from tests.classroom.tiny_course import ASSIGNMENT, make_course, tiny_notebook, write

LINKS = ("#", "../feedback/", f"{ASSIGNMENT}_")


def mark_of(student: str, *scores: float, by_hand: float | None = None, **more: object) -> Mark:
    """A mark with cells a, b, … of 2 points each, and an answer of 4 points marked by hand."""
    cells = [
        Cell(name, score, 2, False, False, "" if score == 2 else "AssertionError: no")
        for name, score in zip("abcdefgh", scores, strict=False)
    ]
    cells.append(Cell("why", by_hand or 0, 4, True, by_hand is None, ""))
    return Mark(student, ASSIGNMENT, cells=tuple(cells), **more)


# questions


def test_difficulty_and_discrimination_of_a_hand_made_class():
    marks = [
        mark_of("s1", 2, 2, 0, by_hand=4),
        mark_of("s2", 2, 2, 2, by_hand=2),
        mark_of("s3", 0, 0, 0),
        mark_of("s4", 0, 0, 2, by_hand=0),
        Mark("s5", ASSIGNMENT, problem="no notebook"),
    ]
    a, b, c, why = items(marks)
    # a: those with it have rest scores 2 and 4, those without 0 and 2; means 3 and 1, σ = √2: r = (3 − 1)/√2 · ½
    assert (a.n, a.difficulty, a.discrimination) == (4, 0.5, pytest.approx(1 / math.sqrt(2)))
    assert b.discrimination == pytest.approx(1 / math.sqrt(2))
    assert (c.difficulty, c.discrimination) == (0.5, 0.0)  # rest scores 4 and 0 with it, 4 and 0 without
    # by hand: scores 4, 2, 0 against all tests 4, 6, 2
    assert (why.n, why.difficulty, why.discrimination) == (3, 0.5, pytest.approx(0.5))
    assert (why.low, why.high) == (None, None)


def test_discrimination_is_left_out_where_it_is_not_defined():
    same = items([mark_of(s, 2, score) for s, score in zip("abcd", (0, 2, 0, 2), strict=True)])
    assert [item.discrimination for item in same] == [None, None, None]
    assert same[2].difficulty is None and same[2].n == 0  # nobody has marked it
    assert items([mark_of("a", 2, 0), mark_of("b", 0, 2)])[0].discrimination is None  # two points are always ±1
    assert correlation([(0.1 + 0.2, 1.0), (0.3, 2.0), (0.3, 0.0)]) is None  # rounding is no variation
    assert items([]) == [] and items([Mark("a", ASSIGNMENT, problem="x")]) == []
    free = Mark("a", ASSIGNMENT, cells=(Cell("bonus", 0, 0, False, False, ""),))
    assert items([free])[0].difficulty is None


def test_interval_of_a_correlation():
    # atanh ½ = 0.5493, 1.96/√25 = 0.3920
    assert fisher_interval(0.5, 28) == (pytest.approx(0.1560, abs=1e-4), pytest.approx(0.7358, abs=1e-4))
    assert fisher_interval(1.0, 28) == fisher_interval(0.5, 3) == (None, None)


def test_outliers_by_median_and_mad():
    values = {f"s{i}": float(v) for i, v in enumerate([1, 2, 3, 4, 5, 6, 7])} | {"slow": 40.0, "not measured": 0.0}
    # median 4.5, absolute deviations 3.5 2.5 1.5 0.5 0.5 1.5 2.5 35.5: MAD 2
    [far] = outliers(values)
    assert (far.student, far.z) == ("slow", pytest.approx(0.6745 * 35.5 / 2, rel=1e-4))
    alike = {f"s{i}": 600.0 for i in range(40)}
    assert outliers(alike) == []
    [far] = outliers(alike | {"big": 900.0})  # MAD 0: mean absolute deviation 300/41
    assert far.z == pytest.approx(300 / (1.253314 * 300 / 41))
    assert outliers({"a": 1.0, "b": 100.0}) == outliers({}) == []


def test_failures_are_grouped_by_check_whatever_the_numbers():
    def wrong(student: str, message: str) -> Mark:
        return Mark(student, ASSIGNMENT, cells=(Cell("t", 0, 1, False, False, "x", message),))

    hint = "\n  Likely cause: the sign. Lecture 04 §3"
    marks = [
        wrong("ann", f"✗ KL at n = 7: got 1, want 2{hint}"),
        wrong("bob", f"✗ KL at n = 12: got 3, want 4.5{hint}"),
        wrong("cem", f"✗ KL at n = 12: got 0, want 4.5{hint}"),
        wrong("dan", "NameError: name 'x' is not defined"),
        wrong("eve", "NotImplementedError"),
        Mark("fay", ASSIGNMENT, cells=(Cell("t", 1, 1, False, False, ""),)),
        Mark("gus", ASSIGNMENT, problem="no notebook"),
    ]
    first, *others = common_failures(marks)
    assert (first.cell, first.students, first.share) == ("t", ("ann", "bob", "cem"), 0.5)
    assert (first.failure.claim, first.failure.lecture) == ("KL at n = 12", "Lecture 04 §3")
    assert [(f.students, f.failure.kind) for f in others] == [(("dan",), "error"), (("eve",), "unanswered")]


# similarity


def code(*words: str, name: str = "f") -> list[Piece]:
    text = " ".join(words)
    return [Piece(name, True, text, text)]


def words(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def test_jaccard_index_of_known_pairs():
    start, k = words("same", 25), SHINGLE
    a, b = start + words("a", 20), start + words("b", 20)  # 45 tokens: 40 shingles each, 20 in common
    similar = compare([("ann", code(*a)), ("bob", code(*b))])
    assert similar.nearest == (pytest.approx(20 / 60),) * 2 and similar.pairs == ()
    one_renamed = [*a[:44], "other"]  # the last token is in one shingle
    [pair] = compare([("ann", code(*a)), ("cem", code(*one_renamed))]).pairs
    assert (pair.a, pair.b, pair.jaccard, pair.shared) == ("ann", "cem", pytest.approx(39 / 41), 39)
    all_renamed = [f"{word}_" for word in a]
    assert compare([("ann", code(*a)), ("dan", code(*all_renamed))]).nearest == (0.0, 0.0)
    assert len(shingles(code(*words("x", k)))) == 1 and not shingles(code(*words("x", k - 1)))
    [pair] = compare([("ann", code(*a)), ("eve", code("# mine\n", *a, "\n# 1 2 3"))]).pairs
    assert pair.jaccard == 1.0  # comments do not count


def test_inverted_index_agrees_with_comparing_all():
    rng = random.Random(0)
    chosen = [rng.sample(range(18), 4) for _ in range(24)]
    chosen[20] = [*chosen[3][:3], 19]
    class_of = {
        f"s{i:02d}": code(*(w for part in parts for w in words(f"p{part}_", 30))) for i, parts in enumerate(chosen)
    }
    similar = compare(class_of.items())
    assert similar.common and similar.pairs and len(similar.compared) > 15  # every rule is at work
    own = {student: set(shingles(class_of[student])) - similar.common for student in similar.compared}
    want = {
        (a, b): len(own[a] & own[b]) / len(own[a] | own[b]) for a in own for b in own if a < b and (own[a] & own[b])
    }
    got = {(p.a, p.b): p.jaccard for p in similar.pairs}
    assert got == {pair: pytest.approx(j) for pair, j in want.items() if j >= 0.5}
    for student, nearest in zip(similar.compared, similar.nearest, strict=True):
        assert nearest == pytest.approx(max([j for pair, j in want.items() if student in pair], default=0.0))


def test_what_many_share_is_no_evidence():
    obvious = words("obvious", 60)
    honest = [(f"s{i:02d}", code(*obvious, *words(f"own{i}_", 30))) for i in range(30)]
    assert compare(honest).pairs == ()
    copied = [*honest, ("zoe", code(*obvious, *words("own7_", 30)))]
    [pair] = compare(copied).pairs
    assert (pair.a, pair.b, pair.jaccard) == ("s07", "zoe", 1.0)


def test_three_copies_are_a_group():
    copies = [(s, code(*words("x", 50))) for s in ("ann", "bob", "cem")]
    others = [(s, code(*words(s, 50))) for s in ("dan", "eve")]
    similar = compare([*copies, *others, ("fay", code(*words("short", FEWEST_SHINGLES + SHINGLE - 2)))])
    assert similar.groups == (("ann", "bob", "cem"),) and similar.alike == 3
    assert similar.too_little == ("fay",) and similar.nearest == (1.0, 1.0, 1.0, 0.0, 0.0)
    assert compare([]).pairs == () and compare([("ann", [])]).too_little == ("ann",)


def test_a_thousand_students_and_one_planted_pair():
    rng = np.random.default_rng(0)
    texts = [[f"v{i}" for i in rng.integers(0, 40, 80)] for _ in range(1000)]
    texts[800][:70] = texts[30][:70]
    similar = compare((f"s{i:03d}", code(*text)) for i, text in enumerate(texts))
    assert [(p.a, p.b) for p in similar.pairs] == [("s030", "s800")] and len(similar.compared) == 1000


def test_released_text_is_not_the_students_own(tmp_path):
    source = tiny_notebook()
    released = released_lines([source])
    assert "def double(x):" in released and "raise NotImplementedError()" in released
    assert not released & {"twice_the_value = x + x", "assert double(-3.5) == -7.0"}
    path = write(tmp_path / f"{ASSIGNMENT}.ipynb", source)
    own = {piece.name: piece.own.split() for piece in own_pieces(path.parent, released)}
    assert (
        " ".join(own["double"]) == "### BEGIN SOLUTION twice_the_value = x + x return twice_the_value ### END SOLUTION"
    )
    assert "test_double__list" not in own and own["why"][:2] == ["Because", "it"]


def test_no_file_of_a_stranger_stops_the_comparison(tmp_path):
    inbox = {
        "broken": "{",
        "list": "[]",
        "deep": "[" * 100_000,
        "odd": json.dumps({"cells": [1, {}, {"cell_type": "code", "source": 7, "metadata": []}, {"cell_type": []}]}),
        "bytes": b"\xff\xfe\x00",
    }
    for name, text in inbox.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.ipynb").write_bytes(text if isinstance(text, bytes) else text.encode())
    write(tmp_path / "good" / "a.ipynb", tiny_notebook())
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.ipynb").symlink_to(tmp_path / "good" / "a.ipynb")
    (tmp_path / "linked").symlink_to(tmp_path / "good")
    os.mkfifo(tmp_path / "link" / "b.ipynb")
    assert own_pieces(tmp_path / "good", frozenset())
    for name in [*inbox, "link", "linked", "nowhere"]:
        assert own_pieces(tmp_path / name, frozenset()) == [], name


def test_side_by_side_marks_what_both_have():
    a = code(*words("a", 4), *words("same", 8), "end")
    b = code(*words("b", 9), *words("same", 8))
    ([(_, left)], [(_, right)]) = side_by_side(a, b, frozenset())
    shared = " ".join(words("same", 8))
    assert left == [("a0 a1 a2 a3 ", False), (shared, True), (" end", False)]
    assert right == [(" ".join(words("b", 9)) + " ", False), (shared, True)]
    common = frozenset(shingles(code(*words("same", 8))))
    assert side_by_side(a, b, common)[0] == [("f", [(a[0].source, False)])]


# exports


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_exports_have_the_platforms_columns_and_only_final_marks(tmp_path):
    marks = [
        mark_of("ada", 2, 2, by_hand=3.5, penalty=1.0),
        mark_of("bob", 2, 0, by_hand=0),
        mark_of("waits", 2, 2),
        Mark("broken", ASSIGNMENT, problem="not JSON"),
    ]
    roster = Roster({"ada": Person("Lovelace, Ada", "1815", "u1", "ada", "Section 1", "Participant 7", "ada@x.org")})
    assert rows(write_canvas(tmp_path / "canvas.csv", ASSIGNMENT, marks, roster)) == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", ASSIGNMENT],
        ["    Points Possible", "", "", "", "", "8"],
        ["Lovelace, Ada", "1815", "u1", "ada", "Section 1", "6.5"],
        ["bob", "", "", "bob", "", "2"],
    ]
    assert rows(write_moodle(tmp_path / "moodle.csv", marks, roster)) == [
        ["Identifier", "Full name", "Email address", "Grade", "Maximum Grade", "Last modified (grade)"],
        ["Participant 7", "Lovelace, Ada", "ada@x.org", "6.5", "8", ""],
        ["bob", "bob", "", "2", "8", ""],
    ]
    assert missing(marks) == [("waits", "waits for a person: why"), ("broken", "could not be graded: not JSON")]
    assert len(rows(write_canvas(tmp_path / "none.csv", ASSIGNMENT, [], Roster({})))) == 2


def test_no_name_becomes_a_formula(tmp_path):
    marks = [mark_of(name, 2, by_hand=0) for name in ('=HYPERLINK("x")', "+1", "-1", "@SUM(A1)", " =1", "a\n=1", "ok")]
    for path in (
        write_canvas(tmp_path / "c.csv", ASSIGNMENT, marks, Roster({})),
        write_moodle(tmp_path / "m.csv", marks, Roster({})),
    ):
        for row in rows(path)[1:]:
            assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) or "\n" in cell for cell in row), row


def test_roster_of_canvas_and_of_moodle(tmp_path):
    canvas, moodle = tmp_path / "canvas.csv", tmp_path / "moodle.csv"
    canvas.write_text(
        f"Student,ID,SIS User ID,SIS Login ID,Section,{ASSIGNMENT} (77),{ASSIGNMENT}b (78)\n"
        '    Points Possible,,,,,8,8\n"Hopper, Grace",42,s42,grace,A,,\n',
        encoding="utf-8-sig",
    )
    roster = read_roster(canvas)
    made = rows(write_canvas(tmp_path / "out.csv", ASSIGNMENT, [mark_of("grace", 2, by_hand=4)], roster))
    assert made[0][-1] == f"{ASSIGNMENT} (77)" and made[2] == ["Hopper, Grace", "42", "s42", "grace", "A", "6"]
    moodle.write_text("Identifier,Full name,Email address,Grade\nParticipant 5,Grace Hopper,grace@x.org,\n")
    made = rows(write_moodle(tmp_path / "out.csv", [mark_of("grace@x.org", 2, by_hand=4)], read_roster(moodle)))
    assert made[1][:4] == ["Participant 5", "Grace Hopper", "grace@x.org", "6"]
    moodle.write_text("Identifier,Email address\nParticipant 5,x@x.org\nParticipant 6,x@x.org\n")
    with pytest.raises(CourseError, match=r"two students 'x@x\.org'"):
        read_roster(moodle)
    moodle.write_text("name,grade\nx,1\n")
    with pytest.raises(CourseError, match="none of the columns"):
        read_roster(moodle)
    with pytest.raises(CourseError, match="cannot be read"):
        read_roster(tmp_path / "nothing.csv")


# the page


@pytest.fixture
def course(tmp_path: Path) -> Path:
    root = make_course(tmp_path / "course")
    for folder in ("lectures", "course_lib"):
        (root / folder).mkdir()  # what `course` looks for to find the root
    return root


def save(root: Path, *marks: Mark) -> None:
    for mark in marks:
        results.save(root / "classroom_data" / "results" / ASSIGNMENT, mark)


def hand_in(root: Path, student: str, body: list[str]) -> None:
    notebook = tiny_notebook()
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        answers = {"double": " ".join(body), "norm": "raise NotImplementedError()", "why": ""}
        cell.source = re.sub(r"### BEGIN .*### END \w+( \w+)?", answers.get(name, ""), cell.source, flags=re.DOTALL)
        cell.source = answers["why"] if name == "why" else cell.source
    write(root / "classroom_data" / "submitted" / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", notebook)


def test_nobody_has_been_graded(course):
    written = report(course, "a90")
    assert (written.students, written.page) == (0, course / "classroom_data" / "reports" / f"{ASSIGNMENT}.html")
    seen = assert_harmless(written.page.read_text())
    assert "Nothing has been graded yet" in seen.text
    assert [path.name for path in written.tables] == [
        f"{ASSIGNMENT}_{kind}.csv" for kind in ("canvas", "moodle", "pairs")
    ]
    assert not (course / "classroom_data" / "gradebook.db").exists()


def test_one_student(course, tmp_path):
    save(course, mark_of("ada", 2, 0, seconds=1.5, peak_mib=300.0))
    written = report(course, "a90", out=tmp_path / "new" / "page.html")
    text = " ".join(assert_harmless(written.page.read_text(), ("#", "page_")).text.split())
    assert (written.students, written.ungraded, written.left_out) == (1, 0, 1)
    assert "1 student" in text and "2 / 8" in text and "there is no class to stand out from" in text
    assert "No submissions in" in text and "–" in text


def test_a_class_with_everything_in_it(course):
    broken = "✗ ‖(3, 4)‖ at n = {}: got 7, want 5\n  Likely cause: no root. Lecture 01 §2"
    marks = []
    for i in range(30):
        score = 2.0 * (i % 3 != 0)
        failed = Cell(
            "test_norm__value", score, 2, False, False, "" if score else "x", "" if score else broken.format(i)
        )
        other = Cell("test_double__value", 2.0 * (i > 12), 2, False, False, "AssertionError: double(2) is 4")
        why = Cell("why", i % 5, 4, True, i == 7, "")
        cost = {"seconds": 2 + 0.01 * i + 60 * (i == 9), "peak_mib": 500 + i + 1000 * (i == 4)}
        tampering = ("looked for the solutions",) if i == 11 else ()
        marks.append(Mark(f"s{i:02d}", ASSIGNMENT, cells=(other, failed, why), attempts=tampering, **cost))
        hand_in(course, f"s{i:02d}", words(f"own{i if i != 21 else 20}_", 40))
    save(course, *marks, Mark("late", ASSIGNMENT, problem="the kernel died: more than 2048 MiB"))
    written = report(course, "a90")
    assert (written.students, written.ungraded, written.left_out) == (31, 1, 2)
    page = written.page.read_text()
    text = " ".join(assert_harmless(page, LINKS).text.split())
    for part in (
        "31 students 30 graded 1 could not be graded 1 wait for a person",
        "13 43 % double(2) is 4 test_double__value",
        "10 33 % ‖(3, 4)‖ at n = 0 expected 5 , came 7 test_norm__value no root. Lecture 01 §2",
        "late the kernel died: more than 2048 MiB",
        "s11 looked for the solutions",
        "s09 time 62.1 s",
        "s04 memory 1504 MiB",
        "s20 and s21 , side by side: 1.00",
        "test_norm__value Tiny 2 30 0.67",
    ):
        assert part in text, part
    assert page.count("data:image/svg+xml;base64,") == 4
    assert [r[:2] for r in rows(written.tables[2])[1:]] == [["s20", "s21"]]
    for line in secrets(tiny_notebook()):
        assert line not in Tags(page).text


def test_nothing_of_a_stranger_becomes_html(course, monkeypatch):
    name = HOSTILE.replace("/", "∕")
    failed = Cell("test_norm__value", 0, 3, False, False, HOSTILE, f"✗ {HOSTILE}: got {HOSTILE}, want {HOSTILE}")
    cost = {"seconds": 1.0, "peak_mib": 1.0, "attempts": (HOSTILE,), "notes": (HOSTILE,)}
    mark = Mark(name, ASSIGNMENT, cells=(failed, Cell(HOSTILE + "$\\frac", 0, 1, True, True, "")), **cost)
    save(course, mark, Mark(f"{name}2", ASSIGNMENT, problem=HOSTILE), Mark("$\\frac{", ASSIGNMENT, cells=mark.cells))
    for student in (name, f"{name}2"):
        hand_in(course, student, [*words("x", 30), f'"""{HOSTILE}"""', HOSTILE])
    seen = assert_harmless(report(course, "a90").page.read_text(), LINKS)
    assert seen.text.count(HOSTILE) > 8 and name in seen.text
    assert {tag for tag, _ in seen.elements} >= {"mark", "img"}


def test_marks_given_by_hand_since_then_count(course):
    known = Course.at(course)
    generate(known, [ASSIGNMENT], course / "released", remember=True)
    cells = [("test_double__value", 2, 2.0), ("test_double__list", 1, 1.0), ("test_norm__value", 3, 0.0)]
    with known.gradebook() as gradebook:
        gradebook.add_student("ada", first_name="Ada", last_name="Lovelace", email="ada@x.org")
        gradebook.add_submission(ASSIGNMENT, "ada")
        for name, _, score in cells:
            grade = gradebook.find_grade(name, ASSIGNMENT, ASSIGNMENT, "ada")
            grade.auto_score, grade.needs_manual_grade = score, False
        gradebook.db.commit()
    made = [Cell(name, score, points, False, False, "") for name, points, score in cells]
    save(course, Mark("ada", ASSIGNMENT, cells=(*made, Cell("why", 0, 4, True, True, ""))))
    [mark] = current_marks(known, ASSIGNMENT)
    assert mark.needs_manual and report(course, "a90").left_out == 1
    with sqlite3.connect(course / "classroom_data" / "gradebook.db") as connection:
        connection.execute(
            "update grade set manual_score = 3.5, needs_manual_grade = 0 "
            "where cell_id in (select id from base_cell where name = 'why')"
        )
    [mark] = current_marks(known, ASSIGNMENT)
    assert (mark.score(), mark.needs_manual) == (6.5, False)
    canvas, moodle, _ = report(course, "a90").tables
    assert rows(canvas)[2] == ["Lovelace, Ada", "", "", "ada", "", "6.5"]
    assert rows(moodle)[1] == ["ada", "Lovelace, Ada", "ada@x.org", "6.5", "10", ""]


def test_bad_requests_are_answered(course, tmp_path):
    save(course, mark_of("ada", 2))
    for problem, options in (
        ("unknown assignment a99", {"assignment": "a99"}),
        (r"no folder .*nowhere \(--data\)", {"data": tmp_path / "nowhere"}),
        (r"no folder .*nowhere \(--submissions\)", {"submissions": tmp_path / "nowhere"}),
        (r"roster .*nowhere cannot be read", {"roster": tmp_path / "nowhere"}),
        (r"cannot write", {"out": course / "nbgrader_config.py" / "page.html"}),
    ):
        with pytest.raises(CourseError, match=problem):
            report(course, **({"assignment": "a90"} | options))
    (course / "classroom_data" / "results" / ASSIGNMENT / "bob.json").write_text('{"student": 1}')
    with pytest.raises(CourseError, match=r"bob\.json is not a result of `course grade`"):
        report(course, "a90")


def test_command_line(course, tmp_path, monkeypatch):
    monkeypatch.chdir(course)
    save(course, mark_of("ada", 2, by_hand=1), Mark("bob", ASSIGNMENT, problem="no notebook"))
    inbox = tmp_path / "inbox" / "ada" / ASSIGNMENT
    write(inbox / f"{ASSIGNMENT}.ipynb", nbformat.v4.new_notebook())
    command = ["report", "a90", "--out", str(tmp_path / "p.html"), "--submissions", str(tmp_path / "inbox")]
    fine = CliRunner().invoke(app, command)
    assert fine.exit_code == 0, fine.output
    assert "2 students, 1 could not be graded, 1 without a final mark" in " ".join(fine.output.split())
    assert (tmp_path / "p.html").is_file() and (tmp_path / "p_canvas.csv").is_file()
    assert CliRunner().invoke(app, ["report", "a99"]).exit_code == 1
    assert CliRunner().invoke(app, ["report"]).exit_code == 2
    assert CliRunner().invoke(app, ["report", "a90", "--out", str(tmp_path)]).exit_code == 2
