"""AVIF images as PNG files.

A process of its own decodes them, within a limit of memory, because the size in the header need not be that of the
image. This module is that process when it is run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import AvifImagePlugin, Image

from backend.errors import MediaError
from backend.media import bounded, png
from backend.media.images import upright_size, upright_strips

_PATIENCE_S = 60.0


def write_png(source: Path, target: Path, max_bytes: int) -> None:
    """Write an AVIF image as a PNG, upright in 8-bit RGB, with at most `max_bytes` of memory.

    Raises MediaError for an image that takes more, or that is damaged.
    """
    command = [sys.executable, "-m", __name__, str(source.absolute()), str(target.absolute()), str(max_bytes)]
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command, capture_output=True, timeout=_PATIENCE_S, env=bounded.environ(), check=False
        )
    except subprocess.TimeoutExpired:
        problem, fix = f"the image is not decoded within {_PATIENCE_S:.0f} s", "save it as JPEG or PNG"
        raise MediaError(problem, fix=fix) from None
    if done.returncode:
        bounded.check_end(done.returncode)
        problem = f"the image is damaged, or takes more than the {max_bytes / 1e6:.0f} MB of memory that fit its size"
        raise MediaError(problem, fix="upload the whole file again, or save it as JPEG or PNG")


def main(source: str, target: str, max_bytes: str) -> None:
    """Write the PNG; any error ends the process with a status other than 0."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each thread holds a whole image
    bounded.limit(int(max_bytes))
    with Image.open(source, formats=("AVIF",)) as image, Path(target).open("wb") as sink:
        png.write(sink, *upright_size(image), upright_strips(image))


if __name__ == "__main__":
    main(*sys.argv[1:])
