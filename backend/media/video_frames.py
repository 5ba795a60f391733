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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.errors import MediaError
from backend.media import bounded

Pixels = npt.NDArray[np.uint8]  # (height, width, 3) BGR

BYTES_PER_PIXEL = 24  # a decoder with its threads, and two of its frames in our process, take at most this much
THREADS = 4  # each thread holds a frame
REENCODE = "encode it anew, e.g. ffmpeg -i in.mov -r 25 -pix_fmt yuv420p out.mp4"
_REQUEST = struct.Struct("<id")  # the number of a frame, and after how many seconds it is shown
_ANSWER = struct.Struct("<iii")  # height and width of the frame, 0 if there is none, and how many frames were read
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


def main(path: str, max_bytes: str) -> None:
    """Answer the requests on the standard input until it is closed."""
    import cv2

    bounded.limit(int(max_bytes))
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, THREADS])
    if not capture.isOpened():
        sys.exit(1)
    read = 0
    while request := sys.stdin.buffer.read(_REQUEST.size):
        number, after_s = _REQUEST.unpack(request)
        while not (reached := _is_reached(capture, read, number, after_s)) and capture.grab():
            read += 1
        pixels = capture.retrieve()[1] if reached else None
        if reached and pixels is None:
            sys.exit(1)
        height, width = (0, 0) if pixels is None else pixels.shape[:2]
        sys.stdout.buffer.write(_ANSWER.pack(height, width, read))
        if pixels is not None:
            sys.stdout.buffer.write(np.ascontiguousarray(pixels).data.cast("B"))
        sys.stdout.buffer.flush()


def _is_reached(capture: Any, read: int, number: int, after_s: float) -> bool:
    """Return whether the last of the `read` frames is the requested frame, or a later one."""
    import cv2

    if after_s == BY_NUMBER or not read:
        return read > number
    # By time and not by number, because VP8 has packets whose frames are never shown.
    return bool(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 > after_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
