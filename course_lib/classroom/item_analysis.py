"""A class in numbers: how hard each question was, what it tells apart, what failed, who sticks out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib.classroom.feedback import Failure, failure_of
from course_lib.classroom.scores import Mark

FEWEST = 3  # students: a correlation of two points is ±1 whatever they are
OUTLIER = 3.5  # robust z beyond which Iglewicz & Hoaglin (1993) call a value an outlier


@dataclass(frozen=True)
class Item:
    """What a class did with one graded cell.

    Attributes:
        name: its grade_id.
        points: possible.
        manual: marked by a person.
        n: students who have a mark for it.
        difficulty: mean of their scores over the points, so 1 is easy; None without any.
        discrimination: correlation of the score with the rest score; None where it is not defined.
        low, high: 95 % interval of the discrimination; None for fewer than four students.
    """

    name: str
    points: float
    manual: bool
    n: int
    difficulty: float | None
    discrimination: float | None
    low: float | None = None
    high: float | None = None


def items(marks: Sequence[Mark]) -> list[Item]:
    """Every graded cell of the graded marks, in the order of first appearance.

    The rest score is the sum over the *other* automatic cells: a cell correlates with a total that it is part of even
    if it measures nothing, and marks by hand are missing for some. For a cell that gives all or nothing, the
    correlation is the point-biserial one. It is not defined for fewer than three students, or where all of them have
    the same score.
    """
    graded = [mark for mark in marks if not mark.problem]
    found: dict[str, list[tuple[float, float]]] = {}
    shown = {}
    for mark in graded:
        total = mark.score(manual=False)
        for cell in mark.cells:
            scores = found.setdefault(cell.name, [])
            shown.setdefault(cell.name, cell)
            if not cell.waiting:
                scores.append((cell.score, total if cell.manual else total - cell.score))
    made = []
    for name, scores in found.items():
        cell = shown[name]
        difficulty = float(np.mean([score for score, _ in scores]) / cell.points) if scores and cell.points else None
        r = correlation(scores)
        low, high = fisher_interval(r, len(scores)) if r is not None else (None, None)
        made.append(Item(name, cell.points, cell.manual, len(scores), difficulty, r, low, high))
    return made


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's r; None for fewer than three pairs, or where either side does not vary."""
    if len(pairs) < FEWEST:
        return None
    x, y = np.asarray(pairs, float).T
    x, y = x - x.mean(), y - y.mean()
    length = math.sqrt(float(x @ x) * float(y @ y))
    # sums of points such as 0.1 + 0.2 differ in the last digit: that is no variation
    if min(np.abs(x).max(), np.abs(y).max()) < 1e-9 or not length:
        return None
    return float(np.clip(x @ y / length, -1.0, 1.0))


def fisher_interval(r: float, n: int) -> tuple[float, float] | tuple[None, None]:
    """95 % confidence interval of a correlation by Fisher's transformation; none for n < 4 or |r| = 1."""
    if n < 4 or abs(r) > 1 - 1e-12:
        return None, None
    half = 1.959964 / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


@dataclass(frozen=True)
class Common:
    """One way in which students failed one cell.

    Attributes:
        cell: its grade_id.
        failure: an example, the most frequent wording.
        students: who failed so, by name.
        share: of the students with a mark for the cell.
    """

    cell: str
    failure: Failure
    students: tuple[str, ...]
    share: float


def common_failures(marks: Sequence[Mark]) -> list[Common]:
    """Failures grouped by cell and check, most students first.

    Numbers in a check's name differ with the random inputs of each submission, so they do not tell groups apart.
    """
    graded = [mark for mark in marks if not mark.problem]
    seen: dict[tuple[str, str, str], list[tuple[str, Failure]]] = {}
    for mark in graded:
        for cell in mark.failures:
            failure = failure_of(cell)
            key = cell.name, failure.kind, re.sub(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", "0", failure.claim)
            seen.setdefault(key, []).append((mark.student, failure))
    having = Counter(cell.name for mark in graded for cell in mark.cells)
    groups = []
    for (cell, _, _), failed in seen.items():
        [(claim, _)] = Counter(failure.claim for _, failure in failed).most_common(1)
        example = next(failure for _, failure in failed if failure.claim == claim)
        students = tuple(sorted(student for student, _ in failed))
        groups.append(Common(cell, example, students, len(students) / having[cell]))
    return sorted(groups, key=lambda group: -len(group.students))


@dataclass(frozen=True)
class Outlier:
    """A student whose submission took unusually much of something; `z` is robust."""

    student: str
    value: float
    z: float


def outliers(values: dict[str, float]) -> list[Outlier]:
    """Those far above the middle of the class, the farthest first; values that are not positive were not measured.

    z = 0.6745 (x − median)/MAD, the deviation of a normal distribution in units of its σ. Where more than half of the
    class agrees to the digit the MAD is 0; then 1.2533 times the mean absolute deviation takes the place of σ.
    (Iglewicz & Hoaglin 1993, "How to detect and handle outliers".)
    """
    measured = {student: value for student, value in values.items() if value > 0}
    if len(measured) < FEWEST:
        return []
    array = np.array(list(measured.values()))
    middle = float(np.median(array))
    spread = float(np.median(np.abs(array - middle))) / 0.6745 or 1.253314 * float(np.abs(array - middle).mean())
    if not spread:
        return []
    found = [Outlier(student, value, (value - middle) / spread) for student, value in measured.items()]
    return sorted((o for o in found if o.z > OUTLIER), key=lambda o: -o.z)
