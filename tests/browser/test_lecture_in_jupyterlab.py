"""Lecture 04 as a student meets it: JupyterLab in headless Chromium, all cells run, the slider moved by keyboard.

What papermill cannot see: widgets that do not appear, a slider that does not redraw, an error in the page.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest

from course_lib.core.device import thread_limit
from tests.browser.chromium import CHROMIUM, FLAGS, MINUTE, needs_chromium

ROOT = Path(__file__).parents[2]

pytestmark = needs_chromium


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab server on a copy of lecture 04 in the quick budget; yields its address."""
    notebook = nbformat.read(ROOT / "lectures" / "04_vae.ipynb", as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source, found = re.subn(r'BUDGET = "\w+"', 'BUDGET = "quick"', cell.source)
            assert found == 1
    (tmp_path / "work").mkdir()
    nbformat.write(notebook, tmp_path / "work" / "lecture.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # all cells in the page, not only those in view, so that errors anywhere are seen
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **thread_limit(1),  # the browser needs the other core
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    environment.pop("COURSE_HEADLESS", None)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates=False"]
    log = (tmp_path / "jupyter.log").open("w")
    server = subprocess.Popen(command, cwd=tmp_path / "work", env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "jupyter.log").read_text()[-3000:]
                assert time.monotonic() < deadline, (tmp_path / "jupyter.log").read_text()[-3000:]
                time.sleep(0.3)
        yield address
    finally:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.terminate()
        for process in psutil.wait_procs(family, timeout=15)[1]:
            process.kill()
        log.close()


def test_all_cells_run_and_the_slider_redraws(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    cells = nbformat.read(tmp_path / "work" / "lecture.ipynb", as_version=4).cells
    code_cells = sum(cell.cell_type == "code" for cell in cells)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{lab}/lab/tree/lecture.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=2 * MINUTE)
        # the kernel is up when its indicator says idle
        page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status='idle']", timeout=2 * MINUTE)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

        # finished when every code cell shows its number
        page.wait_for_function(
            """n => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
                    .filter(p => /^\\[\\d+\\]:$/.test(p.textContent)).length >= n
                    || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]')""",
            arg=code_cells,
            timeout=15 * MINUTE,
        )
        errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        assert errors == []

        handle = page.locator(".widget-slider .noUi-handle").first
        handle.scroll_into_view_if_needed()
        box = page.locator(".widget-vbox", has=page.locator(".widget-slider")).first
        picture = box.locator("img.widget-image")
        readout = box.locator(".widget-readout")
        expect(picture).to_be_visible()
        # the picture, not the page around it: its pixels as the browser decoded them
        pixels = """img => { const c = document.createElement('canvas'); c.width = img.naturalWidth;
                    c.height = img.naturalHeight; c.getContext('2d').drawImage(img, 0, 0); return c.toDataURL(); }"""
        before, before_text = picture.evaluate(pixels), readout.inner_text()
        page.screenshot(path=tmp_path / "before.png")
        handle.focus()
        page.keyboard.press("ArrowRight")
        expect(readout).not_to_have_text(before_text)
        deadline = time.monotonic() + 60
        while picture.evaluate(pixels) == before:
            assert time.monotonic() < deadline, "the slider moved, but its figure did not change"
            time.sleep(0.2)
        page.screenshot(path=tmp_path / "after.png")
        assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
        browser.close()
