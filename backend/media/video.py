"""Videos on disk: what their header says, and their frames one by one, in the numbers Label Studio gives them.

Label Studio counts frames from 1 at the `frameRate` of its <Video> tag, whatever the file's own is: frame f is what the
file shows a little after (f - 1) / frameRate seconds. What phones, browsers and screen recorders write comes at uneven
times.
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
MAX_FPS = 1000.0  # where a file does not say, the decoder gives the ticks of its clock: 1000 in WebM, more in MP4
STEP_S = 0.002  # Label Studio goes to whole steps, and one further, so as not to stop before a frame begins
FORGIVEN = 2  # frames at the end that a header may promise in vain, of however short a video
_ROUNDING = 1e-6  # frames: 0.96 s * 25 must not round down to the frame before


@dataclass(frozen=True, slots=True)
class Video:
    """A video file: the size of its upright frames in pixels, its frames per second and how many frames it has.

    `times`: when each frame is shown, and when the last one ends, in seconds (frames + 1,); None where they are even.
    """

    path: Path
    width: int
    height: int
    fps: float  # where times are uneven their mean
    frames: int
    times: Times | None = field(default=None, compare=False)

    def length(self, rate: float) -> int:
        """Return how many frames Label Studio counts at `rate` frames per second.

        Raises MediaError for more than MAX_FRAMES.
        """
        seconds = self.frames / self.fps if self.times is None else float(self.times[-1])
        if seconds * rate > MAX_FRAMES:
            what = f"the video says it lasts {seconds:.3g} s, more than {MAX_FRAMES} frames"
            raise MediaError(what, where=str(self.path), fix=f"cut it into parts, or {REENCODE}")
        return max(1, round(seconds * rate))

    def numbers(self, rate: float) -> Iterator[int]:
        """Yield the frames of Label Studio that show something new: all, unless it counts faster than the file.

        What stands still for long is yielded again and again: who waits for the next frame takes it for gone.
        """
        before, last, step = -1, 0, math.ceil(rate / self.fps)
        for number in range(1, self.length(rate) + 1):
            shown = self.shown(number, rate)
            if shown < self.frames and (shown > before or number - last > step):
                yield number
                before, last = shown, number

    def shown(self, number: int, rate: float) -> int:
        """Return which frame of the file, from 0, Label Studio shows as its frame `number`.

        As its front end seeks (`goToFrame` of 1.23). With (number - 1) / rate alone, 24 written for 23.976 frames per
        second would be a frame behind what annotators see from the second frame on.
        """
        seconds = STEP_S * (math.floor((number - 1) / rate / STEP_S + 0.5) + 1)
        if self.times is None:
            return int(seconds * self.fps + _ROUNDING)
        return int(np.searchsorted(self.times, seconds + _ROUNDING / self.fps, side="right")) - 1


def probe(path: Path) -> Video:
    """Return what a video's header says; a header that does not count its frames is not believed.

    Raises MediaError for a file that is no video, does not decode, or has no frames or no frame rate.
    """
    return of_header(path, header_of(path))


def header_of(path: Path, max_bytes: int = MAX_BYTES) -> Header:
    """Return the header of a video, which may take so much memory. Raises MediaError for a file that is none."""
    if not is_video(path):
        raise MediaError("not a video", fix="use MP4, WebM, Ogg or AVI; open the URL in a browser to check")
    return video_header.read(path, max_bytes)


def of_header(path: Path, header: Header) -> Video:
    """Return the video that has this header; raises as `probe`."""
    if not header.decodes:
        raise MediaError("the video has no frame that can be decoded", fix=REENCODE)
    if len(header.sizes) > 1:
        first, second = (f"{width}x{height}" for width, height in header.sizes)
        fix = "encode it anew in one size, e.g. ffmpeg -i in.webm -vf scale=1280:720 out.mp4"
        raise MediaError(f"the frames of the video change their size, from {first} to {second}", fix=fix)
    fps, count, times = _timed(path, header.fps, header.count, header.times)
    if not (math.isfinite(fps) and 0 < fps < MAX_FPS):
        raise MediaError(f"the video says it has {fps:g} frames per second", fix=REENCODE)
    return Video(path, header.width, header.height, fps, count, times)


def _timed(path: Path, fps: float, count: int, times: Times) -> tuple[float, int, Times | None]:
    """Return the frames per second and the number of frames, and when each is shown where that is uneven.

    A header's own are kept where the frames `times` (n,) agree with it. Raises MediaError where they are uneven and end
    more than a second before the header says.
    """
    n = len(times)
    if n < 2 or not times[-1]:
        return fps, max(count, n, 1), None
    last = float(times[-1])
    mean, said = (n - 1) / last, count / fps if fps > 0 else last
    stays = count > n and _is_whole(path)  # the last frame, while there is sound or none follows
    if not stays and _even(times, fps):
        return fps, max(count, n), None
    if not stays and _even(times, mean):
        return mean, n, None
    # A file that lasts longer than its frames counts more of them; of others the rate is a guess.
    if not stays and count > n and said > last + 1:
        what = f"the video says that it lasts {said:.3g} s, and its last frame is at {last:.3g} s"
        raise MediaError(what, fix=f"upload the whole file again, or {REENCODE}")
    end = max(last + max(float(np.diff(times).min()), STEP_S), said if stays else min(said, last + 1))
    return mean, n, np.append(times, end)


def _is_whole(path: Path) -> bool:
    """Tell of a WebM file whether its Segment, which is all but the first bytes, is as long as it says."""
    with path.open("rb") as file:
        head = file.read(1024)
    at = head.find(b"\x18\x53\x80\x67") + 4  # its size follows, as long as the zeros tell that it begins with
    width = 9 - int.from_bytes(head[at : at + 1]).bit_length()
    size = int.from_bytes(head[at : at + width]) - (1 << 7 * width)
    return at > 3 and at + width + size <= path.stat().st_size


def _even(times: Times, fps: float) -> bool:
    """Tell whether frames are shown `fps` times a second, as nearly as Label Studio goes to them."""
    return 0 < fps < MAX_FPS and bool((np.abs(times - np.arange(len(times)) / fps) <= STEP_S).all())


def is_video(path: Path) -> bool:
    """Tell by its first bytes whether a file is one of the kinds of videos that we open."""
    with path.open("rb") as file:
        head = file.read(16)
    return any(head[at : at + len(mark)] == mark for at, mark in SIGNATURES)


def frames(video: Video, wanted: Iterable[int], rate: float) -> Iterator[Pixels]:
    """Yield the pixels of Label Studio's frames `wanted`, which ascend; one frame is in memory at a time.

    The file is read from its start: seeking lands on the wrong frame in many of them. Raises MediaError where it ends
    more than a second, or a tenth of it, before its header says; frames that a header promised in vain at the very end
    are not yielded.
    """
    with decoder(video.path, video.width, video.height) as source:
        for number in wanted:
            shown = video.shown(number, rate)
            uneven = video.times is not None and shown < video.frames
            after_s = float(video.times[shown]) - STEP_S / 4 if video.times is not None and uneven else BY_NUMBER
            pixels = source.frame(shown, after_s)
            if pixels is None:
                return _check_end(video, source.read)
            yield pixels


def _check_end(video: Video, read: int) -> None:
    if video.frames - read > min(video.fps, max(FORGIVEN, video.frames / 10)):
        breaks = f"the video breaks off after frame {read} of {video.frames}"
        what = f"{breaks}, or its next frame takes more memory than one of {video.width}x{video.height} pixels"
        raise MediaError(what, where=str(video.path), fix=f"upload the whole file again, or {REENCODE}")
