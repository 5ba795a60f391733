"""The memory that one file takes, measured in a process that reads files like a server or a worker.

`python -m tests.faults.test_memory read MEGAPIXELS FOLDER` is that process. For each file it prints the rise of its
memory, with that of its decoding processes, and the result. `make test` measures with MAX_MEGAPIXELS=16, `make
test-slow` with the default of 100.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from backend.errors import MediaError
from backend.geometry import brush_rle
from backend.labelstudio.tags import brushlabels
from backend.media import bounded
from backend.media.cache import MediaCache
from backend.media.video import frames
from backend.settings import Settings
from tests import clips
from tests.support import ROOT

pytestmark = pytest.mark.processes

Make = Callable[[Path, int], None]  # writes a file whose image has this side

BYTES_PER_PIXEL = 5  # the promised limit for a file, for each pixel of MAX_MEGAPIXELS: 500 MB by default
SLACK_MB = 25  # for strips, and for libraries that load at their first use
FAST, FULL = 16, 100  # megapixels


def flat_png(path: Path, side: int, mode: str) -> None:
    """Write a PNG of one colour row by row, so that writing it takes no memory."""
    color, samples, bits = {"RGBA": (6, 4, 8), "LA": (4, 2, 8), "RGB": (2, 3, 8), "I;16": (0, 1, 16)}[mode]
    packer, row = zlib.compressobj(1), b"\0" + b"\x40" * (side * samples * bits // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, color, 0, 0, 0)
    with path.open("wb") as sink:
        sink.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            sink.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def flat(kind: str, mode: str = "RGB", **options: Any) -> Make:
    return lambda path, side: Image.new(mode, (side, side), 0 if mode == "F" else 90).save(path, kind, **options)


def tiff_of_one_tile(path: Path, side: int) -> None:
    """Write a TIFF of 16 x 16 pixels whose header gives its one tile 32,000 x 16,000; decoders read whole tiles."""
    entries = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, 32_000), (323, 16_000)]
    body = zlib.compress(bytes(32_000 * 100))
    count = len(entries) + 2
    at = 8 + 2 + 12 * count + 4
    entries += [(324, at), (325, len(body))]
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", count) + listed + bytes(4) + body)


def webp_header(path: Path, side: int) -> None:
    """Write the first bytes of a lossless WEBP of 16,383 x 16,383 pixels."""
    size = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(16)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", len(size) + 13) + b"WEBPVP8L" + struct.pack("<I", len(size)) + size + b"\0"
    )


def video(code: str) -> Make:
    def write(path: Path, side: int) -> None:
        import cv2

        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 25.0, (side, side))
        for _ in range(2):
            writer.write(np.full((side, side, 3), 90, np.uint8))
        writer.release()

    return write


def jpeg(side: int) -> bytes:
    sink = BytesIO()
    Image.new("RGB", (side, side), 90).save(sink, "JPEG", quality=10)
    return sink.getvalue()


def understated_avif(path: Path, side: int) -> None:
    """Write an AVIF of 9,000 x 9,000 pixels whose header says 64 x 64."""
    flat("AVIF", speed=10, subsampling="4:4:4")(path, 9_000)
    true, untrue = (b"ispe" + struct.pack(">III", 0, size, size) for size in (9_000, 64))
    content = path.read_bytes()
    changed = content.replace(true, untrue)
    assert changed != content
    path.write_bytes(changed)


def growing_avi(path: Path, side: int) -> None:
    """Write a video of PNG images: one has 12,000 x 12,000 pixels, the others and the header 64 x 64."""
    images = []
    for width in (64, 12_000):
        flat_png(path, width, "RGB")
        images.append(path.read_bytes())
    small, large = images
    path.write_bytes(clips.avi([small] * 10 + [large] + [small] * 10, 64, b"MPNG"))


def understated_avi(path: Path, side: int) -> None:
    path.write_bytes(clips.avi([jpeg(16_000)] * 4 + [jpeg(64)] * 10, 64))


def turned(path: Path, side: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    flat("JPEG", exif=exif)(path, side)


PROGRESSIVE: dict[str, Any] = {"progressive": True, "subsampling": 0}
DEFLATE: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
# A function that writes a file, and the file's side as a share of the side of the largest image in MAX_MEGAPIXELS.
ACCEPTED: dict[str, tuple[Make, float]] = {
    "RGB.png": (lambda path, side: flat_png(path, side, "RGB"), 1),
    "RGBA.png": (lambda path, side: flat_png(path, side, "RGBA"), 1),
    "I16.png": (lambda path, side: flat_png(path, side, "I;16"), 1),
    "RGB.jpg": (flat("JPEG"), 1),
    "turned.jpg": (turned, 1),
    "CMYK.jpg": (flat("JPEG", "CMYK"), 1),
    "progressive.jpg": (flat("JPEG", **PROGRESSIVE), 0.7),
    "RGBA.tif": (flat("TIFF", "RGBA", **DEFLATE), 0.95),
    "F.tif": (flat("TIFF", "F", **DEFLATE), 0.95),
    "P.gif": (flat("GIF", "P"), 1),
    "RGB.webp": (flat("WEBP", method=0), 0.5),
    "RGBA.webp": (flat("WEBP", "RGBA", lossless=True, method=0, quality=0), 0.5),
    "RGBA.avif": (flat("AVIF", "RGBA", speed=10), 0.5),
    "mpeg4.mp4": (video("mp4v"), 0.45),
}
REFUSED: dict[str, tuple[Make, float]] = {
    "tile.tif": (tiff_of_one_tile, 0),
    "header.webp": (webp_header, 0),
    "deep.jpg": (flat("JPEG", **PROGRESSIVE), 0.8),
    "large.avif": (flat("AVIF", speed=10), 0.52),
    "motion_jpeg.avi": (video("MJPG"), 1.2),
    "ffv1.avi": (video("FFV1"), 1.2),
}
UNTRUE: dict[str, tuple[Make, float]] = {
    "understated.avif": (understated_avif, 0),
    "understated.avi": (understated_avi, 0),
    "growing.avi": (growing_avi, 0),
}
SMALL: dict[str, tuple[Make, float]] = {"small.avif": (flat("AVIF"), 0), "small.avi": (video("MJPG"), 0)}
BRUSH = {"says16384": "16384 x 16384 pixels", "side7000": "read", "side9900": "paints over", "rubbish": "edges"}


def measured(megapixels: int, folder: Path) -> dict[str, tuple[float, str]]:
    """Return for each file the rise in MB of the memory of a process that reads it, and the result."""
    for step in ("make", "read"):
        command = [sys.executable, "-m", __name__, step, str(megapixels), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=1200)
    print(done.stdout)
    lines = (line.split(" ", 2) for line in done.stdout.splitlines())
    return {name: (float(peak), outcome) for name, peak, outcome in lines}


@pytest.fixture(scope="module", params=[FAST, pytest.param(FULL, marks=pytest.mark.slow)], ids="{}MP".format)
def peaks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, tuple[float, str]]]:
    return request.param, measured(request.param, tmp_path_factory.mktemp("files"))


Peaks = tuple[int, dict[str, tuple[float, str]]]


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_largest_file_of_a_kind_takes_no_more_than_promised(peaks: Peaks, name: str) -> None:
    megapixels, files = peaks
    peak, outcome = files[name]
    assert outcome == "read"
    assert peak < BYTES_PER_PIXEL * megapixels + SLACK_MB * (megapixels < FULL)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_take_more_is_refused_before_it_is_decoded(peaks: Peaks, name: str) -> None:
    """Videos are the exception: opening one decodes a frame, in a process of its own with limited memory."""
    megapixels, files = peaks
    peak, outcome = files[name]
    opened = max(bounded.LEAST_BYTES / 1e6, BYTES_PER_PIXEL * megapixels) if name.endswith(".avi") else 25
    assert "MB of memory" in outcome or "megapixels" in outcome
    assert peak < opened + SLACK_MB


@pytest.mark.parametrize("name", UNTRUE)
def test_a_header_that_is_not_true_costs_no_more_than_promised(peaks: Peaks, name: str) -> None:
    """After a video is opened, its frames may take as much memory as the size in the header needs."""
    megapixels, files = peaks
    peak, outcome = files[name]
    assert "memory" in outcome or "megapixels" in outcome
    opened = BYTES_PER_PIXEL * megapixels if name == "understated.avi" else 0
    assert peak < max(bounded.LEAST_BYTES / 1e6, opened) + SLACK_MB * (megapixels < FULL)


@pytest.mark.parametrize("name", BRUSH)
def test_a_brush_mask_takes_no_more_than_promised(peaks: Peaks, name: str) -> None:
    """One mask claims a large size in a few bytes, one has the largest size, and two are too large."""
    peak, outcome = peaks[1][name]
    assert BRUSH[name] in outcome
    assert peak < BYTES_PER_PIXEL * FULL


def _memory(field: str, pid: str = "self") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


class LocalCache(MediaCache):
    """Reads files of a folder instead of downloading them."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder / "media", settings, lambda url: {}, lambda task, uri: uri)
        self._folder = folder

    def _read(self, uri: str, task_id: int | None, sink: BinaryIO) -> str:
        with (self._folder / uri).open("rb") as source:
            shutil.copyfileobj(source, sink)
        return ""


def _read_file(cache: LocalCache, name: str) -> str:
    try:
        if name.endswith((".avi", ".mp4")):
            clip = cache.fetch_video(name)
            deque(frames(clip, clip.numbers(25), 25), 1)
        else:
            cache.fetch(name)
    except MediaError as error:
        return str(error)
    return "read"


def _read_brush(name: str) -> str:
    side = 16_384 if name == "says16384" else 4_000 if name == "rubbish" else int(name.removeprefix("side"))
    mask = np.zeros((side, side) if side < 16_384 else (1, 1), np.bool_)
    if name == "rubbish":
        mask[::2, ::2] = True
    mask[1:-1, 1:-1] |= name != "rubbish"
    rle = brush_rle.encode_rle(mask)
    del mask
    rle = rle if side < 16_384 else [*struct.pack(">I", 4 * side * side), *rle[4:]]
    item = {"original_width": side, "original_height": side, "value": {"rle": rle, "format": "rle"}}
    before = _forgotten()
    shape = brushlabels.shape_of(item)
    return f"{_memory('VmHWM') - before:.0f} {shape if isinstance(shape, str) else 'read'}"


def _forgotten() -> float:
    """Reset the peak, and return the memory of the process now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


class Children(Thread):
    """Measures the memory of the child processes of this process: `peak`, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self) -> None:
        while True:
            for task in Path("/proc/self/task").iterdir():
                for pid in (task / "children").read_text().split():
                    with contextlib.suppress(OSError, StopIteration):  # it has ended
                        if b"backend." in Path(f"/proc/{pid}/cmdline").read_bytes():  # else it shares our memory still
                            self.peak = max(self.peak, _memory("VmHWM", pid))
            time.sleep(0.005)


def main(step: str, megapixels: int, folder: Path) -> None:
    side = int(1000 * megapixels**0.5)
    if step == "make":
        for name, (make, share) in (SMALL | ACCEPTED | REFUSED | UNTRUE).items():
            make(folder / name, max(64, int(share * side)))
        return
    import cv2  # noqa: F401 - before, for a server has it loaded

    cache = LocalCache(folder, Settings(max_megapixels=megapixels))
    children = Children()
    children.start()
    for name in SMALL:
        assert _read_file(cache, name) == "read"
    python = children.peak  # of a process that decodes next to nothing
    for name in ACCEPTED | REFUSED | UNTRUE:
        before, children.peak = _forgotten(), 0.0
        outcome = _read_file(cache, name)
        print(name, round(_memory("VmHWM") - before + max(0.0, children.peak - python)), outcome)
    for name in BRUSH:
        print(name, _read_brush(name))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
