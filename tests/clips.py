"""Small videos for tests: rectangles that move on a plain background."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.support import ROOT

GROUND = (40, 40, 40)
COLOURS = {"red": (40, 40, 220), "blue": (220, 60, 40)}  # BGR


@dataclass(frozen=True)
class Mover:
    """A rectangle that moves back and forth, visible from frame `first` to `last` of the file, counted from 0."""

    label: str
    start: tuple[float, float]  # pixels, of the top-left corner
    speed: tuple[float, float]  # pixels per frame
    size: tuple[int, int]
    first: int = 0
    last: int = 10**9

    def box(self, frame: int, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Return its x, y, width, height in pixels, None in frames that do not show it."""
        if not self.first <= frame <= self.last:
            return None
        x, y = (
            round(_reflect(start + frame * speed, room - side))
            for start, speed, side, room in zip(self.start, self.speed, self.size, (width, height), strict=True)
        )
        return x, y, *self.size


def _reflect(at: float, room: float) -> float:
    at %= 2 * room
    return min(at, 2 * room - at)


def draw(movers: Sequence[Mover], count: int, size: tuple[int, int] = (160, 120)) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield `count` frames."""
    width, height = size
    for frame in range(count):
        pixels = np.full((height, width, 3), GROUND, np.uint8)
        for mover in movers:
            box = mover.box(frame, width, height)
            if box is not None:
                x, y, w, h = box
                pixels[y : y + h, x : x + w] = COLOURS[mover.label]
        yield pixels


def write(
    path: Path, movers: Sequence[Mover], count: int, size: tuple[int, int] = (160, 120), fps: float = 25.0
) -> Path:
    """Write a video: in .avi as Motion JPEG, whose frames do not depend on each other, in .mp4 as MPEG-4."""
    code = {".avi": "MJPG", ".mp4": "mp4v", ".webm": "VP80"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size)
    assert writer.isOpened()
    for pixels in draw(movers, count, size):
        writer.write(pixels)
    writer.release()
    return path


def retime(path: Path, times: Sequence[int]) -> Path:
    """Change the times of a .webm of 25 frames per second, so that its frames are shown at these milliseconds."""
    content, at = bytearray(path.read_bytes()), 0
    cues = content.index(b"\x1c\x53\xbb\x6b")  # the index for seeking
    for number, time in enumerate(times):
        old, new = (40 * number).to_bytes(2, "big"), time.to_bytes(2, "big")
        at = content.index(b"\x81" + old, at) + 1  # a block of track 1
        content[at : at + 2] = new
        content[cues:] = content[cues:].replace(b"\xb3\x82" + old, b"\xb3\x82" + new)
    path.write_bytes(content.replace(b"\x23\xe3\x83", b"\x23\xe3\x84"))  # no DefaultDuration, which would contradict
    return path


def peaks(folder: Path, script: str, movers: Sequence[Mover], weights: Path) -> tuple[int, int]:
    """Return the peak memory in MB of a script that predicts ten seconds of 640 x 480, and that for sixty seconds.

    The script gets the clip and the weights as arguments, and prints the number of frames and its peak.
    """
    peaks_mb = []
    for count in (250, 1500):
        path = write(folder / f"{count}.avi", movers, count, (640, 480))
        command = [sys.executable, "-c", script, str(path), str(weights)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=600)
        frames, peak = map(int, done.stdout.split())
        assert frames == count
        peaks_mb.append(peak)
    print(f"peak memory in MB: {peaks_mb}")
    return peaks_mb[0], peaks_mb[1]


def avi(pictures: Sequence[bytes], side: int, codec: bytes = b"MJPG") -> bytes:
    """Return an AVI of encoded frames; its header gives `side` as their width and height."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    count = len(pictures)
    main = struct.pack("<14I", 40_000, 0, 0, 0, count, 0, 1, 0, side, side, 0, 0, 0, 0)
    stream = struct.pack("<4s4s10I4H", b"vids", codec, 0, 0, 0, 1, 25, 0, count, 0, 0, 0, 0, 0, side, side)
    form = struct.pack("<IiiHH4sIiiII", 40, side, side, 1, 24, codec, 3 * side * side, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    frames = b"".join(chunk(b"00dc", picture) for picture in pictures)
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    return chunk(b"RIFF", b"AVI " + header + chunk(b"LIST", b"movi" + frames))
