"""Writes PNG files strip by strip, so that an image need not be in memory twice."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Strip = npt.NDArray[np.uint8]  # (rows, width, 3) RGB

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SUB = 1  # the filter "Sub" of a row: each byte minus the same byte of the pixel before


def write(sink: BinaryIO, width: int, height: int, strips: Iterable[Strip]) -> None:
    """Write an 8-bit RGB PNG from strips (rows, width, 3), from top to bottom, with `height` rows in all."""
    sink.write(_SIGNATURE)
    _chunk(sink, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(1)
    for strip in strips:
        rows = np.empty((len(strip), 1 + 3 * width), np.uint8)
        rows[:, 0] = _SUB
        rows[:, 1:4] = strip[:, 0]
        np.subtract(strip[:, 1:], strip[:, :-1], out=rows[:, 4:].reshape(len(strip), width - 1, 3))
        _chunk(sink, b"IDAT", packer.compress(rows.data))
    _chunk(sink, b"IDAT", packer.flush())
    _chunk(sink, b"IEND", b"")


def _chunk(sink: BinaryIO, kind: bytes, content: bytes) -> None:
    sink.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
