"""`course report`: one page for the instructor about a graded assignment, and the CSV files that go with it."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from course_lib.classroom import results
from course_lib.classroom.course import Course, CourseError
from course_lib.classroom.exports import (
    Roster,
    cell_text,
    course_roster,
    missing,
    read_roster,
    write_canvas,
    write_moodle,
)
from course_lib.classroom.feedback import headings_of, title_of, write_feedback
from course_lib.classroom.item_analysis import FEWEST, OUTLIER, Item, common_failures, items, outliers
from course_lib.classroom.pages import render, write_page
from course_lib.classroom.scores import Mark
from course_lib.classroom.similarity import (
    ALIKE,
    COMMON_LEAST,
    COMMON_SHARE,
    FEWEST_SHINGLES,
    SHINGLE,
    Pair,
    Similar,
    compare,
    own_pieces,
    released_lines,
    side_by_side,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS_LISTED, PAIRS_SHOWN = 100, 15  # in the table; side by side
FAILURES_SHOWN = 60
SHOWN_CHARACTERS = 12_000  # of one student's text beside another's


@dataclass(frozen=True)
class Written:
    """What `report` wrote, and what it found.

    Attributes:
        page: the HTML file.
        tables: the CSV files.
        students, ungraded: how many marks there are, and how many of these say "could not grade".
        left_out: students without a final mark, who are not in the exports.
    """

    page: Path
    tables: tuple[Path, ...]
    students: int
    ungraded: int
    left_out: int


def report(
    root: Path | str,
    assignment: str,
    data: Path | None = None,
    out: Path | None = None,
    submissions: Path | None = None,
    roster: Path | None = None,
) -> Written:
    """Write the report of an assignment from the results that `course grade` left.

    Args:
        root: the course folder.
        assignment: its name.
        data: where `course grade` was told to keep its results; default: the configured folder.
        out: the page; tables go beside it. Default: `reports/<assignment>.html` in the folder of the results.
        submissions: holds `<student>/<assignment>/`, for the comparison; default: the copies that grading made.
        roster: a file that Canvas or Moodle exported, for the exports.

    Raises:
        CourseError: unknown assignment, a folder or roster that is not there, a result that is none.
    """
    for folder, option in ((data, "--data"), (submissions, "--submissions")):
        if folder is not None and not folder.is_dir():
            raise CourseError(f"no folder {folder} ({option})")
    course = Course.at(root, data)
    [assignment] = course.assignments([assignment])
    people = read_roster(roster) if roster else course_roster(course)
    out = out or course.data / "reports" / f"{assignment}.html"
    marks = current_marks(course, assignment)
    folder = submissions or course.folder("submitted", "")
    similar, released = _compared(course, assignment, folder)
    try:
        tables = _write_tables(out, assignment, marks, people, similar)
        page = write_page(out, page_of(course, assignment, marks, folder, similar, released, tables, out))
    except OSError as error:
        raise CourseError(f"cannot write {error.filename or out}: {error.strerror}") from error
    ungraded = sum(bool(mark.problem) for mark in marks)
    return Written(page, tables, len(marks), ungraded, len(missing(marks)))


def current_marks(course: Course, assignment: str) -> list[Mark]:
    """The results, with what people have entered in formgrader since."""
    marks = list(results.load(course.data / "results" / assignment))
    url = course.config.CourseDirectory.db_url
    if not marks or (url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file()):
        return marks
    from course_lib.classroom.register import Register  # pulls in all that grading needs

    with Register(course, assignment, write_feedback) as register:
        return [register.refresh(mark) for mark in marks]


def _compared(course: Course, assignment: str, folder: Path) -> tuple[Similar, frozenset[str]]:
    released = released_lines(course.sources(assignment).values())
    students = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    theirs = [name for name in students if not name.startswith(".") and (folder / name / assignment).is_dir()]
    return compare((name, own_pieces(folder / name / assignment, released)) for name in theirs), released


def _write_tables(
    out: Path, assignment: str, marks: Sequence[Mark], roster: Roster, similar: Similar
) -> tuple[Path, ...]:
    canvas, moodle, pairs = (out.with_name(f"{out.stem}_{kind}.csv") for kind in ("canvas", "moodle", "pairs"))
    write_canvas(canvas, assignment, marks, roster)
    write_moodle(moodle, marks, roster)
    with pairs.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "other student", "similarity", "sequences shared"])
        writer.writerows([cell_text(p.a), cell_text(p.b), f"{p.jaccard:.3f}", p.shared] for p in similar.pairs)
    return canvas, moodle, pairs


def page_of(
    course: Course,
    assignment: str,
    marks: Sequence[Mark],
    folder: Path,
    similar: Similar,
    released: frozenset[str],
    tables: Sequence[Path],
    out: Path,
) -> str:
    """The page as text.

    Args:
        course, assignment: what was graded.
        marks: of all students, in the order in which they are listed.
        folder: of the submissions, for the pairs side by side.
        similar, released: result of the comparison, and the lines that it left out.
        tables: files beside the page.
        out: where the page will be, for its links.
    """
    sources = course.sources(assignment)
    graded = [mark for mark in marks if not mark.problem]
    found = items(marks)
    failures = common_failures(marks)
    taken = {
        "seconds": {mark.student: mark.seconds for mark in marks},
        "MiB": {mark.student: mark.peak_mib for mark in marks},
    }
    shares = [mark.total() / mark.points() for mark in graded if mark.points() and not mark.needs_manual]
    tests = [mark.score(manual=False) / mark.points(manual=False) for mark in graded if mark.points(manual=False)]
    return render(
        "class_report.html.j2",
        assignment=assignment,
        title=title_of(sources) or assignment,
        marks=marks,
        graded=graded,
        ungraded=[mark for mark in marks if mark.problem],
        waiting=[mark for mark in graded if mark.needs_manual],
        tampering=[mark for mark in marks if mark.attempts],
        repaired=[mark for mark in marks if mark.notes],
        tests=_summary(tests),
        totals=_summary(shares),
        scores_plot=_scores_plot(tests, shares),
        items=found,
        headings={name: heading for notebook in sources.values() for name, heading in headings_of(notebook)},
        items_plot=_items_plot(found),
        failures=failures[:FAILURES_SHOWN],
        failures_left=len(failures) - FAILURES_SHOWN,
        outliers={unit: outliers(values) for unit, values in taken.items()},
        medians={unit: _median(values.values()) for unit, values in taken.items()},
        costs_plot=_costs_plot(taken),
        similar=similar,
        folder=folder,
        pairs=similar.pairs[:PAIRS_LISTED],
        shown=list(_shown(similar, folder, assignment, released)),
        nearest_plot=_nearest_plot(similar),
        tables=[(path.name, quote(path.name)) for path in tables],
        left_out=missing(marks),
        feedback=_links(marks, out),
        constants={
            "alike": ALIKE,
            "shingle": SHINGLE,
            "least": FEWEST_SHINGLES,
            "share": COMMON_SHARE,
            "common": COMMON_LEAST,
            "fewest": FEWEST,
            "outlier": OUTLIER,
        },
    )


def _summary(shares: Sequence[float]) -> dict[str, float] | None:
    if not shares:
        return None
    lower, middle, upper = np.quantile(shares, [0.25, 0.5, 0.75]).tolist()
    return {"n": len(shares), "mean": float(np.mean(shares)), "median": middle, "lower": lower, "upper": upper}


def _median(values: Iterator[float]) -> float:
    measured = [value for value in values if value > 0]
    return float(np.median(measured)) if measured else 0.0


def _links(marks: Sequence[Mark], out: Path) -> dict[str, str]:
    """Where each student's page lies, as seen from the report."""
    base = out.resolve().parent
    return {
        mark.student: quote(Path(os.path.relpath(mark.feedback[0].resolve(), base)).as_posix())
        for mark in marks
        if mark.feedback and mark.feedback[0].is_file()
    }


@dataclass(frozen=True)
class Shown:
    """A pair with both texts, each in stretches that the other has too, or has not."""

    pair: Pair
    left: list[tuple[str, list[tuple[str, bool]]]]
    right: list[tuple[str, list[tuple[str, bool]]]]


def _shown(similar: Similar, folder: Path, assignment: str, released: frozenset[str]) -> Iterator[Shown]:
    for pair in similar.pairs[:PAIRS_SHOWN]:
        a, b = (own_pieces(folder / student / assignment, released) for student in (pair.a, pair.b))
        left, right = side_by_side(a, b, similar.common)
        yield Shown(pair, _cut(left), _cut(right))


def _cut(pieces: list[tuple[str, list[tuple[str, bool]]]]) -> list[tuple[str, list[tuple[str, bool]]]]:
    left, kept = SHOWN_CHARACTERS, []
    for name, stretches in pieces:
        short = []
        for text, both in stretches:
            if left > 0:
                short.append((text if len(text) <= left else text[:left] + " […]", both))
            left -= len(text)
        if short:
            kept.append((name, short))
    return kept


# plots: SVG inside the page, in the colours of the lectures


def _plot(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """The figure that `draw` fills, as a data URI."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from course_lib.viz.figures import use_course_style

    buffer = io.StringIO()
    with mpl.rc_context():
        use_course_style()
        # names are shown as they are: a $ in one starts no formula
        mpl.rcParams.update({"text.parse_math": False, "svg.hashsalt": "course", "font.size": 10})
        figure = Figure(figsize=(width, height))
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue().encode()).decode()


def _scores_plot(tests: Sequence[float], totals: Sequence[float]) -> str | None:
    if not tests and not totals:
        return None

    def draw(figure: Figure) -> None:
        shown = [("automatic tests", tests, "C0"), ("whole assignment, complete marks", totals, "C2")]
        shown = [row for row in shown if row[1]]
        for axes, (name, shares, colour) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            percent = 100 * np.asarray(shares)
            axes.hist(percent, bins=np.linspace(0, 100, 21), color=colour, edgecolor="white", linewidth=0.6)
            middle = float(np.median(percent))
            axes.axvline(middle, color="black", linewidth=1.2, linestyle="--")
            axes.set_title(f"{name}: median {middle:.0f} %", fontsize=10, loc="left")
            axes.set_xlabel("% of the points")
            axes.set_ylabel("students")
            axes.set_xlim(min(0, percent.min()), max(100, percent.max()))
            axes.yaxis.get_major_locator().set_params(integer=True)

    return _plot(10.5, 3.0, draw)


def _items_plot(found: Sequence[Item]) -> str | None:
    if not any(item.difficulty is not None for item in found):
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for row, item in enumerate(found):
            if item.difficulty is not None:
                left.barh(row, item.difficulty, color="C4" if item.manual else "C0", height=0.66)
            if item.discrimination is None:
                right.text(
                    0, row, "not defined", ha="center", va="center", fontsize=8, color="0.45", backgroundcolor="white"
                )
                continue
            if item.low is not None:
                right.plot([item.low, item.high], [row, row], color="0.6", linewidth=1.6, solid_capstyle="round")
            colour = "C1" if item.discrimination < 0.2 else "C2"
            right.plot(item.discrimination, row, "o", color=colour, markersize=6)
        right.axvline(0, color="black", linewidth=0.8)
        left.set_yticks(range(len(found)), [item.name for item in found], fontsize=9)
        left.set_ylim(len(found) - 0.4, -0.6)
        left.set_xlim(0, 1)
        right.set_xlim(-1, 1)
        right.set_xticks([-1, -0.5, 0, 0.5, 1])
        left.set_xlabel("difficulty: share of the points reached")
        right.set_xlabel("discrimination: correlation with the rest score, 95 % interval")
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
        right.tick_params(left=False)

    return _plot(10.5, 1.1 + 0.3 * len(found), draw)


def _costs_plot(taken: dict[str, dict[str, float]]) -> str | None:
    shown = {unit: [v for v in values.values() if v > 0] for unit, values in taken.items()}
    shown = {unit: values for unit, values in shown.items() if len(values) >= FEWEST}
    if not shown:
        return None

    from matplotlib.ticker import LogLocator, NullFormatter

    def draw(figure: Figure) -> None:
        names = {"seconds": "time to grade, seconds", "MiB": "peak memory, MiB"}
        for axes, (unit, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            low, high = min(values), max(values)
            wide = high > 20 * low
            bins = np.geomspace(low, high, 31) if wide else np.linspace(low, high if high > low else low + 1, 31)
            axes.hist(values, bins=bins, color="C0", edgecolor="white", linewidth=0.6)
            far = [outlier.value for outlier in outliers(taken[unit])]
            axes.plot(far, np.zeros(len(far)), "|", color="C1", markersize=16, markeredgewidth=2)
            if wide:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(names[unit])
            axes.set_ylabel("students")
            axes.yaxis.get_major_locator().set_params(integer=True)

    return _plot(10.5, 2.8, draw)


def _nearest_plot(similar: Similar) -> str | None:
    if len(similar.compared) < FEWEST:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.hist(similar.nearest, bins=np.linspace(0, 1, 41), color="C0", edgecolor="white", linewidth=0.6)
        axes.axvline(ALIKE, color="C1", linewidth=1.4, linestyle="--")
        axes.set_xlim(0, 1)
        axes.set_xlabel("similarity to the nearest other submission; pairs right of the line are listed")
        axes.set_ylabel("students")
        axes.yaxis.get_major_locator().set_params(integer=True)

    return _plot(10.5, 2.5, draw)
