"""Videos on disk: their header, and their frames one by one, by the numbers that Label Studio gives them.

Label Studio counts frames from 1 at the `frameRate` of its <Video> tag, even if the file has another rate: frame f is
the picture that the file shows a little after (f - 1) / frameRate seconds. Phones, browsers and screen recorders write
frames at uneven times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.errors import MediaError
from backend.geometry.keyframes import MAX_FRAMES
from backend.media import video_header
from backend.media.video_frames import BY_NUMBER, REENCODE, Pixels, decoder
from backend.media.video_header import MAX_BYTES, Header, Times

# Files that hold their frames. OpenCV's decoder would open playlists too, which name other files and addresses.
SIGNATURES = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"OggS"))
MAX_FPS = 1000.0  # without a rate in the file, the decoder gives the ticks of its clock: 1000 in WebM, more in MP4
STEP_S = 0.002  # Label Studio seeks to whole steps, and adds one, so that it does not stop before a frame begins
FORGIVEN = 2  # so many of the frames in a header may be missing at the end of any video, however short
_ROUNDING = 1e-6  # frames: 0.96 s * 25 must not round down to the frame before


@dataclass(frozen=True, slots=True)
class Video:
    """A video file: the size of its upright frames in pixels, its frames per second, and its number of frames.

    `times` (frames + 1,): when each frame is shown, and when the last one ends, in seconds; None for even times.
    """

    path: Path
    width: int
    height: int
    fps: float  # the mean, if times are uneven
    frames: int
    times: Times | None = field(default=None, compare=False)

    def length(self, rate: float) -> int:
        """Return how many frames Label Studio counts at `rate` frames per second.

        Raises MediaError for more than MAX_FRAMES.
        """
        seconds = self.frames / self.fps if self.times is None else float(self.times[-1])
        if seconds * rate > MAX_FRAMES:
            problem = f"the video says it lasts {seconds:.3g} s, more than {MAX_FRAMES} frames"
            raise MediaError(problem, where=str(self.path), fix=f"cut it into parts, or {REENCODE}")
        return max(1, round(seconds * rate))

    def numbers(self, rate: float) -> Iterator[int]:
        """Yield the frames of Label Studio that show a new frame of the file: all, unless its rate is the higher one.

        A frame that is shown for long is yielded several times, because a tracker drops objects that it does not get.
        """
        before, last, step = -1, 0, math.ceil(rate / self.fps)
        for number in range(1, self.length(rate) + 1):
            shown = self.shown(number, rate)
            if shown < self.frames and (shown > before or number - last > step):
                yield number
                before, last = shown, number

    def shown(self, number: int, rate: float) -> int:
        """Return which frame of the file, from 0, Label Studio shows as its frame `number`.

        The formula is that of the front end (`goToFrame` of 1.23). With (number - 1) / rate alone, a label config with
        24 for a file of 23.976 frames per second would be one frame behind, from the second frame on.
        """
        seconds = STEP_S * (math.floor((number - 1) / rate / STEP_S + 0.5) + 1)
        if self.times is None:
            return int(seconds * self.fps + _ROUNDING)
        return int(np.searchsorted(self.times, seconds + _ROUNDING / self.fps, side="right")) - 1


def probe(path: Path) -> Video:
    """Return the video in a file, by its header and the times of its frames.

    Raises MediaError for a file that is no video, does not decode, or has no frames or no frame rate.
    """
    return of_header(path, header_of(path))


def header_of(path: Path, max_bytes: int = MAX_BYTES) -> Header:
    """Return the header of a video, read with at most `max_bytes` of memory; raises MediaError for other files."""
    if not is_video(path):
        raise MediaError("not a video", fix="use MP4, WebM, Ogg or AVI; open the URL in a browser to check")
    return video_header.read(path, max_bytes)


def of_header(path: Path, header: Header) -> Video:
    """Return the video with this header; raises as `probe`."""
    if not header.decodes:
        raise MediaError("the video has no frame that can be decoded", fix=REENCODE)
    fps, count, times = _timed(path, header.fps, header.count, header.times)
    if not (math.isfinite(fps) and 0 < fps < MAX_FPS):
        raise MediaError(f"the video says it has {fps:g} frames per second", fix=REENCODE)
    return Video(path, header.width, header.height, fps, count, times)


def _timed(path: Path, fps: float, count: int, times: Times) -> tuple[float, int, Times | None]:
    """Return the frames per second, the number of frames, and their times if these are uneven.

    The rate and the number in the header are kept if `times` (n,) agree with them. Raises MediaError for uneven times
    that end more than a second before the header says.
    """
    n = len(times)
    if n < 2 or not times[-1]:
        return fps, max(count, n, 1), None
    last_s = float(times[-1])
    mean, lasts_s = (n - 1) / last_s, count / fps if fps > 0 else last_s
    stays = count > n and _is_whole(path)  # the last frame stays on the screen, until the sound or the file ends
    if not stays and _even(times, fps):
        return fps, max(count, n), None
    if not stays and _even(times, mean):
        return mean, n, None
    # A header that counts more frames than there are belongs to a cut file, or its rate is a guess.
    if not stays and count > n and lasts_s > last_s + 1:
        problem = f"the video says that it lasts {lasts_s:.3g} s, and its last frame is at {last_s:.3g} s"
        raise MediaError(problem, fix=f"upload the whole file again, or {REENCODE}")
    end = max(last_s + max(float(np.diff(times).min()), STEP_S), lasts_s if stays else min(lasts_s, last_s + 1))
    return mean, n, np.append(times, end)


def _is_whole(path: Path) -> bool:
    """Return whether the Segment of a WebM file, which is all but its first bytes, has the length that it states."""
    with path.open("rb") as file:
        head = file.read(1024)
    at = head.find(b"\x18\x53\x80\x67") + 4  # the length follows; its leading zeros tell how many bytes it has
    width = 9 - int.from_bytes(head[at : at + 1]).bit_length()
    size = int.from_bytes(head[at : at + width]) - (1 << 7 * width)
    return at > 3 and at + width + size <= path.stat().st_size


def _even(times: Times, fps: float) -> bool:
    """Return whether frames are shown `fps` times a second, within one step of Label Studio's seeking."""
    return 0 < fps < MAX_FPS and bool((np.abs(times - np.arange(len(times)) / fps) <= STEP_S).all())


def is_video(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a video format that we open."""
    with path.open("rb") as file:
        head = file.read(16)
    return any(head[at : at + len(mark)] == mark for at, mark in SIGNATURES)


def frames(video: Video, wanted: Iterable[int], rate: float) -> Iterator[Pixels]:
    """Yield the pixels of Label Studio's frames `wanted`, which ascend; one frame is in memory at a time.

    The file is read from its start, because seeking finds the wrong frame in many files. A few frames may be missing at
    the end; they are not yielded. Raises MediaError if a file ends more than a second, or a tenth of its length, before
    its header says.
    """
    with decoder(video.path, video.width, video.height) as source:
        for number in wanted:
            shown = video.shown(number, rate)
            uneven = video.times is not None and shown < video.frames
            after_s = float(video.times[shown]) - STEP_S / 4 if video.times is not None and uneven else BY_NUMBER
            pixels = source.frame(shown, after_s)
            if pixels is None:
                return _check_end(video, source.read)
            _check_size(video, pixels)
            yield pixels


def _check_size(video: Video, pixels: Pixels) -> None:
    """Raise MediaError for a frame of another size, as in recordings of a window: regions are relative to one size."""
    height, width = pixels.shape[:2]
    if (width, height) != (video.width, video.height):
        first, second = f"{video.width}x{video.height}", f"{width}x{height}"
        problem = f"the frames of the video change their size, from {first} to {second}"
        fix = "encode it anew in one size, e.g. ffmpeg -i in.webm -vf scale=1280:720 out.mp4"
        raise MediaError(problem, where=str(video.path), fix=fix)


def _check_end(video: Video, read: int) -> None:
    """Raise MediaError if too many frames are missing at the end of a file after `read` frames."""
    if video.frames - read > min(video.fps, max(FORGIVEN, video.frames / 10)):
        breaks = f"the video breaks off after frame {read} of {video.frames}"
        problem = f"{breaks}, or its next frame takes more memory than one of {video.width}x{video.height} pixels"
        raise MediaError(problem, where=str(video.path), fix=f"upload the whole file again, or {REENCODE}")
