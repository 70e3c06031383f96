"""nbgrader's formgrader in headless Chromium on a submission that tries to run scripts in the instructor's browser.

A script in a page of formgrader has the instructor's rights: it could give itself any mark. None may run, and marking
by hand must work as always.
"""

from __future__ import annotations

import base64
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from traitlets.config import Config

from course_lib.classroom.course import Course
from course_lib.classroom.grade import grade
from course_lib.core.device import thread_limit
from tests.browser.chromium import CHROMIUM, FLAGS, MINUTE, needs_chromium
from tests.classroom.tiny_course import ASSIGNMENT, make_course, write

GOOD = Path(__file__).parents[1] / "classroom" / "submissions" / "good" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
STUDENT = "mallory"

# each sets a property of the page by its own way; {n} tells them apart
MARKDOWN = (
    "<script>window.pwned = '{n}'</script>",
    "<img src=x onerror=\"window.pwned='{n}'\">",
    "<svg onload=\"window.pwned='{n}'\"></svg>",
    "<details open ontoggle=\"window.pwned='{n}'\">x</details>",
    "<iframe srcdoc=\"<script>parent.pwned='{n}'</script>\"></iframe>",
    "<style>@import url(//example.invalid/x);</style><a href=\"javascript:window.pwned='{n}'\" id='link'>read this</a>",
    '<form action="/formgrader/gradebook" id="form"><button formaction="javascript:window.pwned=1">go</button></form>',
    "`` ` `` <scr<script>ipt>window.pwned='{n}'</scr</script>ipt>",
    "` <b title=\"` <img src=x onerror=window.pwned='{n}'>\">x</b>",
    "[go](javascript:window.pwned=2) <javascript:window.pwned=2> ![](http://example.invalid/pixel.png)",
    "$\\href{javascript:window.pwned=3}{x<y}$ $$<img src=x onerror=window.pwned='{n}'>$$",
    '<input id="why" class="score" value="4"><span id="test_double__value" class="score">4</span>',
)
HTML = "<img src=x onerror=\"window.pwned='output'\"><script>window.pwned = 'output script'</script>"

pytestmark = needs_chromium


def hostile_submission() -> nbformat.NotebookNode:
    """A full answer whose text, outputs and metadata are full of scripts."""
    notebook = nbformat.read(GOOD, as_version=4)
    texts = [text.replace("{n}", f"markdown {i}") for i, text in enumerate(MARKDOWN)]
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "why":
            cell.source = "My answer. " + "\n\n".join(texts)
    shown = base64.b64encode(HTML.encode()).decode()
    code = (
        "import base64\nfrom IPython.display import HTML, Javascript, Markdown, SVG, display\n"
        f"html = base64.b64decode('{shown}').decode()\n"
        "display(HTML(html), Markdown(html), Javascript(\"window.pwned = 'javascript'\"))\n"
        "display({'image/svg+xml': '<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"window.pwned=1\"/>',"
        " 'text/plain': ''}, raw=True)\n"
        "display({'text/html': html, 'text/plain': ''}, raw=True, metadata={'text/html': {'isolated': True}})\n"
        "display({'image/png': '\"><script>window.pwned=2</script>', 'text/plain': ''}, raw=True)\n"
        "display({'text/latex': html}, raw=True)\n"
        "print('\\x1b]8;;javascript:window.pwned=3\\x1b\\\\\\\\link\\x1b]8;;\\x1b\\\\\\\\')\n"
        "html"
    )
    notebook.cells += [new_markdown_cell("\n\n".join(texts)), new_code_cell(code)]
    return notebook


@pytest.fixture(scope="module")
def formgrader(tmp_path_factory):
    """A graded course and a Jupyter server with formgrader on it; yields (course folder, address)."""
    root = make_course(tmp_path_factory.mktemp("course"))
    write(root / "inbox" / STUDENT / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", hostile_submission())
    [mark] = grade(root, ASSIGNMENT, root / "inbox")
    assert (mark.problem, mark.score(manual=False), mark.needs_manual) == ("", 6, True)
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **thread_limit(1),
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR": "1",
    }
    command = [sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += ["--ServerApp.jpserver_extensions={'nbgrader.server_extensions.formgrader': True}"]
    log = (home / "jupyter.log").open("w")
    server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, (home / "jupyter.log").read_text()[-3000:]
                assert time.monotonic() < deadline, (home / "jupyter.log").read_text()[-3000:]
                time.sleep(0.3)
        yield root, address
    finally:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.terminate()
        for process in psutil.wait_procs(family, timeout=15)[1]:
            process.kill()
        log.close()


@pytest.fixture
def page():
    """An empty browser page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(MINUTE)
        yield page
        browser.close()


def manual_score(root: Path) -> float | None:
    with sqlite3.connect(root / "classroom_data" / "gradebook.db") as connection:
        query = """select g.manual_score from grade g join base_cell c on g.cell_id = c.id where c.name = 'why'"""
        [(score,)] = connection.execute(query).fetchall()
    return score


def test_no_script_of_the_submission_runs_and_a_score_is_saved(formgrader, page, tmp_path):
    from playwright.sync_api import expect

    root, address = formgrader
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{address}/formgrader/gradebook/{ASSIGNMENT}/{ASSIGNMENT}")
    page.get_by_role("link", name="Submission #1").click()
    # formgrader's own script is at work when it has put the score of a test into its box
    expect(page.locator("input#test_double__value")).to_have_attribute("placeholder", "2")
    expect(page.get_by_text("My answer.")).to_be_visible()
    page.wait_for_load_state("load")
    page.screenshot(path=tmp_path / "formgrader.png", full_page=True)
    assert page.evaluate("window.pwned") is None
    found = page.evaluate(
        """() => [...document.querySelectorAll('#notebook-container *')].flatMap(e =>
            [...e.attributes].filter(a => /^on/.test(a.name) || /^\\s*javascript:/i.test(a.value))
                             .map(a => `${e.tagName} ${a.name}=${a.value}`)
            .concat(['SCRIPT', 'FORM', 'OBJECT', 'EMBED', 'BASE', 'META', 'LINK', 'STYLE'].includes(e.tagName)
                    // a frame with a data: address is nobody's: it reaches neither the page nor its cookies
                    || e.tagName == 'IFRAME' && !e.src.startsWith('data:') ? [e.outerHTML.slice(0, 200)] : []))"""
    )
    assert found == []
    assert page.locator("#why").count() == 1, "the submission put a box beside formgrader's own"
    assert [url for url in requested if "example.invalid" in url] == []

    assert manual_score(root) is None
    box = page.locator("input#why")
    box.fill("3.5")
    with page.expect_response(lambda r: "/formgrader/api/grade/" in r.url and r.request.method == "PUT") as saved:
        box.press("Tab")
    assert saved.value.ok
    assert manual_score(root) == 3.5
    page.goto(f"{address}/formgrader/gradebook/{ASSIGNMENT}/{ASSIGNMENT}")
    row = page.locator("tr", has=page.get_by_role("link", name="Submission #1"))
    expect(row).to_contain_text("9.5 / 10")
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("ours", [False, True], ids=["stock nbgrader", "this course"])
def test_the_same_scripts_run_in_stock_nbgrader(ours, page, tmp_path):
    """Formgrader's page of a notebook that nothing has cleaned, by stock settings and by ours."""
    from nbgrader.server_extensions.formgrader.handlers import template_path

    config = Course.at(make_course(tmp_path)).config if ours else Config()
    notebook = hostile_submission()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("display_data", {"text/html": HTML, "application/javascript": "pwned = 4"})]
    exporter = HTMLExporter(config=config, template_name="formgrade", extra_template_basedirs=[template_path])
    names = ("assignment_id", "notebook_id", "submission_id", "base_url", "student", "last_name", "first_name")
    html, _ = exporter.from_notebook_node(notebook, resources=dict.fromkeys(names, "x") | {"index": 0, "total": 1})
    page.set_content(html, wait_until="load")
    assert (page.evaluate("window.pwned") is None) == ours
