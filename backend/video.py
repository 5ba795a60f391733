"""Videos on disk: what their header says, and their frames one by one, in the numbers Label Studio gives them.

Label Studio counts frames from 1 at the `frameRate` of its <Video> tag, whatever the file's own is: frame f is what the
file shows a little after (f - 1) / frameRate seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.errors import MediaError

Pixels = npt.NDArray[np.uint8]  # (height, width, 3) BGR

# Files that hold their frames. OpenCV's decoder would open playlists too, which name other files and addresses.
SIGNATURES = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"OggS"))
MAX_FPS = 1000.0  # where a file does not say, the decoder gives the ticks of its clock: 1000 in WebM, more in MP4
STEP_S = 0.002  # Label Studio goes to whole steps, and one further, so as not to stop before a frame begins
_ROUNDING = 1e-6  # frames: 0.96 s * 25 must not round down to the frame before
_REENCODE = "encode it anew, e.g. ffmpeg -i in.mov -r 25 -pix_fmt yuv420p out.mp4"


@dataclass(frozen=True, slots=True)
class Video:
    """A video file: the size of its upright frames in pixels, its frames per second and how many frames it has."""

    path: Path
    width: int
    height: int
    fps: float
    frames: int

    def length(self, rate: float) -> int:
        """Return how many frames Label Studio counts at `rate` frames per second."""
        return max(1, round(self.frames * rate / self.fps))

    def numbers(self, rate: float) -> Iterator[int]:
        """Yield the frames of Label Studio that show something new: all, unless it counts faster than the file."""
        before = -1
        for number in range(1, self.length(rate) + 1):
            shown = self.shown(number, rate)
            if before < shown < self.frames:
                yield number
                before = shown

    def shown(self, number: int, rate: float) -> int:
        """Return which frame of the file, from 0, Label Studio shows as its frame `number`.

        As its front end seeks (`goToFrame` of 1.23). With (number - 1) / rate alone, 24 written for 23.976 frames per
        second would be a frame behind what annotators see from the second frame on.
        """
        seconds = STEP_S * (math.floor((number - 1) / rate / STEP_S + 0.5) + 1)
        return int(seconds * self.fps + _ROUNDING)


def probe(path: Path) -> Video:
    """Return what a video's header says; a header that does not count its frames is not believed.

    Raises MediaError for a file that is no video, does not decode, or has no frames or no frame rate.
    """
    if not is_video(path):
        raise MediaError("not a video", fix="use MP4, WebM, Ogg or AVI; open the URL in a browser to check")
    import cv2

    capture = _opened(path)
    try:
        fps, frames = float(capture.get(cv2.CAP_PROP_FPS)), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        found, first = capture.read()
        if not found:
            raise MediaError("the video has no frame that can be decoded", fix=_REENCODE)
        if frames < 1:
            frames = 1
            while capture.grab():
                frames += 1
    finally:
        capture.release()
    if not (math.isfinite(fps) and 0 < fps < MAX_FPS):
        raise MediaError(f"the video says it has {fps:g} frames per second", fix=_REENCODE)
    return Video(path, first.shape[1], first.shape[0], fps, frames)


def is_video(path: Path) -> bool:
    """Tell by its first bytes whether a file is one of the kinds of videos that we open."""
    with path.open("rb") as file:
        head = file.read(16)
    return any(head[at : at + len(mark)] == mark for at, mark in SIGNATURES)


def frames(video: Video, wanted: Iterable[int], rate: float) -> Iterator[Pixels]:
    """Yield the pixels of Label Studio's frames `wanted`, which ascend; one frame is in memory at a time.

    The file is read from its start: seeking lands on the wrong frame in many of them. Raises MediaError where it ends
    more than a second before its header says; frames that a header promised in vain at the very end are not yielded.
    """
    capture = _opened(video.path)
    read = 0  # frames of the file so far
    pixels: Pixels | None = None
    try:
        for number in wanted:
            shown = video.shown(number, rate)
            while read <= shown and capture.grab():
                read += 1
            if read <= shown:
                return _check_end(video, read)
            found, pixels = capture.retrieve()
            if not found or pixels is None:
                raise MediaError(f"frame {number} cannot be decoded", where=str(video.path), fix=_REENCODE)
            yield pixels
    finally:
        capture.release()


def _check_end(video: Video, read: int) -> None:
    if video.frames - read > video.fps:
        what = f"the video breaks off after frame {read} of {video.frames}"
        raise MediaError(what, where=str(video.path), fix="upload the whole file again")


def _opened(path: Path) -> Any:
    """Return OpenCV's reader of a file; raises MediaError for one it cannot read."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise MediaError("the video cannot be decoded", fix=_REENCODE)
    return capture
