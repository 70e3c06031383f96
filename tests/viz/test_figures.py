import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from course_lib.core.fit import History
from course_lib.data import toy2d
from course_lib.viz import figures


def pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture(autouse=True)
def nothing_stays_open():
    """pyplot keeps every open figure: in a notebook it would be shown twice, in a long run memory would grow."""
    plt.close("all")
    yield
    assert plt.get_fignums() == []


def test_show_images():
    x = torch.rand(6, 1, 8, 8) * 2 - 1
    one = figures.show_images(x, "digits", columns=3)
    assert len(one.axes) == 1 and one.axes[0].get_images()[0].get_array().shape == (17, 26)
    several = figures.show_images({"real": x, "samples": x[:4].expand(4, 3, 8, 8)}, "side by side")
    assert [axis.get_title() for axis in several.axes] == ["real", "samples"]
    assert several.get_suptitle() == "side by side"
    named = figures.show_images(x, titles=["a long caption that is wrapped", *"bcdef"], columns=4)
    shown = [axis for axis in named.axes if axis.get_images()]
    assert len(shown) == 6 and shown[5].get_title() == "f" and "\n" in shown[0].get_title()
    assert pixels(named).std() > 10


def test_grey_values_are_absolute():
    """A flat grey picture must not be stretched to black or white."""
    grey = figures.show_images(torch.zeros(1, 1, 4, 4))
    (shown,) = grey.axes[0].get_images()
    assert shown.get_clim() == (0, 255) and (shown.get_array() == 128).all()


def test_show_rows():
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    figure = figures.show_rows({"real": x, "reconstructed": x, "sampled": -x}, "rows")
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["real", "reconstructed", "sampled"]
    grid = axis.get_images()[0].get_array()
    assert grid.shape == (26, 44)
    middles = [int(tick.get_loc()) for tick in axis.yaxis.get_major_ticks()]
    assert all(9 * i <= m < 9 * i + 8 for i, m in enumerate(middles))  # each name stands at its own row
    with pytest.raises(ValueError, match=r"equally long, got \[5, 4\]"):
        figures.show_rows({"a": x, "b": x[:4]})


def test_show_history():
    history = History({"critic": torch.randn(100), "generator": torch.randn(100)}, {"fid": [(50, 3.0), (100, 2.0)]})
    figure = figures.show_history(history, "loss", title="run")
    left, right = figure.axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["critic", "generator"]
    assert right.lines[0].get_xydata().tolist() == [[50, 3], [100, 2]]
    raw, smooth = left.lines[:2]
    np.testing.assert_allclose(raw.get_ydata(), history.losses["critic"])
    assert smooth.get_ydata()[0] == pytest.approx(history.losses["critic"][:25].mean().item(), abs=1e-5)
    assert smooth.get_xdata()[-1] == 99
    assert len(figures.show_history(History({"m": torch.randn(3)})).axes) == 1


def test_show_density_has_x_to_the_right_and_y_up():
    def peak_at(x):  # the highest value in the upper left: x = −2, y = 1
        return -10 * ((x - torch.tensor([-2.0, 1.0])) ** 2).sum(-1)

    figure = figures.show_density(peak_at, points=torch.tensor([[-2.0, 1.0]]), title="peak")
    (image,) = figure.axes[0].get_images()
    row, column = np.unravel_index(np.argmax(image.get_array()), image.get_array().shape)
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    assert left + (right - left) * column / 119 == pytest.approx(-2, abs=0.05)
    assert bottom + (top - bottom) * row / 119 == pytest.approx(1, abs=0.05)
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[-2, 1]]


def test_show_density_draws_into_an_axis():
    figure, axes = plt.subplots(1, 2)
    assert figures.show_density(toy2d.density("ring8").log_prob, axis=axes[1], resolution=20) is figure
    assert not axes[0].get_images() and axes[1].get_images()


def test_show_table(capsys):
    figures.show_table([{"model": "VAE <1>", "ELBO": -105.71234}, {"model": "AE"}], "results")
    out = capsys.readouterr().out
    assert "results" in out and "-105.7" in out and "-105.71234" not in out


def test_course_style():
    import matplotlib as mpl

    with mpl.rc_context():
        figures.use_course_style()
        assert mpl.rcParams["image.cmap"] == "gray" and not mpl.rcParams["axes.spines.top"]
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.COLOURS)
    assert len(set(figures.COLOURS)) == 8
