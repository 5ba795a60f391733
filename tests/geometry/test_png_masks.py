"""Masks as PNG data URLs."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from backend.errors import RegionError
from backend.geometry import png_masks
from backend.types import BoolArray


def url_of(image: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return png_masks.PREFIX + base64.b64encode(file.getvalue()).decode()


def header_of(width: int, height: int) -> str:
    """Return the data URL of a PNG that ends after its header."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png_masks.PREFIX + base64.b64encode(data).decode()


def some_mask(height: int = 30, width: int = 41) -> BoolArray:
    return np.asarray(np.random.default_rng(0).random((height, width)) > 0.5)


@pytest.mark.parametrize("mask", [some_mask(), some_mask(1, 1), np.zeros((3, 9), bool), np.ones((9, 3), bool)])
def test_decode_undoes_encode(mask: BoolArray) -> None:
    np.testing.assert_array_equal(png_masks.decode(png_masks.encode(mask), *mask.shape), mask)


def test_a_soft_edge_is_cut_at_half_of_the_highest_alpha() -> None:
    alpha = np.array([[0, 1, 60, 61, 120]], np.uint8)
    image = Image.fromarray(np.stack([np.zeros_like(alpha)] * 3 + [alpha], axis=2))
    assert png_masks.decode(url_of(image), 1, 5).tolist() == [[False, False, True, True, True]]


def test_a_png_without_transparency_is_painted_everywhere_as_the_editor_shows_it() -> None:
    assert png_masks.decode(url_of(Image.new("RGB", (4, 3))), 3, 4).all()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "does not begin with data:image/png;base64,"),
        (["data:image/png;base64,"], "does not begin with"),
        ("data:image/jpeg;base64,AAAA", "does not begin with"),
        (png_masks.PREFIX + "???", "is not base64"),
        (png_masks.PREFIX + "é", "is not base64"),
        (png_masks.PREFIX + base64.b64encode(b"GIF89a" * 9).decode(), "is not a PNG"),
        (png_masks.PREFIX, "is not a PNG"),
        (url_of(Image.new("RGBA", (5, 3))), "it has 5 x 3 pixels, and its image has 4 x 3"),
        (header_of(2**31 - 1, 2**31 - 1), "it has 2147483647 x 2147483647 pixels"),
        (header_of(4, 3), "damaged"),
        (url_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)))[:98], "damaged"),
    ],
)
def test_what_cannot_be_read_has_a_reason_and_a_cure(url: object, reason: str) -> None:
    with pytest.raises(RegionError, match="the bitmask cannot be read: ") as caught:
        png_masks.decode(url, 3, 4)
    assert reason in caught.value.what
    assert caught.value.fix
