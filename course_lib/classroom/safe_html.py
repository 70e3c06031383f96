"""HTML that strangers wrote, made harmless after Markdown has become HTML: what formgrader and nbgrader's pages show.

`nbgrader_config.py` puts these two in the place of nbconvert's filters of the same names. Cleaning the Markdown source
instead would damage formulas (``a &= b``, ``x < y``) and leave what Markdown makes of the cleaned text unchecked.
"""

from __future__ import annotations

import html
import re

import bleach
from nbconvert.filters.markdown import markdown2html as nbconvert_markdown2html

TAGS = frozenset(
    re.findall(
        r"\w+",
        "a abbr b blockquote br caption code dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img "
        "kbd li ol p pre s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var",
    )
)
# no id, class, style or name: formgrader finds its own boxes and buttons by them
ATTRIBUTES = {"a": ["href", "title"], "th": ["colspan", "rowspan"], "td": ["colspan", "rowspan"], "ol": ["start"]}
PROTOCOLS = frozenset({"http", "https", "mailto", "data"})
LONGEST = 20_000  # characters of Markdown: what nbconvert makes of a cell takes time with the square of its length
PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/gif;base64,", "data:image/webp;base64,")


def clean_html(page: str | bytes) -> str:
    """The same without scripts, forms, frames, styles, and pictures from elsewhere; other tags are shown as text."""
    text = page.decode(errors="replace") if isinstance(page, bytes) else str(page)
    return bleach.clean(text, tags=TAGS, attributes=_allowed, protocols=PROTOCOLS)


def markdown2html(source: str) -> str:
    """Markdown, formulas left to MathJax, as harmless HTML; a text that is too long, as it is."""
    if len(source) > LONGEST:
        return f"<pre>{html.escape(source)}</pre>"
    return clean_html(nbconvert_markdown2html(source))


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "img":
        # a picture from elsewhere would tell its server who marks what, and when
        return name in ("alt", "title", "width", "height") or (name == "src" and value.startswith(PICTURES))
    if name == "href":
        return value.startswith(("http://", "https://", "mailto:", "#"))
    return name in ATTRIBUTES.get(tag, ())
