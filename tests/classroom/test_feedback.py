"""The student's page says what was expected and what came: no hidden test, no script, and no 0 for what has no mark."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_markdown_cell

from course_lib.classroom.course import Course
from course_lib.classroom.feedback import WITHHELD, Failure, failure_of, write_feedback
from course_lib.classroom.release import secrets
from course_lib.classroom.safe_html import clean_html, markdown2html
from course_lib.classroom.scores import Cell, Mark
from course_lib.core import checks as check
from tests.classroom.html_pages import HOSTILE, Tags, assert_harmless
from tests.classroom.tiny_course import ASSIGNMENT, ROOT, tiny_notebook

REAL = sorted(p.name for p in (ROOT / "solutions").iterdir() if p.is_dir())


def message_of(broken) -> str:
    with pytest.raises(check.CheckFailed) as raised:
        broken()
    return str(raised.value)


def failed(message: str, name: str = "test_double__value", points: float = 2) -> Cell:
    return Cell(name, 0.0, points, False, False, message.splitlines()[0], message)


def page_of(mark: Mark, folder: Path, sources: dict | None = None) -> str:
    [path] = write_feedback(mark, sources or {ASSIGNMENT: tiny_notebook()}, folder)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (
            lambda: check.close("KL: at μ = 1", 1.25, 3.5, hint="a lost ½, the sign. Lecture 04 §3"),
            Failure("check", "KL: at μ = 1", "1.25", "3.5", "difference 2.25 (allowed 3.6e-05)", "a lost ½, the sign.",
                    "Lecture 04 §3"),
        ),
        (
            lambda: check.close("z", torch.zeros(2, 2), torch.tensor([[2.0, 0], [-3, 5]]), hint="σ (Lecture 04 §4)"),
            Failure("check", "z", "0", "5", "4 values, largest difference 5 (allowed 5.1e-05), at [1, 1]", "σ",
                    "Lecture 04 §4"),
        ),
        (
            lambda: check.close("s", torch.zeros(3, 2), torch.zeros(2), hint="sum it. Lecture 19, notation"),
            Failure("check", "s", "(3, 2)", "(2,)", "shapes differ", "sum it.", "Lecture 19, notation"),
        ),
        (
            lambda: check.close("Monte Carlo", 1.0, 2.0, stderr=0.1),
            Failure("check", "Monte Carlo", "1", "2", "difference 1 = 10.0 s.e. (allowed 0.5)"),
        ),
        (
            lambda: check.shape("one: per picture", None, (2,), hint="Lecture 09 §1 (6)"),
            Failure("check", "one: per picture", "NoneType", "a tensor of shape (2,)", "", "", "Lecture 09 §1 (6)"),
        ),
        (
            lambda: check.less("a bound", 3.0, 2.5, hint="see Lecture 04 §5: the constant"),
            Failure("check", "a bound", "3", "less than 2.5", "", "see Lecture 04 §5: the constant", "Lecture 04 §5"),
        ),
        (
            lambda: check.true("it never hurts", False, "gain: got -0.1 nats, want > 0", hint="x. Lecture 19 §2, §9"),
            Failure("check", "it never hurts: gain", "-0.1 nats", "> 0", "", "x.", "Lecture 19 §2, §9"),
        ),
        (lambda: check.true("boolean", False), Failure("check", "boolean", "False", "True")),
    ],
)  # fmt: skip
def test_what_the_checks_say_is_taken_apart(broken, expected):
    message = message_of(broken)
    assert failure_of(failed(message)) == expected
    assert failure_of(failed(f"CheckFailed: {message}")) == expected


def test_every_other_message_is_kept_as_it_is():
    assert failure_of(failed("NotImplementedError")).kind == "unanswered"
    assert failure_of(failed("NotImplementedError: write it")).kind == "unanswered"
    assert failure_of(failed("NameError: name 'x: got 1, want 2' is not defined")) == Failure(
        "error", "NameError: name 'x: got 1, want 2' is not defined"
    )
    assert failure_of(failed("AssertionError: double(2) is 4")) == Failure("check", "double(2) is 4")
    assert failure_of(failed("torch.OutOfMemoryError: a lot")).kind == "error"
    without = Cell("t", 0.0, 1.0, False, False, "changed by hand in the gradebook")
    assert failure_of(without) == Failure("check", "changed by hand in the gradebook")
    ledger = check.Ledger("ELBO = log p − KL")
    ledger.line("log p", 1.0)
    ledger.equal("ELBO + KL", 2.0)
    broken = failure_of(failed(message_of(ledger.show)))
    assert broken.claim == "ELBO = log p − KL: ELBO + KL" and "✗  ELBO + KL" in broken.more


def test_page_of_a_graded_submission(tmp_path):
    wrong = message_of(lambda: check.close("‖(3, 4)‖", 7.0, 5.0, hint="a sum, not a root. Lecture 01 §2"))
    cells = (
        Cell("test_double__value", 2, 2, False, False, "", passed=("✓ double(2) is 4: got 4, want 4",)),
        failed("NotImplementedError", "test_double__list", 1),
        failed(wrong, "test_norm__value", 3),
        Cell("why", 0, 4, True, True, ""),
    )
    mark = Mark("ada", ASSIGNMENT, cells=cells, penalty=0.5, notes=("renamed file taken",), attempts=("read a secret",))
    notebook = tiny_notebook()
    notebook.cells.insert(5, new_markdown_cell("### 1.2 The norm (3 points)"))
    seen = assert_harmless(page_of(mark, tmp_path, {ASSIGNMENT: notebook}))
    text = " ".join(seen.text.split())
    for part in (
        "1.5 of 10 points",
        "taken off for lateness 0.5",
        "waiting for a person 4",
        "1.2 The norm test_norm__value ✗ failed 0 / 3 ‖(3, 4)‖ Expected 5 Came 7 Compared difference 2",
        "Likely cause a sum, not a root. Read Lecture 01 §2",
        "test_double__value ✓ passed 2 / 2 1 check passed ✓ double(2) is 4: got 4, want 4",
        "test_double__list not answered yet 0 / 1",
        "why waits for a person – / 4",
        "2 of 3 automatic cells have a check that failed",
        "renamed file taken",
    ):
        assert part in text, part
    assert "read a secret" not in text


def test_page_of_what_could_not_be_graded(tmp_path):
    problem = f"{ASSIGNMENT}.ipynb is not JSON: Expecting value: line 1 column 2 (char 1)"
    text = " ".join(assert_harmless(page_of(Mark("ada", ASSIGNMENT, problem=problem), tmp_path)).text.split())
    assert problem in text and "It is not a 0" in text and "take the last version that did" in text
    assert "of 10 points" not in text
    other = " ".join(Tags(page_of(Mark("ada", ASSIGNMENT, problem="something new"), tmp_path)).text.split())
    assert "something new" in other and "Restart Kernel and Run All Cells" in other


def test_perfect_and_empty_marks(tmp_path):
    perfect = Mark("ada", ASSIGNMENT, cells=(Cell("test_norm__value", 3, 3, False, False, ""),))
    assert "Every check passed." in Tags(page_of(perfect, tmp_path)).text
    assert "no graded cells" in Tags(page_of(Mark("ada", ASSIGNMENT), tmp_path)).text


def test_nothing_of_a_stranger_becomes_html(tmp_path):
    hint = f"✗ {HOSTILE}: got {HOSTILE}, want {HOSTILE}\n  Likely cause: {HOSTILE} Lecture 04 §3"
    cells = (
        failed(hint),
        failed(f"ValueError: {HOSTILE}", HOSTILE, 1),
        Cell("test_norm__value", 3, 3, False, False, "", HOSTILE, (f"✓ {HOSTILE}",)),
    )
    for mark in (
        Mark(HOSTILE, ASSIGNMENT, cells=cells, notes=(HOSTILE,)),
        Mark(HOSTILE, ASSIGNMENT, problem=HOSTILE),
    ):
        seen = assert_harmless(page_of(mark, tmp_path))
        assert "img" not in {tag for tag, _ in seen.elements}
        assert HOSTILE in seen.text


def test_what_no_file_can_hold_is_replaced(tmp_path):
    name = "ada\ud800\u202e\x00\x1b[31m"
    text = Tags(page_of(Mark(name, ASSIGNMENT, cells=(failed(f"KeyError: '{name}'"),)), tmp_path)).text
    assert "ada����[31m" in text and "KeyError: 'ada����[31m'" in text


def test_hidden_tests_and_solutions_do_not_come_back_in_messages(tmp_path):
    notebook = tiny_notebook()
    hidden = secrets(notebook)
    assert {"assert double(-3.5) == -7.0", "twice_the_value = x + x"} <= hidden
    quoted = "\\n".join(sorted(hidden))
    cells = (
        failed("ValueError: " + "\n".join(f"   {line}" for line in hidden)),
        failed(f"✗ {quoted}: got 1, want 2\n  Likely cause: {quoted}", "test_double__list"),
        failed("assert   double( -3.5 )   == -7.0 and 'twice_the_value = x \\+ x'", "test_norm__value"),
        Cell("why", 4, 4, True, False, "", passed=tuple(f"✓ {line!r}" for line in hidden)),
    )
    for mark in (
        Mark("eve", ASSIGNMENT, cells=cells, notes=(quoted,)),
        Mark("eve", ASSIGNMENT, problem=f"it failed at {quoted}"),
    ):
        text = re.sub(r"[\s\\'\"]", "", Tags(page_of(mark, tmp_path)).text)
        assert re.sub(r"\s", "", WITHHELD) in text
        for line in hidden:
            assert re.sub(r"[\s\\'\"]", "", line) not in text


def test_headings_of_hidden_mark_schemes_stay_hidden(tmp_path):
    notebook = tiny_notebook()
    notebook.cells[-1].source = "# The model answer\nBecause it is so."
    scheme = "## Open\n### BEGIN MARK SCHEME\n## What the answer should have\n### END MARK SCHEME"
    notebook.cells.insert(-1, new_markdown_cell(scheme))
    cells = tuple(Cell(name, 0, 1, name == "why", False, "x") for name in ("test_norm__value", "why"))
    text = page_of(Mark("ada", ASSIGNMENT, cells=cells), tmp_path, {ASSIGNMENT: notebook})
    assert "Open" in text and "model answer" not in text and "should have" not in text


@pytest.mark.parametrize("assignment", REAL)
def test_hints_of_real_hidden_tests_are_not_struck_out(assignment, tmp_path):
    sources = Course.at(ROOT).sources(assignment)
    strings = {
        node.value
        for notebook in sources.values()
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(strings) > 50
    cells = tuple(failed(f"✗ x: got 1, want 2\n  Likely cause: {text}", f"cell {i}") for i, text in enumerate(strings))
    assert WITHHELD not in page_of(Mark("ada", assignment, cells=cells), tmp_path, sources)


def test_formulas_survive_and_scripts_do_not_in_what_formgrader_shows():
    math = r"$x < y$ and \begin{align} a &= b \\ c &< d \end{align}"
    assert Tags(markdown2html(math)).text.strip() == math
    table = markdown2html("| a | b |\n|---|---|\n| `x<1` | **2** |\n\n![plot](data:image/png;base64,AAAA)")
    assert {"table", "td", "code", "strong", "img"} <= {tag for tag, _ in Tags(table).elements}
    hostile = nbformat.v4.new_markdown_cell(
        f"{HOSTILE} [a](javascript:alert(1)) <a href=' java\tscript:alert(1)'>b</a> <a href='//example.invalid'>c</a>\n"
        "![](http://example.invalid/pixel.png) <b id=why class=score style='position:fixed' name=x onclick=x>d</b>\n"
        '`<b title="` <img src=x onerror=alert(1)>">x</b> <form action=/x><input name=_xsrf></form> <math><mi/></math>'
    ).source
    for made in (markdown2html(hostile), clean_html(hostile), clean_html(hostile.encode())):
        for tag, attributes in Tags(made).elements:
            assert tag in ("p", "a", "b", "img", "code", "br"), tag
            assert set(attributes) <= {"alt"}, (tag, attributes)
