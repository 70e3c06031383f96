"""Near-duplicate submissions: students whose own text shares many token sequences. Pairs to look at, not verdicts.

Compared are the sets of shingles, k tokens in a row, of what a student wrote: comments dropped, identifiers kept, lines
of the released notebook taken out, and then every shingle that many submissions share, since it is the obvious way to
write it (or came from the lecture). What remains of two people who worked apart has little in common.

An inverted index (which submissions hold this shingle?) as a sparse matrix S gives the sizes of all intersections as
S Sᵀ: only pairs that share something cost anything.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nbformat import NotebookNode
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from course_lib.classroom.release import MARKERS

SHINGLE = 6  # tokens
FACTOR = 0x9E3779B97F4A7C15  # odd, so that no digest is lost modulo 2⁶⁴
FEWEST_SHINGLES = 20  # of one's own: of less than this, agreement means nothing
ALIKE = 0.5  # Jaccard index from which a pair is shown
COMMON_SHARE, COMMON_LEAST = 0.1, 5  # a shingle of more students than a tenth of the class, and than five, is common
MAX_BYTES, MAX_CHARACTERS = 20 << 20, 200_000  # of a file, of one student's own text
MOST_PAIRS = 1000  # kept; a group of a hundred has 4,950
BLOCK = 256  # rows of S Sᵀ at a time, which bounds the memory whatever the class

STUBS = ("# YOUR CODE HERE", "raise NotImplementedError()", "YOUR ANSWER HERE")  # what nbgrader puts into blanks
TOKEN = re.compile(
    r"(?P<comment>\#[^\n]*)"
    # a string that is not closed is one all the same: looking for its end again and again would take hours
    r'|(?P<string>[A-Za-z]{0,2}(?:"""(?:[^"\\]|\\.|"(?!""))*(?:""")?|\'\'\'(?:[^\'\\]|\\.|\'(?!\'\'))*(?:\'\'\')?'
    r'|"(?:[^"\\\n]|\\.)*"?|\'(?:[^\'\\\n]|\\.)*\'?))'
    r"|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<operator>\*\*|//|[-+*/%@&|^<>=!:]=|->|<<|>>|[^\s\w])",
    re.DOTALL,
)
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Piece:
    """What a student wrote into one cell; what the release had is blanked, so that offsets still fit `source`."""

    name: str
    code: bool
    source: str
    own: str


@dataclass(frozen=True)
class Pair:
    """Two students with the Jaccard index of their shingles and the number that they share."""

    a: str
    b: str
    jaccard: float
    shared: int


@dataclass(frozen=True)
class Similar:
    """Result of a comparison.

    Attributes:
        compared: students with enough text of their own.
        too_little: those without.
        pairs: with an index of at least `ALIKE`, the most alike first, no more than `MOST_PAIRS`.
        alike: how many such pairs there are.
        groups: students connected by such pairs, three or more; the largest first.
        nearest: for each compared student the highest index with anybody, in the order of `compared`.
        common: keys of shingles that were taken out because many share them.
    """

    compared: tuple[str, ...]
    too_little: tuple[str, ...]
    pairs: tuple[Pair, ...]
    alike: int
    groups: tuple[tuple[str, ...], ...]
    nearest: tuple[float, ...]
    common: frozenset[int]


def released_lines(sources: Iterable[NotebookNode]) -> frozenset[str]:
    """Lines that every student was given: all but solutions, hidden tests and mark schemes; white space squeezed."""
    lines = {_squeeze(stub) for stub in STUBS}
    for notebook in sources:
        for cell in notebook.cells:
            inside = False
            if cell.metadata.get("nbgrader", {}).get("solution") and "BEGIN SOLUTION" not in cell.source:
                continue  # replaced as a whole
            for line in cell.source.splitlines():
                marker = MARKERS.search(line)
                if marker:
                    inside = marker[1].upper() == "BEGIN"
                elif not inside:
                    lines.add(_squeeze(line))
    return frozenset(lines)


def own_pieces(folder: Path, released: frozenset[str]) -> list[Piece]:
    """What a student wrote in the notebooks of a submission's folder; files that are no notebooks give nothing.

    The file is a stranger's: links are not followed, sizes are bounded, and nothing about its structure is believed.
    """
    pieces, left = [], MAX_CHARACTERS
    for path in sorted(folder.glob("*.ipynb")) if folder.is_dir() and not folder.is_symlink() else []:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        for name, code, source in _cells(path):
            source = source[:left]
            lines = source.splitlines(keepends=True)
            own = "".join(_blank(line) if _squeeze(line) in released else line for line in lines)
            if own.strip():
                pieces.append(Piece(name, code, source, own))
                left -= len(source)
    return pieces


def _cells(path: Path) -> Iterator[tuple[str, bool, str]]:
    try:
        notebook = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return  # grading says what is wrong with it
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    for number, cell in enumerate(cells if isinstance(cells, list) else []):
        if isinstance(cell, dict) and cell.get("cell_type") in ("code", "markdown"):
            name = _at(cell, "metadata", "nbgrader", "grade_id")
            yield name if isinstance(name, str) else f"cell {number + 1}", cell["cell_type"] == "code", _text(cell)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(cell: dict[str, Any]) -> str:
    source = cell.get("source")
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _blank(line: str) -> str:
    return re.sub(r"[^\r\n]", " ", line)


def _squeeze(line: str) -> str:
    return " ".join(line.split())


def tokens(piece: Piece) -> list[tuple[str, int, int]]:
    """Tokens of the student's own text with begin and end: Python's for code (broken code too), words for prose."""
    if not piece.code:
        return [(match[0].casefold(), *match.span()) for match in WORD.finditer(piece.own)]
    return [(match[0], *match.span()) for match in TOKEN.finditer(piece.own) if match.lastgroup != "comment"]


def shingles(pieces: Sequence[Piece]) -> dict[int, list[tuple[int, int, int]]]:
    """Keys of all shingles with the places (piece, begin, end) where they stand. A shingle lies within one piece.

    A key is a sum of the tokens' 64-bit digests, each times a factor that belongs to its place, modulo 2⁶⁴.
    """
    found: dict[int, list[tuple[int, int, int]]] = {}
    digests: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        row = tokens(piece)
        count = len(row) - SHINGLE + 1
        if count < 1:
            continue
        for token, _, _ in row:
            if token not in digests:
                digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                digests[token] = int.from_bytes(digest, "big")
        values = np.array([digests[token] for token, _, _ in row], np.uint64)
        keys = sum(values[i : i + count] * np.uint64(FACTOR ** (i + 1) % 2**64) for i in range(SHINGLE)) >> np.uint64(1)
        for i, key in enumerate(keys.tolist()):
            found.setdefault(key, []).append((number, row[i][1], row[i + SHINGLE - 1][2]))
    return found


def compare(submissions: Iterable[tuple[str, Sequence[Piece]]]) -> Similar:
    """Which students' texts are alike.

    Args:
        submissions: student and what they wrote, read one at a time; only the shingles' keys are kept.
    """
    students, keys = [], []
    for student, pieces in submissions:
        students.append(student)
        keys.append(np.fromiter(shingles(pieces), np.int64))
    columns, column = np.unique(np.concatenate([np.empty(0, np.int64), *keys]), return_inverse=True)
    row = np.repeat(np.arange(len(keys)), [len(own) for own in keys])
    matrix = sparse.csr_array((np.ones(len(row), np.int32), (row, column)), shape=(len(keys), len(columns)))
    holders = np.bincount(column, minlength=len(columns))
    common = holders > max(COMMON_LEAST, math.ceil(COMMON_SHARE * len(students)))
    matrix = matrix[:, ~common]
    size = np.asarray(matrix.sum(1)).astype(np.int64) if len(students) else np.empty(0, np.int64)
    enough = size >= FEWEST_SHINGLES
    matrix, size = matrix[enough], size[enough]
    compared = [student for student, fits in zip(students, enough, strict=True) if fits]

    nearest, found = np.zeros(len(compared)), [np.empty((4, 0))]
    for begin in range(0, len(compared), BLOCK):
        shared = (matrix[begin : begin + BLOCK] @ matrix.T).tocoo()
        others = shared.row + begin != shared.col
        a, b, both = shared.row[others].astype(np.int64) + begin, shared.col[others], shared.data[others]
        jaccard = both / (size[a] + size[b] - both)
        np.maximum.at(nearest, a, jaccard)
        alike = (jaccard >= ALIKE) & (a < b)
        found.append(np.stack([a[alike], b[alike], jaccard[alike], both[alike]]))
    a, b, jaccard, both = np.concatenate(found, 1)
    most = np.lexsort((b, a, -both, -jaccard))[:MOST_PAIRS]
    pairs = [Pair(compared[int(a[i])], compared[int(b[i])], float(jaccard[i]), int(both[i])) for i in most]
    return Similar(
        compared=tuple(compared),
        too_little=tuple(student for student, fits in zip(students, enough, strict=True) if not fits),
        pairs=tuple(pairs),
        alike=len(a),
        groups=_groups(compared, a.astype(np.int64), b.astype(np.int64)),
        nearest=tuple(nearest.tolist()),
        common=frozenset(columns[common].tolist()),
    )


def _groups(students: Sequence[str], a: np.ndarray, b: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """Students connected by the edges a–b, from three on."""
    if not len(a):
        return ()
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(len(students), len(students)))
    _, label = connected_components(graph, directed=False)
    members: dict[int, list[str]] = {}
    for student, group in zip(students, label.tolist(), strict=True):
        members.setdefault(group, []).append(student)
    return tuple(sorted((tuple(m) for m in members.values() if len(m) > 2), key=lambda m: (-len(m), m)))


def side_by_side(
    a: Sequence[Piece], b: Sequence[Piece], common: frozenset[int]
) -> tuple[list[tuple[str, list[tuple[str, bool]]]], list[tuple[str, list[tuple[str, bool]]]]]:
    """Both students' pieces by name, each as stretches of text with whether the other has them too."""
    of_a, of_b = shingles(a), shingles(b)
    shared = (of_a.keys() & of_b.keys()) - common
    return _marked(a, of_a, shared), _marked(b, of_b, shared)


def _marked(
    pieces: Sequence[Piece], places: dict[int, list[tuple[int, int, int]]], shared: Iterable[int]
) -> list[tuple[str, list[tuple[str, bool]]]]:
    inside = [np.zeros(len(piece.source), bool) for piece in pieces]
    for key in shared:
        for number, begin, end in places[key]:
            inside[number][begin:end] = True
    result = []
    for piece, hit in zip(pieces, inside, strict=True):
        cuts = [0, *(np.flatnonzero(np.diff(hit)) + 1).tolist(), len(hit)]
        stretches = [(piece.source[i:j], bool(hit[i])) for i, j in itertools.pairwise(cuts) if i < j]
        result.append((piece.name, stretches))
    return result
