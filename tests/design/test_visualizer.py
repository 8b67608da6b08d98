from __future__ import annotations

import gc

import numpy as np
import pytest

from researchlab.design import Visualizer
from researchlab.errors import ArgumentError


class Squares(Visualizer):
    closed = 0

    def _render_frame(self, state):
        return state**2

    def close(self):
        type(self).closed += 1


def test_render_returns_the_frame_and_records_only_when_recording():
    idle, recording = Squares(), Squares(record=True, fps=30)
    assert [idle.render(2), idle.render(3)] == [4, 9]
    assert (idle.is_recording, idle.frame, idle.frames) == (False, 9, [])
    recording.render(2)
    recording.render(3)
    assert (recording.is_recording, recording.fps, recording.frames) == (True, 30, [4, 9])


def test_a_subclass_decides_how_to_record_and_show():
    seen = []

    class Own(Squares):
        def _record(self):
            seen.append(("record", self.frame))

        def _show_frame(self):
            seen.append(("show", self.frame))

    own = Own(record=True)
    own.render(2)
    own.show()
    assert seen == [("record", 4), ("show", 4)]


def test_showing_without_knowing_how_says_what_to_define():
    with pytest.raises(NotImplementedError, match="_show_frame"):
        Squares().show()


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "fast", True, [30]])
def test_a_senseless_frame_rate_is_refused(fps):
    with pytest.raises(ArgumentError, match="fps"):
        Squares(fps=fps)


@pytest.mark.parametrize("fps", [None, 1, 29.97, np.float32(30)])
def test_a_frame_rate_is_kept(fps):
    assert Squares(fps=fps).fps == fps


def test_it_closes_when_it_goes():
    Squares.closed = 0
    visualizer = Squares()
    del visualizer
    gc.collect()
    assert Squares.closed == 1


def test_an_error_while_closing_does_no_harm_when_it_goes():
    class Broken(Squares):
        def __init__(self):
            msg = "not made"
            raise RuntimeError(msg)

        def close(self):
            self.file.close()

    with pytest.raises(RuntimeError, match="not made"):
        Broken()
    gc.collect()


def test_a_visualizer_must_say_what_a_frame_is():
    with pytest.raises(TypeError, match="_render_frame"):
        Visualizer()
