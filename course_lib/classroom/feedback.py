"""What a student reads: one page with every graded cell, and for a failed check what was expected and what came.

The page is made of the marks alone. Of the instructor's notebooks it takes the headings that students have anyway;
lines of solutions and hidden tests are struck out even where a student's own error message brings them back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nbformat import NotebookNode

from course_lib.classroom.pages import render, write_page
from course_lib.classroom.release import MARKERS, secrets
from course_lib.classroom.scores import Cell, Mark

PAGE = "feedback.html"
WITHHELD = "[withheld: a line of the grader]"
HINT = "\n  Likely cause: "  # as course_lib.core.checks writes it
EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*)(?::\s*|\s*$)")
LECTURE = re.compile(r"Lectures? \d+(?:(?:,| and)? §\d+(?:\.\d+)*(?: \(\d+\))?|, notation|, line \(\d+\))*")

# How the functions of course_lib.core.checks say what they compared, the most particular first. Names may hold colons.
COMPARED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<name>.*?): (?P<more>\d+ values, largest difference .*?) (?P<at>at \[.*?\]): "
        r"got (?P<got>\S+), want (?P<want>\S+)$",
        r"(?P<name>.*?): got (?P<got>\S+), want (?P<want>\S+), (?P<more>difference \S+.*)$",
        r"(?P<name>.*?): (?P<more>shapes differ), got (?P<got>.+?), want (?P<want>.+)$",
        r"(?P<name>.*): got (?P<got>.+?), want (?P<want>.+)$",
    )
)


@dataclass(frozen=True)
class Failure:
    """A failed check, taken apart; parts that the message does not have are empty.

    Attributes:
        kind: check (it compared and differed), error (the code raised), unanswered (the blank is still there).
        claim: what should have held, or the exception.
        got, want: what came and what was expected.
        more: where, by how much, and what was allowed.
        cause: the likely one, as the check words it.
        lecture: where to read, as the check words it.
    """

    kind: Literal["check", "error", "unanswered"]
    claim: str
    got: str = ""
    want: str = ""
    more: str = ""
    cause: str = ""
    lecture: str = ""


def failure_of(cell: Cell) -> Failure:
    """The failed check of a cell from its message; without one, from its reason."""
    text = (cell.message or cell.reason).strip()
    exception = EXCEPTION.match(text)
    if exception and exception[1] == "NotImplementedError":
        return Failure("unanswered", "not answered yet")
    raised = exception and re.search(r"(Error|Exception|Interrupt|Exit|Failed|Iteration|Warning)$", exception[1])
    if raised and text[exception.end() :].startswith("✗"):
        text = text[exception.end() :]
    if text.startswith("✗"):
        return _check(text.removeprefix("✗").strip())
    if raised and exception[1] == "AssertionError":
        return Failure("check", text[exception.end() :] or "a check that says no more than that it failed")
    return Failure("error" if raised else "check", text or "no reason was recorded")


def _check(text: str) -> Failure:
    compared, _, cause = text.partition(HINT)
    cause, lecture = _lecture(cause.strip())
    head, _, rest = compared.partition("\n")  # a ledger adds its table below
    for pattern in COMPARED:
        found = pattern.match(head)
        if found:
            parts = found.groupdict("")
            more = ", ".join(part for part in (parts.get("more", ""), parts.get("at", "")) if part)
            return Failure("check", parts["name"], parts["got"], parts["want"], more, cause, lecture)
    return Failure("check", head, more=rest, cause=cause, lecture=lecture)


def _lecture(cause: str) -> tuple[str, str]:
    """The cause and the places to read; a reference that only follows the cause is taken out of it."""
    found = list(LECTURE.finditer(cause))
    if not found:
        return cause, ""
    before, after = cause[: found[-1].start()], cause[found[-1].end() :]
    places = "; ".join(dict.fromkeys(match[0] for match in found))
    if after.strip(" .)") or not re.search(r"(^|[.:;?!] |\()$", before):
        return cause, places
    return before.rstrip(" (").rstrip(":;"), places


@dataclass(frozen=True)
class Question:
    """One graded cell on the page."""

    cell: Cell
    heading: str
    state: Literal["passed", "failed", "unanswered", "waiting", "marked"]
    failure: Failure | None


def write_feedback(mark: Mark, sources: dict[str, NotebookNode], folder: Path) -> tuple[Path, ...]:
    """Write the student's page into `folder` and return its path, as a tuple for `Mark.feedback`.

    Attempts at tampering are not on it: they are for the instructor to look at first.

    Args:
        mark: graded or not.
        sources: the instructor's notebooks of the assignment, by name.
        folder: made if missing.
    """
    strike = _Strike(sources)
    headings = {name: heading for notebook in sources.values() for name, heading in headings_of(notebook)}
    questions = []
    for cell in mark.cells:
        failure = failure_of(cell) if cell.failed else None
        failure = failure and Failure(failure.kind, *(strike(getattr(failure, part)) for part in _TEXTS))
        questions.append(Question(_struck(cell, strike), headings.get(cell.name, ""), _state(cell, failure), failure))
    waiting = sum(cell.points for cell in mark.cells if cell.waiting)
    page = render(
        "feedback.html.j2",
        mark=mark,
        title=title_of(sources) or mark.assignment,
        problem=strike(mark.problem),
        advice=advice(mark.problem) if mark.problem else [],
        groups=[(name, list(group)) for name, group in itertools.groupby(questions, lambda q: q.heading)],
        automatic=sum(not cell.manual for cell in mark.cells),
        waiting=waiting,
        score=sum(cell.score for cell in mark.cells if not cell.waiting),
        failed=sum(question.state in ("failed", "unanswered") for question in questions),
        notes=[strike(note) for note in mark.notes],
    )
    return (write_page(folder / PAGE, page),)


_TEXTS = ("claim", "got", "want", "more", "cause", "lecture")


def _state(cell: Cell, failure: Failure | None) -> Literal["passed", "failed", "unanswered", "waiting", "marked"]:
    if cell.waiting or cell.manual:
        return "waiting" if cell.waiting else "marked"
    if failure is None:
        return "passed"
    return "unanswered" if failure.kind == "unanswered" else "failed"


def _struck(cell: Cell, strike: _Strike) -> Cell:
    return Cell(
        cell.name,
        cell.score,
        cell.points,
        cell.manual,
        cell.waiting,
        strike(cell.reason),
        strike(cell.message),
        tuple(strike(line.removeprefix("✓").strip()) for line in cell.passed),
    )


class _Strike:
    """Strikes out every line in which a line of a solution or hidden test stands, quoted or not."""

    def __init__(self, sources: dict[str, NotebookNode]) -> None:
        lines = {secret for notebook in sources.values() for secret in secrets(notebook)}
        # a line that is one string is part of a message or hint, and those are meant to be read
        self.secrets = {_bare(line) for line in lines if not re.fullmatch(r"[a-z]?(['\"]).*\1[,)]*", line)}

    def __call__(self, text: str) -> str:
        return "\n".join(WITHHELD if self._holds(_bare(line)) else line for line in text.split("\n"))

    def _holds(self, line: str) -> bool:
        return any(secret in line for secret in self.secrets)


def _bare(line: str) -> str:
    """Without what quoting a line changes: white space, backslashes and quotation marks."""
    return re.sub(r"[\s\\'\"]+", "", line)


def headings_of(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Every graded cell's grade_id with the last heading above it, without the points that it may name."""
    hidden, heading = secrets(notebook), ""
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and not meta.get("solution") and not meta.get("task"):
            found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", cell.source, re.MULTILINE)
            # a mark scheme in a released cell has headings too
            shown = [line for line in found if not MARKERS.search(line) and not any(line in s for s in hidden)]
            heading = shown[-1] if shown else heading
        if meta.get("grade") or meta.get("task"):
            yield meta["grade_id"], re.sub(r"\s*\([^()]*\bpoints?\b[^()]*\)$", "", plain(heading))


def title_of(sources: dict[str, NotebookNode]) -> str:
    """First heading of the assignment; empty if there is none."""
    for notebook in sources.values():
        for cell in notebook.cells:
            found = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
            if found:
                return plain(found[1].strip())
    return ""


def plain(markdown: str) -> str:
    """A heading without the signs of Markdown and LaTeX."""
    return re.sub(r"[*`$]|\\(?=[a-zA-Z])", "", markdown)


ADVICE = (
    (r"not JSON|not a notebook|format 4|unreadable", "The file cannot be read as a notebook. Open it in JupyterLab; if "
     "it does not open there either, take the last version that did, and save that."),
    (r"missing \(found|no notebook|nothing submitted|no folder|is missing", "The notebook was not where it was looked "
     "for. Hand it in under the name that it had when you got it."),
    (r"graded cells are missing|not in the assignment", "Cells that carry points are gone, or belong to another "
     "version. Fetch the assignment again and copy your answers into the fresh notebook."),
    (r"memory|MiB", "It took more memory than there is for one submission. Look for tensors that grow in a loop, "
     "histories that are kept, or sizes larger than the assignment asks for."),
    (r"\btime|took longer|seconds|timeout", "It ran longer than allowed. Look for a loop that does not end, or a "
     "training longer than the assignment asks for."),
    (r"kernel|died|killed|exit", "The Python process ended while your notebook ran. Look for exit(), for too much "
     "memory, and for code that waits for input."),
    (r"link", "A link was handed in where a file was expected. Hand in the file itself."),
)  # fmt: skip


def advice(problem: str) -> list[str]:
    """What a student can do about a submission that could not be graded: by its reason, then what always helps."""
    fitting = [text for pattern, text in ADVICE if re.search(pattern, problem, re.IGNORECASE)][:1]
    return [
        *fitting,
        "In JupyterLab, choose Kernel → Restart Kernel and Run All Cells. It should reach the last cell.",
        "Hand the notebook in again. If it runs for you, send this page to your instructor: the fault may be ours.",
    ]
