"""How does a function that draws with Matplotlib show a State?"""

from __future__ import annotations

import importlib.util
import io
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from researchlab.design._typevars import S
from researchlab.design._visualizers._video_file import VideoFile
from researchlab.design._visualizers._visualizer import Visualizer
from researchlab.errors import ArgumentError, DisplayError, MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_DEFAULT_FPS = 30


class MatplotlibVisualizer(Visualizer[S]):
    """Draws each State onto one figure, which is used again and again. Needs ``researchlab[plot]``.

    The figure is drawn in memory, by Agg, whatever the screen: a frame has the same pixels on a cluster and in a
    notebook. ``show`` displays the last frame, in a notebook or in a window.

    Attributes:
        figure: the ``matplotlib.figure.Figure``.
        frame: the last frame, uint8[height, width, 3].

    Example:
        >>> def draw(axes, state):
        ...     axes.plot(state.x)
        ...     axes.set_ylim(-10, 15)
        >>> pictures = MatplotlibVisualizer(draw, record=True, path="out.mp4")
    """

    def __init__(
        self,
        draw: Callable[[Any, S], object],
        *,
        record: bool = False,
        fps: float | None = None,
        path: Path | str | None = None,
        on: Literal["axes", "figure"] = "axes",
        clear: bool = True,
        figsize: tuple[float, float] = (6.4, 4.8),
        dpi: float = 100,
    ) -> None:
        """Make the figure.

        Args:
            draw: ``draw(axes, state)`` draws the State; with ``on="figure"``, ``draw(figure, state)`` lays out axes of
                its own.
            record: record each frame: into the video ``path``, or without it into the list ``frames``.
            fps: frames a second of the video; 30 when not given.
            path: an ``.mp4`` or ``.gif`` file, which is written as by VideoVisualizer. Needs ``researchlab[video]``.
            on: what ``draw`` gets.
            clear: clear the axes (or the figure) before each drawing. Without it, ``draw`` finds what it drew before,
                and can move it.
            figsize: width and height in inches.
            dpi: pixels an inch.

        Raises:
            ArgumentError: an option makes no sense.
            MissingPackageError: matplotlib, or for a video imageio-ffmpeg, is not installed.
        """
        if not callable(draw):
            msg = f"draw must be a function draw(axes, state), not {draw!r}"
            raise ArgumentError(msg)
        if on not in ("axes", "figure"):
            msg = f'on must be "axes" or "figure", which is what draw gets; it is {on!r}'
            raise ArgumentError(msg)
        if path is not None and not record:
            msg = f"path={str(path)!r} alone records nothing: add `record=True`"
            raise ArgumentError(msg)
        super().__init__(record=record, fps=fps)
        self._draw = draw
        self._on = on
        self._clear = clear
        self._file = None if path is None else VideoFile(path, _DEFAULT_FPS if fps is None else fps)
        self.figure, self._canvas = _new_figure(figsize, dpi)
        self._axes = self.figure.add_subplot() if on == "axes" else None
        self._shown: Any = None

    def finish_recording(self) -> Sequence[Path]:
        """Make a whole file of the frames so far.

        Raises:
            VideoError: the encoder failed.
        """
        if self._file is not None:
            self._file.finish()
        return self.artifacts()

    def artifacts(self) -> Sequence[Path]:
        """Return the path of the video, where there is one and it was finished."""
        return () if self._file is None or self._file.finished is None else (self._file.finished,)

    def close(self) -> None:
        """Finish the video, and close the window."""
        if self._file is not None:
            self._file.finish()
        shown, self._shown = self._shown, None
        if isinstance(shown, _Window):
            shown.close()

    def _render_frame(self, state: S) -> np.ndarray:
        target = self.figure if self._axes is None else self._axes
        if self._clear:
            target.clear()
        self._draw(target, state)
        self._canvas.draw()
        return np.array(self._canvas.buffer_rgba())[:, :, :3]

    def _record(self) -> None:
        if self._file is None:
            super()._record()
        else:
            self._file.add(self.frame)

    def _show_frame(self) -> None:
        if self.frame is None:
            msg = "there is no frame to show yet: call render(state) first"
            raise DisplayError(msg)
        if self._shown is None:
            self._shown = _Cell() if _is_notebook() else _Window(self.figure)
        self._shown.show(self.figure, self.frame)


class _Cell:
    """The output of a notebook's cell, which later frames replace."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Any, frame: np.ndarray) -> None:
        del frame
        from IPython.display import Image, display  # pyright: ignore[reportMissingImports] - a notebook has it

        png = io.BytesIO()
        figure.savefig(png, format="png")
        image = Image(data=png.getvalue())
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


class _Window:
    """A window of the screen, which later frames replace."""

    def __init__(self, figure: Any) -> None:
        from matplotlib import pyplot as plt

        # Matplotlib falls back to a backend without windows where there is no screen.
        window = plt.figure(figsize=figure.get_size_inches(), dpi=figure.dpi)
        if window.canvas.required_interactive_framework is None:
            plt.close(window)
            msg = (
                "there is neither a notebook nor a screen to show the frame on: look at `visualizer.frame`, write it"
                ' with `visualizer.figure.savefig("frame.png")`, or record a video with `record=True, path="out.mp4"`'
            )
            raise DisplayError(msg)
        self._window = window
        self._image: Any = None

    def show(self, figure: Any, frame: np.ndarray) -> None:
        del figure
        from matplotlib import pyplot as plt

        if self._image is None:
            axes = self._window.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(frame)
            plt.show(block=False)
        self._image.set_data(frame)
        self._window.canvas.draw_idle()
        plt.pause(0.001)

    def close(self) -> None:
        from matplotlib import pyplot as plt

        plt.close(self._window)


def _new_figure(figsize: tuple[float, float], dpi: float) -> tuple[Any, Any]:
    if importlib.util.find_spec("matplotlib") is None:
        msg = "MatplotlibVisualizer needs the package matplotlib: `pip install 'researchlab[plot]'`"
        raise MissingPackageError(msg)
    # Not by pyplot, which would keep the figure for ever and choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, dpi=dpi)
    return figure, FigureCanvasAgg(figure)


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
