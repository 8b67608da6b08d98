from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.films import read_film
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from researchlab.design import Loop, VideoVisualizer
from researchlab.design._visualizers._frames import as_rgb, padded_to_even
from researchlab.errors import ArgumentError, FrameError, MissingPackageError, VideoError

iio = pytest.importorskip("imageio.v3")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(autouse=True)
def _imageio_does_not_fork(monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")  # JAX warns of it; what we write with never forks


def image(number, height=48, width=64):
    """Return a smooth picture that moves with its number."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([(x + number / 40) % 1, y, np.full_like(x, number / 40)], axis=-1)


def difference(frames, count, height=48, width=64):
    wanted = np.stack([np.round(image(number, height, width) * 255) for number in range(count)])
    return np.abs(frames[:, :height, :width].astype(float) - wanted).mean()


def recorded(path, count, *, fps=20, finish_at=(), frame=image):
    video = VideoVisualizer(path, fps, frame=frame)
    for number in range(count):
        if number in finish_at:
            assert list(video.finish_recording()) == [path]
        video.render(number)
    video.close()
    assert list(video.artifacts()) == [path]
    return path


@pytest.mark.parametrize(("suffix", "error"), [(".mp4", 4.0), (".gif", 5.0)])
@pytest.mark.parametrize("finish_at", [(), (12,), (1, 12)], ids=["at once", "in two parts", "in three parts"])
def test_the_file_holds_each_frame_once_and_in_order(tmp_path, suffix, error, finish_at):
    path = recorded(tmp_path / f"film{suffix}", 20, finish_at=finish_at)
    frames = read_film(path)
    assert frames.shape == (20, 48, 64, 3)
    assert difference(frames, 20) < error
    assert iio.immeta(path).get("duration") in {1.0, 50}  # seconds of the film, or milliseconds of a frame
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_equal_frames_make_equal_bytes(tmp_path, suffix):
    first, second = (recorded(tmp_path / f"{name}{suffix}", 10, finish_at=(4,)) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert (
        first.read_bytes() != recorded(tmp_path / f"c{suffix}", 10, frame=lambda number: 1 - image(number)).read_bytes()
    )


def test_odd_sizes_are_padded_for_mp4_and_kept_for_gif(tmp_path):
    def odd(number):
        return image(number, 33, 47)

    frames = read_film(recorded(tmp_path / "odd.mp4", 5, frame=odd))
    assert frames.shape == (5, 34, 48, 3)
    assert difference(frames, 5, 33, 47) < 5
    assert read_film(recorded(tmp_path / "odd.gif", 5, frame=odd)).shape == (5, 33, 47, 3)


def test_the_file_appears_whole_when_the_recording_is_finished(tmp_path):
    path = tmp_path / "new" / "folder" / "film.mp4"
    video = VideoVisualizer(path, frame=image)
    assert video.finish_recording() == video.artifacts() == ()
    video.render(0)
    assert not path.exists()
    assert video.artifacts() == ()
    assert video.finish_recording() == (path,)
    video.close()
    video.close()
    assert len(read_film(path)) == 1


def test_what_an_earlier_process_left_is_replaced(tmp_path):
    path = recorded(tmp_path / "film.mp4", 8)
    assert len(read_film(recorded(path, 3))) == 3


def test_a_visualizer_that_goes_finishes_its_video(tmp_path):
    video = VideoVisualizer(tmp_path / "film.mp4", frame=image)
    video.render(0)
    del video
    gc.collect()
    assert len(read_film(tmp_path / "film.mp4")) == 1


@pytest.mark.parametrize("ending", ["pass", "raise KeyboardInterrupt"])
@pytest.mark.slow
def test_the_end_of_the_interpreter_finishes_the_video(tmp_path, ending):
    code = f"""
import numpy as np
from researchlab.design import VideoVisualizer
video = VideoVisualizer("film.mp4", frame=lambda number: np.full((32, 32), number / 10))
for number in range(5):
    video.render(number)
{ending}
"""
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
    )
    assert "ignored" not in finished.stderr
    assert len(read_film(tmp_path / "film.mp4")) == 5
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_forked_process_leaves_the_video_alone(tmp_path):
    code = """
import os, warnings
warnings.simplefilter("ignore")
import numpy as np
from researchlab.design import VideoVisualizer
video = VideoVisualizer("film.mp4", frame=lambda number: np.full((32, 32), number / 10))
video.render(0)
child = os.fork()
if child == 0:
    video.close()
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
assert not os.path.exists("film.mp4")
video.render(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert len(read_film(tmp_path / "film.mp4")) == 2


@pytest.mark.parametrize("name", ["it's a film.mp4", "fïlm 100%d.mp4", "film%03d.gif", "-film.mp4", "a\\b.MP4"])
def test_any_name_will_do(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = VideoVisualizer(name, frame=image)
    video.render(0)
    video.finish_recording()
    video.render(1)
    video.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(read_film((tmp_path / name).read_bytes(), extension=name[-4:].lower())) == 2


def test_a_frame_of_another_size_is_named_and_the_rest_is_kept(tmp_path):
    video = VideoVisualizer(tmp_path / "film.mp4", frame=np.zeros)
    video.render((32, 48))
    with pytest.raises(FrameError, match="are 48 x 32 pixels, and this one is 40 x 32"):
        video.render((32, 40))
    video.render((32, 48))
    video.close()
    assert len(read_film(tmp_path / "film.mp4")) == 2


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((2, 2, 2)), r"it is float64\[2, 2, 2\]"),
        (np.zeros(4), r"it is float64\[4\]"),
        (np.zeros((0, 4)), r"it is float64\[0, 4\]"),
        (np.zeros((2, 2), np.int32), "dtype is int32"),
        (np.zeros((2, 2), complex), "dtype is complex128"),
        (np.full((2, 2), "a"), "dtype is <U1"),
        (np.full((2, 2), 255.0), "between 0 and 1; they go from 255 to 255"),
        (np.array([[0, np.nan]]), "they go from nan to nan"),
        (np.array([[-0.5, 1]]), "they go from -0.5 to 1"),
    ],
)
def test_what_is_no_image_is_refused(frame, message):
    with pytest.raises(FrameError, match=message):
        as_rgb(frame)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)), st.sampled_from([1, 3, 4]))
@settings(max_examples=50, deadline=None)
def test_levels_survive_as_floats_as_grey_and_behind_full_opacity(grey, channels):
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(as_rgb(grey), rgb)
    assert np.array_equal(as_rgb(grey.astype(np.float64) / 255), rgb)
    assert np.array_equal(as_rgb(jnp.asarray(grey, jnp.float32) / 255), rgb)
    opaque = np.full((*grey.shape, channels), 255, np.uint8)
    opaque[:, :, :3] = grey[:, :, None]
    assert np.array_equal(as_rgb(opaque), rgb)
    padded = padded_to_even(rgb)
    assert [length % 2 for length in padded.shape[:2]] == [0, 0]
    assert np.array_equal(padded[: grey.shape[0], : grey.shape[1]], rgb)
    assert np.array_equal(padded[-1, -1], rgb[-1, -1])


def test_what_is_transparent_is_laid_over_white():
    assert as_rgb(np.array([[[0, 0, 0, 0]]], np.uint8)).tolist() == [[[255, 255, 255]]]
    assert as_rgb(np.array([[[1.0, 0, 0, 0.5]]])).tolist() == [[[255, 127, 127]]]


@pytest.mark.parametrize(
    "frame", [jnp.ones((2, 2), jnp.bfloat16), np.ones((2, 2), bool), np.full((2, 2), 1.0005, np.float16)]
)
def test_other_floating_points_and_bools_are_images(frame):
    assert as_rgb(frame).tolist() == [[[255] * 3] * 2] * 2


def test_an_encoder_that_dies_is_an_error_and_leaves_nothing(tmp_path):
    video = VideoVisualizer(tmp_path / "film.mp4", frame=image)
    video.render(0)
    os.kill(video._file._process.pid, signal.SIGKILL)
    with pytest.raises(VideoError, match=r"encoder of .*film.mp4 failed"):
        video.close()
    assert list(tmp_path.iterdir()) == []


def test_what_the_encoder_says_is_in_the_error(tmp_path):
    (tmp_path / "film.mp4").mkdir()
    video = VideoVisualizer(tmp_path / "film.mp4", frame=image)
    video.render(0)
    with pytest.raises(OSError, match=r"film.mp4"):
        video.close()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("path", "fps", "frame", "message"),
    [
        ("a.avi", 30, image, "as .mp4 or .gif; the path is 'a.avi'"),
        ("a.mp4", 0, image, "fps"),
        ("a.mp4", 30, 3, "frame must be"),
    ],
)
def test_options_that_make_no_video_are_refused(path, fps, frame, message):
    with pytest.raises(ArgumentError, match=message):
        VideoVisualizer(path, fps, frame=frame)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'researchlab\[video\]'"):
        VideoVisualizer("a.mp4", frame=image)


def test_a_loop_fills_one_video_by_several_runs(tmp_path):
    video = VideoVisualizer(tmp_path / "film.mp4", frame=lambda state: jnp.full((16, 16), state / 10))
    loop = Loop(None, jnp.float32(0), lambda state, *_: (state + 1, {}), None, visualizer=video)
    loop.run(4)
    video.finish_recording()
    loop.run(5)
    video.close()
    means = read_film(tmp_path / "film.mp4").mean(axis=(1, 2, 3))
    assert np.allclose(means, np.arange(1, 10) * 25.5, atol=3)
