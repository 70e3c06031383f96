"""``report.json`` for programs and ``report.html`` for people: what a run did, with the figures it drew."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import nbformat
from jinja2 import Environment, PackageLoader, StrictUndefined

from course_lib.core.io import write_json

Status = Literal["passed", "failed", "timeout", "invalid"]
THUMBNAIL = (360, 300)  # pixels, at most
WARNING = re.compile(r"\b[A-Z]\w*Warning:")


@dataclass
class NotebookResult:
    """One row of the report.

    Attributes:
        path: relative to the course where possible.
        status: passed, failed (a cell raised or the process died), timeout, or invalid (not a notebook).
        seconds: from the start of its process to the end.
        peak_mib: resident memory of kernel and executor together, sampled several times a second.
        cells, cells_done: code cells that are not empty, the injected parameters included; and how many ended.
        warnings: messages on standard error in the executed notebook.
        error: name, message, cell (the number in ``In [ ]``), source and traceback; None when it passed.
        executed: the executed notebook, relative to the report; None when there is none.
    """

    path: str
    status: Status
    seconds: float
    peak_mib: float
    cells: int
    cells_done: int
    warnings: int
    error: dict | None
    executed: str | None


@dataclass
class Picture:
    """A figure for the page: thumbnail as a data URI, full size as a file beside the report."""

    thumbnail: str
    width: int
    height: int
    file: str
    heading: str


@dataclass
class Section:
    """One notebook on the page."""

    result: NotebookResult
    title: str
    pictures: list[Picture] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_executed(path: Path) -> nbformat.NotebookNode | None:
    """The executed notebook, or None where none was written (or the process was killed while writing it)."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return None


def warning_messages(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells wrote to standard error: one entry per Python warning, one per other piece of text."""
    messages = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr" and output.text.strip():
                lines = [line.strip() for line in output.text.splitlines() if WARNING.search(line)]
                messages += lines or [output.text.strip()]
    return messages


def durations(out: Path, budget: str) -> dict[str, float]:
    """Seconds by path from the report of an earlier run of the same budget in ``out``; empty when there is none."""
    path = out / "report.json"
    if not path.is_file():
        return {}
    try:
        earlier = json.loads(path.read_text())
        if earlier["budget"] != budget:
            return {}
        return {row["path"]: float(row["seconds"]) for row in earlier["notebooks"]}
    except (ValueError, KeyError, TypeError):
        # a broken report only costs the forecast; this run writes a new one
        return {}


def write_report(out: Path, facts: dict[str, object], results: list[NotebookResult]) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` (with ``figures/`` beside it) into ``out``.

    Args:
        out: folder with the executed notebooks.
        facts: budget, seed, device, … of the run; goes to both files.
        results: one for each notebook, in the order of the page.

    Returns:
        the paths of the two files.
    """
    counts = {status: sum(r.status == status for r in results) for status in Status.__args__}
    as_json, as_html = out / "report.json", out / "report.html"
    write_json(as_json, {**facts, "counts": counts, "notebooks": [asdict(result) for result in results]})
    shutil.rmtree(out / "figures", ignore_errors=True)
    sections = [_section(out, result) for result in results]
    environment = Environment(
        loader=PackageLoader("course_lib.classroom", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    longest = max((r.seconds for r in results), default=1.0) or 1.0
    page = environment.get_template("report.html.j2").render(
        facts=facts, counts=counts, sections=sections, longest=longest
    )
    as_html.write_text(page, encoding="utf-8")
    return as_json, as_html


def _section(out: Path, result: NotebookResult) -> Section:
    stem = Path(result.path).stem
    notebook = read_executed(out / result.executed) if result.executed else None
    if notebook is None:
        return Section(result, stem)
    section = Section(result, stem, warnings=warning_messages(notebook))
    folder = out / "figures" / Path(result.executed).relative_to("notebooks").with_suffix("")
    heading, named = "", False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for level, text in re.findall(r"^(#{1,4})\s+(.+?)\s*#*$", cell.source, re.MULTILINE):
                if level == "#" and not named:
                    section.title, named = _plain(text), True
                heading = _plain(text)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in ("png", "jpeg"):
                if f"image/{kind}" in data:
                    name = f"{len(section.pictures) + 1:02d}.{kind}"
                    section.pictures.append(_picture(out, folder / name, data[f"image/{kind}"], heading))
                    break
    return section


def _picture(out: Path, file: Path, encoded: str, heading: str) -> Picture:
    from PIL import Image

    raw = base64.b64decode(encoded)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(raw)
    image = Image.open(io.BytesIO(raw))
    full = image.size
    image = image.convert("RGBA") if image.mode in ("P", "LA", "RGBA") else image.convert("RGB")
    image.thumbnail((2 * THUMBNAIL[0], 2 * THUMBNAIL[1]), Image.Resampling.LANCZOS)  # twice: sharp on dense screens
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    shrink = min(1.0, THUMBNAIL[0] / full[0], THUMBNAIL[1] / full[1])
    return Picture(
        thumbnail="data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(),
        width=max(1, round(full[0] * shrink)),
        height=max(1, round(full[1] * shrink)),
        file=file.relative_to(out).as_posix(),
        heading=heading,
    )


def _plain(markdown: str) -> str:
    return re.sub(r"[*`$]|\\(?=[a-zA-Z])", "", markdown)
