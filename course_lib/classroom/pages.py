"""Self-contained HTML pages about what strangers wrote: everything escaped, no script, nothing fetched."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# Control characters but tab and newline, lone halves of surrogate pairs (which UTF-8 cannot encode), and the characters
# that turn the direction of the text around them: a name could make the words beside it say something else.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with � for what would not show, or would change how its surroundings show."""
    return UNPRINTABLE.sub("�", text)


def render(template: str, **context: Any) -> str:
    """A page from `template` (which extends `page.html.j2`); strings in `context` are escaped wherever they appear.

    The page's policy allows its own style sheet, by hash, and pictures inside the page; no script, no form and no
    request to anywhere, so that a hole in the escaping would still do nothing.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return _environment().get_template(template).render(style=Markup(style), policy=policy, **context)


def write_page(path: Path, page: str) -> Path:
    """Write a page, wholly or not at all; folders above it are made. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def points(value: float) -> str:
    """A number of points as people write it: 3, 2.5, 0.33; never -0."""
    return f"{round(value, 2) + 0.0:g}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("course_lib.classroom", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters["points"] = points
    return environment


@functools.cache
def _style() -> str:
    return "\n" + _environment().get_template("page.css.j2").render()
