from __future__ import annotations

import gc
import subprocess
import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import MatplotlibVisualizer
from researchlab.errors import ArgumentError, DisplayError, MissingPackageError

pytest.importorskip("matplotlib")


def draw(axes, state):
    axes.plot(np.asarray(state), color="black")
    axes.set_ylim(-1, 1)


def wave(shift=0.0):
    return jnp.sin(jnp.linspace(0, 6, 50) + shift)


def test_a_frame_is_the_picture_of_its_state_alone():
    pictures = MatplotlibVisualizer(draw, figsize=(3, 2), dpi=50)
    first = pictures.render(wave())
    assert (first.shape, first.dtype) == ((100, 150, 3), np.uint8)
    assert first.min() < 50
    assert first.max() == 255
    second = pictures.render(wave(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(pictures.render(wave()), first)
    assert pictures.frames == []
    assert pictures.artifacts() == pictures.finish_recording() == ()


def test_a_function_may_lay_out_the_figure_itself():
    def two(figure, state):
        for axes in figure.subplots(1, 2):
            draw(axes, state)

    pictures = MatplotlibVisualizer(two, on="figure")
    assert pictures.render(wave()).shape == (480, 640, 3)
    pictures.render(wave())
    assert len(pictures.figure.axes) == 2


def test_without_clearing_a_function_can_move_what_it_drew():
    lines = []

    def move(axes, state):
        if not lines:
            draw(axes, state)
            lines.extend(axes.lines)
        lines[0].set_ydata(np.asarray(state))

    moving = MatplotlibVisualizer(move, clear=False)
    moving.render(wave())
    assert np.array_equal(moving.render(wave(1)), MatplotlibVisualizer(draw).render(wave(1)))


def test_frames_are_recorded_into_a_list_or_a_video(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # imageio would fork, of which JAX warns
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    listed = MatplotlibVisualizer(draw, record=True, figsize=(3, 2), dpi=51)
    filmed = MatplotlibVisualizer(draw, record=True, figsize=(3, 2), dpi=51, path=tmp_path / "film.mp4")
    for number in range(5):
        listed.render(wave(number))
        filmed.render(wave(number))
    filmed.close()
    filmed.close()
    assert filmed.frames == []
    assert filmed.artifacts() == (tmp_path / "film.mp4",)
    with warnings.catch_warnings():  # imageio leaves the pipes of its ffmpeg to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        frames = iio.imread(tmp_path / "film.mp4")
        gc.collect()
    assert frames.shape == (5, 102, 154, 3)
    assert np.abs(frames[:, :, :153].astype(float) - np.stack(listed.frames)).mean() < 5


def test_it_touches_no_state_of_pyplot():
    code = """
import sys
from researchlab.design import MatplotlibVisualizer
MatplotlibVisualizer(lambda axes, state: axes.plot([state])).render(1)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_a_screen_showing_says_what_to_do_instead(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    pictures = MatplotlibVisualizer(draw)
    with pytest.raises(DisplayError, match="no frame to show yet"):
        pictures.show()
    pictures.render(wave())
    with pytest.raises(DisplayError, match=r"savefig\(.frame.png.\)"):
        pictures.show()
    pictures.close()


def test_a_notebook_shows_one_picture_that_changes(monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(("update", image))

    def display(image, *, display_id):
        assert display_id
        shown.append(("display", image))
        return Handle()

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    ipython.display.Image = lambda data: data
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    pictures = MatplotlibVisualizer(draw)
    for shift in range(3):
        pictures.render(wave(shift))
        pictures.show()
    assert [kind for kind, _ in shown] == ["display", "update", "update"]
    assert all(png.startswith(b"\x89PNG") for _, png in shown)
    assert len({png for _, png in shown}) == 3


def test_a_window_shows_the_frames(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    seen = []
    monkeypatch.setattr(plt, "pause", lambda _: seen.append(np.array(plt.gcf().axes[0].images[0].get_array())))
    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.required_interactive_framework", "test")
    monkeypatch.setattr(plt, "show", lambda **_: None)
    pictures = MatplotlibVisualizer(draw)
    frames = []
    for shift in range(2):
        frames.append(pictures.render(wave(shift)))
        pictures.show()
    assert np.array_equal(seen, frames)
    assert len(plt.get_fignums()) == 1
    pictures.close()
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw": 3}, "draw must be a function"),
        ({"draw": draw, "on": "canvas"}, "on must be"),
        ({"draw": draw, "path": "a.mp4"}, "add `record=True`"),
        ({"draw": draw, "record": True, "path": "a.png"}, "as .mp4 or .gif"),
        ({"draw": draw, "fps": 0}, "fps"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        MatplotlibVisualizer(**options)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'researchlab\[plot\]'"):
        MatplotlibVisualizer(draw)
