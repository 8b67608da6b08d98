"""How do States become a video, by a function that makes an image of each?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from researchlab.design._typevars import S
from researchlab.design._visualizers._video_file import VideoFile
from researchlab.design._visualizers._visualizer import Visualizer
from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class VideoVisualizer(Visualizer[S]):
    """Writes the images of States into an ``.mp4`` or a ``.gif`` file, as they come. Needs ``researchlab[video]``.

    The file is whole or absent: it appears when the recording is finished, which a Loop does at the end of each ``run``
    and ``close`` does, too. Frames that are recorded after that are put behind those that are in it. What an earlier
    process left at that path is replaced. Equal frames make equal bytes on one machine.

    Attributes:
        frame: the last image, as the function returned it.

    Example:
        >>> video = VideoVisualizer("out.mp4", fps=30, frame=lambda state: (state.x + 10) / 25)
        >>> Loop(config, state, step_fn, None, visualizer=video, render_every=10)
    """

    def __init__(self, path: Path | str, fps: float = 30, *, frame: Callable[[S], Any]) -> None:
        """Look whether the video can be written; it is begun with the first frame.

        Args:
            path: the file, ``.mp4`` (H.264; an odd height or width is padded by repeating the last row or column) or
                ``.gif`` (256 colours a frame; times are rounded to 1/100 s, and players go no faster than 50 a second).
            fps: frames a second.
            frame: ``frame(state)`` returns an array: uint8 of 0 to 255, floating point of 0 to 1, or bool; grey
                [height, width], RGB [height, width, 3], or RGBA [height, width, 4], which is laid over white. All
                frames are of one size.

        Raises:
            ArgumentError: the suffix or ``fps`` makes no sense, or ``frame`` is no function.
            MissingPackageError: the package imageio-ffmpeg is not installed.
        """
        if not callable(frame):
            msg = f"frame must be a function that makes an image of a State, not {frame!r}"
            raise ArgumentError(msg)
        super().__init__(record=True, fps=fps)
        self._frame_of = frame
        self._file = VideoFile(path, fps)

    def finish_recording(self) -> Sequence[Path]:
        """Make a whole file of the frames so far.

        Raises:
            VideoError: the encoder failed.
        """
        self._file.finish()
        return self.artifacts()

    def artifacts(self) -> Sequence[Path]:
        """Return the path of the video, where it was finished."""
        return () if self._file.finished is None else (self._file.finished,)

    def close(self) -> None:
        """Finish the video."""
        self._file.finish()

    def _render_frame(self, state: S) -> Any:
        return self._frame_of(state)

    def _record(self) -> None:
        self._file.add(self.frame)
