"""Masks as Label Studio's Bitmask stores them: a PNG of the image's size in a data URL, painted where it is opaque."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.types import BoolArray

PREFIX = "data:image/png;base64,"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 24  # bytes up to the end of width and height
_BLACK = bytes(6)  # both colours of the palette
_OPACITY = bytes([0, 255])  # of the two colours


def encode(mask: npt.ArrayLike) -> str:
    """Return a mask (h, w) as a data URL: black where it is true, transparent elsewhere, one bit per pixel.

    >>> decode(encode([[False, True]]), height=1, width=2)
    array([[False,  True]])
    """
    from PIL import Image

    image = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    image.putpalette(_BLACK)
    file = io.BytesIO()
    image.save(file, "PNG", bits=1, transparency=_OPACITY)
    return PREFIX + base64.b64encode(file.getvalue()).decode()


def decode(url: Any, height: int, width: int) -> BoolArray:
    """Return the mask (height, width) of a data URL: true where alpha is at least half of the PNG's highest alpha.

    This threshold keeps the soft edge of a stroke in place. The size is checked before the PNG is decoded. Raises
    RegionError for what is no PNG, is damaged, or has another size.
    """
    from PIL import Image

    data = _content(url)
    size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if size != (width, height):
        _refuse(f"it has {size[0]} x {size[1]} pixels, and its image has {width} x {height}")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    except (OSError, ValueError, SyntaxError) as error:  # pillow raises the last for a damaged PNG
        _refuse(f"its PNG is damaged ({error})")
    half = max((int(alpha.max()) + 1) // 2, 1)
    return np.asarray(alpha >= half)


def _content(url: Any) -> bytes:
    """Return the bytes of a PNG in a data URL."""
    if not isinstance(url, str) or not url.startswith(PREFIX):
        _refuse(f"its imageDataURL does not begin with {PREFIX}")
    try:
        data = base64.b64decode(url[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        _refuse("its imageDataURL is not base64")
    if len(data) < _HEADER or not data.startswith(_SIGNATURE):
        _refuse("its imageDataURL is not a PNG")
    return data


def _refuse(reason: str) -> NoReturn:
    raise RegionError(
        f"the bitmask cannot be read: {reason}",
        where="value.imageDataURL",
        fix="paint the region anew, or import it with a PNG of the image's size that is opaque where it is painted",
    )
