"""How do frames become a video file that is whole or absent, in flat memory and with the same bytes each time?

The encoder is the ffmpeg that the package imageio-ffmpeg carries, one process that is fed through a pipe. It works in
one thread and is told to leave out its version and the time, so that equal frames give equal files.
"""

from __future__ import annotations

import atexit
import contextlib
import fractions
import importlib.util
import os
import subprocess
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from researchlab.design._visualizers._frames import as_rgb, padded_to_even
from researchlab.errors import ArgumentError, FrameError, MissingPackageError, VideoError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FINISH_SECONDS = 300.0
_EXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1")
# Colours are tagged as what they are converted to: players guess by the size of the picture otherwise. No B-frames, so
# that a further recording can be put behind without touching time stamps.
_MP4 = (
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"),
    *("-c:v", "libx264", "-preset", "medium", "-crf", "18", "-bf", "0", "-pix_fmt", "yuv420p"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
    *("-video_track_timescale", "90000"),
)
# A palette for each frame: one for all of them would need all of them in memory.
_GIF_PALETTE = "split[a][b];[a]palettegen=stats_mode=single:reserve_transparent=0[p];[b][p]paletteuse=new=1"
_GIF = ("-vf", f"{_GIF_PALETTE}:dither=sierra2_4a", "-loop", "0")
_CODECS = {".mp4": _MP4, ".gif": _GIF}
_APPEND = {
    ".mp4": ("-c", "copy", "-video_track_timescale", "90000"),
    ".gif": ("-vf", f"{_GIF_PALETTE}:dither=none", "-loop", "0"),
}


class VideoFile:
    """Frames on their way into one ``.mp4`` or ``.gif`` file.

    They are encoded as they come, into a file with another name beside the one that is wanted. ``finish`` puts the
    whole file in its place; frames that come later are put behind those by the next ``finish``.
    """

    def __init__(self, path: Path | str, fps: float) -> None:
        """Look whether it can be written; nothing is, before the first frame.

        Raises:
            ArgumentError: the suffix is neither ``.mp4`` nor ``.gif``.
            MissingPackageError: the package imageio-ffmpeg is not installed.
        """
        self.path = Path(path)
        self._suffix = self.path.suffix.lower()
        if self._suffix not in _CODECS:
            msg = f"a video is written as .mp4 or .gif; the path is {str(path)!r}"
            raise ArgumentError(msg)
        self._ffmpeg = _ffmpeg()
        self._fps = str(fractions.Fraction(float(fps)).limit_denominator(100_000))
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._shape: tuple[int, ...] | None = None
        self.finished: Path | None = None  # the whole file, once there is one
        _open_files.add(self)

    def add(self, frame: Any) -> None:
        """Encode a frame.

        Raises:
            FrameError: it is no image, or of another size than the first.
            VideoError: the encoder failed.
        """
        image = as_rgb(frame)
        if self._shape is not None and image.shape != self._shape:
            (height, width), (first_height, first_width) = image.shape[:2], self._shape[:2]
            msg = (
                f"the frames of {self.path} are {first_width} x {first_height} pixels, and this one is {width} x"
                f" {height}: make them of one size, or record into another file"
            )
            raise FrameError(msg)
        self._shape = image.shape
        even = padded_to_even(image) if self._suffix == ".mp4" else image
        process = self._process = self._process or self._start(even.shape[1], even.shape[0])
        try:
            pipe = cast("IO[bytes]", process.stdin)
            pipe.write(even.data)
            pipe.flush()  # what is left in the buffer would be written again by a process that is forked now
        except OSError:
            self._process = None
            complaint = self._end(process)[1]
            self._remove()
            raise VideoError(self._failed(complaint)) from None

    def finish(self) -> Path | None:
        """Make a whole file of all frames so far; return its path, None where there was no frame.

        Raises:
            VideoError: the encoder failed.
        """
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():  # a forked process has no part in it
            return self.finished
        try:
            status, complaint = self._end(process)
            self._check(status, complaint)
            if self.finished is not None and self.path.exists():
                self._append()
            self._unfinished.replace(self.path)
        except BaseException:
            self._remove()
            raise
        self.finished = self.path
        return self.path

    def _start(self, width: int, height: int) -> subprocess.Popen[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, because a rename is atomic within one file system only.
        self._unfinished = self.path.with_name(f".{self.path.stem[:100]}.{uuid.uuid4().hex}.tmp{self._suffix}")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process; a pipe could fill up
        pixels = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", self._fps, "-i", "-")
        command = [self._ffmpeg, "-v", "error", "-y", *pixels, *_EXACT, *_CODECS[self._suffix], str(self._unfinished)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the run; the recording is finished by it
        )

    def _append(self) -> None:
        """Put the frames of the unfinished file behind those of the one that is there."""
        both = self._unfinished.with_name(f".{self.path.stem[:100]}.{uuid.uuid4().hex}.tmp{self._suffix}")
        parts = self._unfinished.with_suffix(".txt")
        try:
            parts.write_text("".join(f"file {_quoted(part)}\n" for part in (self.path, self._unfinished)))
            source = ("-f", "concat", "-safe", "0", "-i", str(parts))
            self._run([*source, *_EXACT, *_APPEND[self._suffix], str(both)])
            both.replace(self._unfinished)
        finally:
            parts.unlink(missing_ok=True)
            both.unlink(missing_ok=True)

    def _run(self, arguments: Sequence[str]) -> None:
        command = [self._ffmpeg, "-v", "error", "-y", *arguments]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            msg = f"the frames could not be put behind those of {self.path}: {_readable(done.stderr)}"
            raise VideoError(msg)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._unfinished.unlink()

    def _end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Let the encoder write what it holds and wait for it; return its exit status, and what it complained of."""
        with self._errors:
            with contextlib.suppress(OSError):  # it may be gone already
                cast("IO[bytes]", process.stdin).close()
            try:
                status = process.wait(_FINISH_SECONDS)
            except BaseException:
                # Whoever was forked from this process meanwhile holds the pipe open. Or it is a second Ctrl-C.
                process.kill()
                process.wait()
                raise
            self._errors.seek(0)
            return status, _readable(self._errors.read())

    def _check(self, status: int, complaint: str) -> None:
        if status:
            raise VideoError(self._failed(complaint))

    def _failed(self, complaint: str) -> str:
        return f"the encoder of {self.path} failed: {complaint}"


_open_files: weakref.WeakSet[VideoFile] = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    for file in tuple(_open_files):
        with contextlib.suppress(Exception):
            file.finish()


def _ffmpeg() -> str:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        msg = "writing a video needs the package imageio-ffmpeg: `pip install 'researchlab[video]'`"
        raise MissingPackageError(msg)
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        msg = f"imageio-ffmpeg has no ffmpeg for this platform: {error}"
        raise MissingPackageError(msg) from None


def _quoted(path: Path) -> str:
    escaped = str(path.resolve()).replace("'", r"'\''")
    return f"'{escaped}'"


def _readable(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-500:] or "it gave no reason"
