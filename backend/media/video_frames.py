"""The frames of a video, decoded in a process of its own: they need not have the size that the header says.

Run as a module it is that process. It is asked for one frame after the other, and may take the memory that frames of
the header's size take.
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

BYTES_PER_PIXEL = 24  # what a decoder with its threads, and two frames of it here, take for each pixel at most
THREADS = 4  # each holds a frame
REENCODE = "encode it anew, e.g. ffmpeg -i in.mov -r 25 -pix_fmt yuv420p out.mp4"
_ASKED = struct.Struct("<id")  # the number of a frame, and after how many seconds it is shown
_ANSWER = struct.Struct("<iii")  # height and width of a frame, 0 without one, and how many were read
BY_NUMBER = -1.0  # in the place of the seconds


class Decoder:
    """Decodes the frames of one file, in order."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, max_bytes: int) -> None:
        self._process, self._path, self._max_bytes = process, path, max_bytes
        self.read = 0  # frames of the file so far

    def frame(self, number: int, after_s: float) -> Pixels | None:
        """Return the frame `number` of the file, from 0, or the first after so many seconds; None past the end.

        Raises MediaError for one that cannot be decoded in the memory that it may take.
        """
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), _ASKED.pack(number, after_s))
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
        what = f"the frame after frame {self.read} cannot be decoded, or takes more than the {most}"
        return MediaError(what, where=str(self._path), fix=REENCODE)


@contextmanager
def decoder(path: Path, width: int, height: int) -> Iterator[Decoder]:
    """Start the process that decodes a video whose frames have this size; it ends with the block."""
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
    """Answer what is asked on the standard input, until it is closed."""
    import cv2

    bounded.limit(int(max_bytes))
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, THREADS])
    if not capture.isOpened():
        sys.exit(1)
    read = 0
    while asked := sys.stdin.buffer.read(_ASKED.size):
        number, after_s = _ASKED.unpack(asked)
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
    """Tell whether the last of `read` frames is frame `number` of the file, or a later one."""
    import cv2

    if after_s == BY_NUMBER or not read:
        return read > number
    # Not by their number: a packet may hold a frame that is never shown, as VP8 writes them.
    return bool(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 > after_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
