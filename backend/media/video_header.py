"""The header of a video, and the times of its frames, read in a process of its own.

Opening a video already decodes parts of it, which may take any amount of memory. This module is that process when it
is run.
"""

from __future__ import annotations

import itertools
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
from backend.media.video_frames import REENCODE, decoded, opened, upright

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
    times: Times = field(compare=False)  # (n,) when each packet is shown


def read(path: Path, max_bytes: int = MAX_BYTES) -> Header:
    """Return the header of a video, read with at most `max_bytes` of memory (bounded.LEAST_BYTES at least).

    Raises MediaError for a file that takes more, or that is no video.
    """
    max_bytes = max(bounded.LEAST_BYTES, max_bytes)
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(max_bytes)]
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command, capture_output=True, timeout=_PATIENCE_S, env=bounded.environ(), check=False
        )
    except subprocess.TimeoutExpired:
        raise MediaError(f"the video is not opened within {_PATIENCE_S:.0f} s", fix=REENCODE) from None
    if done.returncode:
        bounded.check_end(done.returncode)
        problem = f"the video cannot be decoded, or takes more than {max_bytes / 1e6:.0f} MB of memory"
        raise MediaError(problem, fix=REENCODE)
    numbers, _, times = done.stdout.partition(b"\n")
    width, height, fps, count, decodes = json.loads(numbers)
    return Header(width, height, fps, count, decodes, np.frombuffer(times, np.float64))


def main(path: str, max_bytes: str) -> None:
    """Print the numbers of a header as a line of JSON, then the times; exit with 1 if the video cannot be opened."""
    import av

    bounded.limit(int(max_bytes))
    try:
        header = _header(path)
        times = _times(path)
    except (av.FFmpegError, IndexError, MemoryError):
        sys.exit(1)
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + times.tobytes())


def _header(path: str) -> tuple[int, int, float, int, bool]:
    """Return the size of the first frame, the frames per second, their number, and whether the first one decodes."""
    with opened(path, threads=1) as container:
        stream = container.streams.video[0]
        fps = float(stream.guessed_rate or 0)
        count = stream.frames or round((container.duration or 0) / 1e6 * fps)  # microseconds
        first = next(decoded(container), None)
        if first is None:
            return stream.width, stream.height, fps, count, False
        height, width = upright(first).shape[:2]
        return width, height, fps, count, True


def _times(path: str) -> Times:
    """Return when each frame of a file is shown (n,), in seconds from the first; this decodes nothing."""
    with opened(path, threads=1) as container:
        packets = container.demux(container.streams.video[0])
        shown = (float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None)
        times: Times = np.sort(list(itertools.islice(shown, MAX_FRAMES)))  # packets come in the order of decoding
    return times - times[:1]


if __name__ == "__main__":
    main(*sys.argv[1:])
