"""The frames of a video, decoded in a process of its own, as they may be larger than the header says.

This module is that process when it is run. It reads requests for one frame after the other, and may take the memory
that frames of the header's size take.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backend.errors import MediaError
from backend.media import bounded

if TYPE_CHECKING:  # its libraries take a tenth of a second to load
    from av import VideoFrame
    from av.container import InputContainer

Pixels = npt.NDArray[np.uint8]  # (height, width, 3) BGR

BYTES_PER_PIXEL = 24  # a decoder with its threads, and two of its frames in our process, take at most this much
THREADS = 4  # each thread holds a frame
REENCODE = "encode it anew, e.g. ffmpeg -i in.mov -r 25 -pix_fmt yuv420p out.mp4"
_REQUEST = struct.Struct("<id")  # the number of a frame, and after how many seconds it is shown
_ANSWER = struct.Struct("<iii")  # height and width of the frame, 0 if there is none, and how many frames were read
# A playlist names other files and addresses. It may begin like a video, so FFmpeg opens only formats that hold frames.
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi,ogg"}
BY_NUMBER = -1.0  # stands for the seconds in a request by number


class Decoder:
    """Decodes the frames of one file, in order."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, max_bytes: int) -> None:
        self._process, self._path, self._max_bytes = process, path, max_bytes
        self.read = 0  # frames of the file so far

    def frame(self, number: int, after_s: float) -> Pixels | None:
        """Return the frame `number` of the file, from 0, or the first frame later than `after_s`; None past the end.

        `after_s` is in seconds, or BY_NUMBER. Raises MediaError for a frame that cannot be decoded within the memory
        limit.
        """
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), _REQUEST.pack(number, after_s))
        except BrokenPipeError:
            raise self._failure() from None
        height, width, self.read = _ANSWER.unpack(self._received(_ANSWER.size))
        return np.frombuffer(self._received(3 * height * width), np.uint8).reshape(height, width, 3) if height else None

    def _received(self, size: int) -> bytearray:
        assert self._process.stdout is not None
        content = bytearray(size)
        if self._process.stdout.readinto(content) < size:  # type: ignore[attr-defined]
            raise self._failure()
        return content

    def _failure(self) -> MediaError:
        bounded.check_end(self._process.wait())
        most = f"{self._max_bytes / 1e6:.0f} MB of memory that fit its size"
        problem = f"the frame after frame {self.read} cannot be decoded, or takes more than the {most}"
        return MediaError(problem, where=str(self._path), fix=REENCODE)


@contextmanager
def decoder(path: Path, width: int, height: int) -> Iterator[Decoder]:
    """Start a process that decodes a video with frames of this size in pixels; it ends with the block."""
    max_bytes = max(bounded.LEAST_BYTES, BYTES_PER_PIXEL * width * height)
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(max_bytes)]
    with subprocess.Popen(  # noqa: S603 - this very module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=bounded.environ()
    ) as process:
        try:
            yield Decoder(process, path, max_bytes)
        finally:
            process.kill()


@contextmanager
def opened(path: str, threads: int) -> Iterator[InputContainer]:
    """Open a file, and decode its first video stream with this number of threads.

    Raises av.FFmpegError for a file that cannot be opened, and IndexError for one without a video.
    """
    import av

    with av.open(path, options=_OPTIONS) as container:
        container.streams.video[0].codec_context.thread_count = threads
        yield container


def decoded(container: InputContainer) -> Iterator[VideoFrame]:
    """Yield the frames of a file in the order in which they are shown, without those of damaged packets."""
    import av

    for packet in container.demux(container.streams.video[0]):
        with suppress(av.error.InvalidDataError):
            yield from packet.decode()


def upright(frame: VideoFrame) -> Pixels:
    """Return the pixels of a frame (height, width, 3) BGR, rotated as players show it."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="bgr24"), frame.rotation // 90), np.uint8)


def main(path: str, max_bytes: str) -> None:
    """Answer the requests on the standard input until it is closed."""
    import av  # before the limit, which does not count the memory of its libraries

    bounded.limit(int(max_bytes))
    try:
        with opened(path, THREADS) as container:
            _answer(decoded(container))
    except (av.FFmpegError, IndexError, MemoryError):
        sys.exit(1)


def _answer(frames: Iterator[VideoFrame]) -> None:
    first_s, read, frame = 0.0, 0, None
    while request := sys.stdin.buffer.read(_REQUEST.size):
        number, after_s = _REQUEST.unpack(request)
        while frame is None or not _is_reached(read, number, _time(frame) - first_s, after_s):
            frame = next(frames, None)
            if frame is None:
                break
            first_s = first_s if read else _time(frame)
            read += 1
        pixels = upright(frame) if frame is not None else np.empty((0, 0, 3), np.uint8)
        sys.stdout.buffer.write(_ANSWER.pack(*pixels.shape[:2], read) + pixels.tobytes())
        sys.stdout.buffer.flush()


def _is_reached(read: int, number: int, shown_s: float, after_s: float) -> bool:
    """Return whether the last of the `read` frames is the requested frame, or a later one."""
    # By time if the request has one, because VP8 has packets whose frames are never shown.
    return read > number if after_s == BY_NUMBER else shown_s > after_s


def _time(frame: VideoFrame) -> float:
    return frame.time or 0.0  # None in a file without times, where requests are by number


if __name__ == "__main__":
    main(*sys.argv[1:])
