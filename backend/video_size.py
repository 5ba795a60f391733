"""The size of a video's frames, read in a process of its own: to open a file is to decode of it what its codec wants.

Run as a module it is that process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from backend.errors import MediaError

_PATIENCE_S = 60.0
_FIX = "encode it anew, e.g. ffmpeg -i in.mov -r 25 -pix_fmt yuv420p out.mp4"


def read(path: Path, max_bytes: int) -> tuple[int, int]:
    """Return the width and height of a video, for which at most `max_bytes` of memory are taken.

    Raises MediaError for a file that takes more, or that is no video.
    """
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(max_bytes)]
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OPENCV_FFMPEG_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command, capture_output=True, text=True, timeout=_PATIENCE_S, env=environ, check=False
        )
    except subprocess.TimeoutExpired:
        raise MediaError(f"the video is not opened within {_PATIENCE_S:.0f} s", fix=_FIX) from None
    numbers = done.stdout.split()
    if done.returncode or len(numbers) != 2:
        what = f"the video cannot be opened, or takes more than {max_bytes / 1e6:.0f} MB of memory for it"
        raise MediaError(what, fix=_FIX)
    return int(numbers[0]), int(numbers[1])


def main(path: str, max_bytes: str) -> int:
    """Print the width and height of a video, and end with 1 where it cannot be opened in the memory allowed."""
    import cv2

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(max_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        return 1
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    print(*size)  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
