"""How a test reads a page: as a browser takes it apart, and with what must hold for every page about strangers."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>{{ 7 * 7 }}</title>&lt;b&gt;"


class Tags(HTMLParser):
    """What a browser would make of a page: its elements with attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(page: str, links: tuple[str, ...] = ("#",)) -> Tags:
    """No script, no handler, nothing fetched, and a policy that allows the page's own style only."""
    seen = Tags(page)
    for tag, attributes in seen.elements:
        assert tag not in ("script", "iframe", "form", "object", "embed", "link", "base", "input", "button"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset")], attributes
        assert attributes.get("src", "data:image/svg+xml;base64,").startswith("data:image/"), attributes
        assert attributes.get("href", "#").startswith(links), attributes
    [policy] = [a["content"] for tag, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    return seen
