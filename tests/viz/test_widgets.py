import io

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course_lib.viz.widgets import contact_sheet, explore


@pytest.fixture
def shown(monkeypatch) -> list:
    monkeypatch.delenv("COURSE_HEADLESS", raising=False)
    monkeypatch.delenv("COURSE_EXPLORE_ALL", raising=False)
    things: list = []
    monkeypatch.setattr(IPython.display, "display", lambda thing: things.append(thing))
    return things


def counted():
    calls = []

    def figure_for(beta):
        calls.append(beta)
        figure, axis = plt.subplots(figsize=(2, 1))
        axis.bar([0], [beta])
        axis.set_ylim(0, 10)
        plt.close(figure)
        return figure

    return figure_for, calls


def test_the_slider_redraws_and_remembers(shown):
    figure_for, calls = counted()
    explore(figure_for, sheet=False, beta=[0.5, 1, 4, 9])
    (box,) = shown
    slider, picture = box.children
    assert [label for label, _ in slider.options] == ["0.5", "1", "4", "9"] and slider.description == "beta"
    assert calls == [4]  # drawn once, for the value shown first
    first = picture.value
    slider.value = 3
    assert calls == [4, 9] and picture.value != first
    assert Image.open(io.BytesIO(picture.value)).format == "PNG"
    slider.value = 2
    assert calls == [4, 9] and picture.value == first


def test_the_contact_sheet_has_the_ends_and_each_figure_once(shown):
    figure_for, calls = counted()
    explore(figure_for, beta=list(range(1, 11)))
    assert len(shown) == 2 and calls[0] == 6
    assert {1, 10} <= set(calls) and len(calls) == len(set(calls)) <= 7
    sheet = np.asarray(Image.open(io.BytesIO(shown[1].data)))
    assert sheet.shape[1] > sheet.shape[0] and sheet.std() > 5


def test_headless_runs_always_draw_the_sheet(shown, monkeypatch):
    figure_for, _ = counted()
    monkeypatch.setenv("COURSE_HEADLESS", "1")
    explore(figure_for, sheet=False, beta=[1, 2])
    assert len(shown) == 2


def test_tests_draw_the_whole_grid(shown, monkeypatch):
    figure_for, calls = counted()
    monkeypatch.setenv("COURSE_EXPLORE_ALL", "1")
    explore(figure_for, beta=list(range(20)))
    assert sorted(calls) == list(range(20))


def test_a_value_that_cannot_be_drawn_is_found_when_the_whole_grid_is_drawn(shown, monkeypatch):
    figure_for, _ = counted()

    def breaks_at_7(beta):
        if beta == 7:
            raise ZeroDivisionError("beta")
        return figure_for(beta)

    explore(breaks_at_7, beta=list(range(20)))  # 7 is on neither the sheet nor the slider's first place
    monkeypatch.setenv("COURSE_EXPLORE_ALL", "1")
    with pytest.raises(ZeroDivisionError):
        explore(breaks_at_7, beta=list(range(20)))


@pytest.mark.parametrize("grid", [{}, {"a": []}, {"a": [1], "b": [2]}])
def test_mistakes_are_explained(grid, shown):
    with pytest.raises(ValueError, match="needs one argument with at least one value"):
        explore(lambda **k: plt.figure(), **grid)


def test_contact_sheet_layout():
    figure_for, _ = counted()
    pictures, open_before = [], plt.get_fignums()
    for beta in (1, 5, 9, 3):
        buffer = io.BytesIO()
        figure_for(beta).savefig(buffer, format="png")
        pictures.append(buffer.getvalue())
    figure = contact_sheet(pictures, columns=3)
    assert [bool(axis.get_images()) for axis in figure.axes] == [True] * 4 + [False] * 2
    assert plt.get_fignums() == open_before
