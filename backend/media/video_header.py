"""The header of a video, and the times of its frames, read in a process of its own.

Opening a video already decodes parts of it, which may take any amount of memory. This module is that process when it
is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.errors import MediaError
from backend.geometry.keyframes import MAX_FRAMES
from backend.media import bounded
from backend.media.video_frames import REENCODE
from backend.media.video_packets import CODECS, Size, size_of

Times = npt.NDArray[np.float64]  # seconds

MAX_BYTES = 500_000_000  # of memory, for reading a header
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a video: the size of its frames in pixels, their rate and number, and the times of its packets."""

    width: int
    height: int
    fps: float
    count: int
    decodes: bool  # whether the first frame could be decoded; then the size is that of the frame
    sizes: tuple[Size, ...]  # the first two different sizes in the packets; none if this codec's packets hold no size
    times: Times = field(compare=False)  # (n,) when each packet is shown


def read(path: Path, max_bytes: int = MAX_BYTES) -> Header:
    """Return the header of a video, read with at most `max_bytes` of memory (bounded.LEAST_BYTES at least).

    Raises MediaError for a file that takes more, or that is no video.
    """
    max_bytes = max(bounded.LEAST_BYTES, max_bytes)
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(max_bytes)]
    environ = bounded.environ() | {"OPENCV_FFMPEG_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command, capture_output=True, timeout=_PATIENCE_S, env=environ, check=False
        )
    except subprocess.TimeoutExpired:
        raise MediaError(f"the video is not opened within {_PATIENCE_S:.0f} s", fix=REENCODE) from None
    if done.returncode:
        bounded.check_end(done.returncode)
        problem = f"the video cannot be decoded, or takes more than {max_bytes / 1e6:.0f} MB of memory"
        raise MediaError(problem, fix=REENCODE)
    numbers, _, times = done.stdout.partition(b"\n")
    width, height, fps, count, decodes, sizes = json.loads(numbers)
    frame_sizes = tuple((across, down) for across, down in sizes)
    return Header(width, height, fps, count, decodes, frame_sizes, np.frombuffer(times, np.float64))


def main(path: str, max_bytes: str) -> None:
    """Print the numbers of a header as a line of JSON, then the times; exit with 1 if the video cannot be opened."""
    import cv2

    bounded.limit(int(max_bytes))
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        sys.exit(1)
    width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    fps, count = float(capture.get(cv2.CAP_PROP_FPS)), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    decodes, first = capture.read()
    if decodes:
        height, width = first.shape[:2]
    capture.release()
    times, sizes = _packets(path)
    numbers = json.dumps([width, height, fps, count, decodes, sizes])
    sys.stdout.buffer.write(numbers.encode() + b"\n" + times.tobytes())


def _packets(path: str) -> tuple[Times, list[Size]]:
    """Return when each packet is shown (n,), in seconds from the first, and the frames' sizes; this decodes nothing."""
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1")
    capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets, not frames
    shown, sizes = list[float](), list[Size]()
    while len(shown) < MAX_FRAMES and capture.grab():
        shown.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        if codec in CODECS and len(sizes) < 2:
            size = size_of(codec, capture.retrieve()[1].tobytes())
            sizes += [size] if size and size not in sizes else []
    return np.sort(shown) - min(shown, default=0.0), sizes  # packets come in the order of decoding


if __name__ == "__main__":
    main(*sys.argv[1:])
