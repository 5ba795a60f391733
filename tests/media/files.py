"""Image files in memory, and the error of a file that cannot be fetched, for the tests of media."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.errors import MediaError
from backend.media.cache import MediaCache, MediaFile

TOKEN = {"Authorization": "Bearer of-the-token"}
Make = Callable[..., MediaCache]  # makes a cache with these settings


def encoded(pixels: npt.NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def quadrants(width: int = 32, height: int = 16) -> npt.NDArray[np.uint8]:
    """Return quarters of red, green / blue, white, which show all eight orientations, and survive JPEG."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return pixels


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """Return a PNG that Pillow cannot write, or with a wrong size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def read_rgb(file: MediaFile) -> npt.NDArray[np.uint8]:
    """Return the pixels as ultralytics reads them: by OpenCV, in colour."""
    image = cv2.imread(str(file.path), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.dtype == np.uint8
    assert image.shape == (file.height, file.width, 3)
    return np.asarray(image[:, :, ::-1], np.uint8)


def failure(cache: MediaCache, uri: object, task_id: int | None = None) -> MediaError:
    """Return the error of a fetch that must fail; every error has a fix, and nothing stays in the cache's folder."""
    before = set((cache.root).iterdir())
    with pytest.raises(MediaError) as caught:
        cache.fetch(uri, task_id)
    assert caught.value.fix
    assert set((cache.root).iterdir()) == before
    return caught.value
