"""What does a State look like?"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Generic

from researchlab.design._numbers import is_positive
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Visualizer(abc.ABC, Generic[S]):
    """Turns States into frames, and keeps them when it is recording.

    A subclass defines ``_render_frame``, ``_show_frame`` where frames can be looked at, and ``_record`` and ``close``
    where they are written to a file; then also ``finish_recording`` and ``artifacts``. A Loop calls ``render``, and
    ``finish_recording`` at the end of a run; it never closes a visualizer, so that several runs can go into one
    recording.

    Attributes:
        is_recording: each rendered frame is also recorded.
        fps: frames a second of the recording; None leaves it to the subclass.
        frame: the last rendered frame; None before the first.
        frames: the recorded frames, as long as ``_record`` is not overridden.
    """

    is_recording: bool = False  # for subclasses that forget to call super().__init__()
    fps: float | None = None
    frame: Any = None

    def __init__(self, record: bool = False, fps: float | None = None) -> None:  # noqa: FBT001, FBT002 - the contract
        """Set up.

        Args:
            record: record each rendered frame.
            fps: frames a second of the recording.

        Raises:
            ArgumentError: fps is not a positive, finite number.
        """
        if fps is not None and not is_positive(fps):
            msg = f"fps must be a positive number of frames a second, such as 30, or None; it is {fps!r}"
            raise ArgumentError(msg)
        self.is_recording = record
        self.fps = fps
        self.frames: list[Any] = []

    def render(self, state: S) -> Any:
        """Make a frame of a State, record it when recording, and return it."""
        self.frame = self._render_frame(state)
        if self.is_recording:
            self._record()
        return self.frame

    def show(self) -> None:
        """Display the last frame."""
        self._show_frame()

    def close(self) -> None:
        """Finish the recording. It is called again when the object goes, so a second call must do no harm."""

    def finish_recording(self) -> Sequence[Path]:
        """Make whole files of what was recorded so far, and return them; recording can go on.

        A Loop calls this at the end of each ``run``, whatever ended it, and hands the files to the active run.
        """
        return self.artifacts()

    def artifacts(self) -> Sequence[Path]:
        """Return the finished files that belong to the run; by default there are none."""
        return ()

    @abc.abstractmethod
    def _render_frame(self, state: S) -> Any:
        """Return the frame of a State (an image array, a figure, a text)."""

    def _record(self) -> None:
        """Record ``self.frame``; by default into the list ``self.frames``, which grows as long as the run does."""
        self.frames.append(self.frame)

    def _show_frame(self) -> None:
        """Display ``self.frame``."""
        msg = f"{type(self).__name__} cannot show a frame: define _show_frame(self), which displays self.frame"
        raise NotImplementedError(msg)

    def __del__(self) -> None:
        """Close. The object may be half made and the interpreter may be going, so errors have nowhere to go."""
        try:  # noqa: SIM105 - contextlib may be gone already
            self.close()
        except Exception:  # noqa: BLE001, S110
            pass
