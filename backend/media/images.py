"""Image files: opened safely, and converted to upright 8-bit RGB as browsers show them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from backend.errors import MediaError, is_disk_error, is_out_of_memory
from backend.media.foreign_formats import HEAD_BYTES, foreign_format
from backend.media.png import Strip

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # without Pillow's rarer decoders, a security risk
PLAIN_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
STRIP_PIXELS = 1 << 18  # pixels converted at a time
_BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20}  # their decoders hold the whole image several times
# Tags of TIFF.
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 258, 277, 278, 322, 323


def opened(path: Path, content_type: str) -> Image.Image:
    """Open an image and read its header; Pillow decodes it later, when its pixels are read.

    Raises MediaError for a file that is not an image of FORMATS. It names the format that the first bytes tell, else
    the server's `content_type`.
    """
    try:
        with decoding():
            return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            foreign = foreign_format(file.read(HEAD_BYTES))
        if foreign:
            raise MediaError(f"not a readable image: it is {foreign.name}", fix=foreign.fix) from None
        served = f" (the server calls it {content_type.partition(';')[0]})" if content_type else ""
        raise MediaError(
            f"not an image{served}",
            fix="use JPEG, PNG, WEBP, BMP, GIF, TIFF or AVIF; open the URL in a browser to check",
        ) from None


@contextmanager
def decoding() -> Iterator[None]:
    """Raise MediaError for any error of a decoder in this block, but for a lack of memory or of disk space."""
    try:
        yield
    except (UnidentifiedImageError, MediaError):
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise anything
        if is_disk_error(error) or is_out_of_memory(error):
            raise
        raise MediaError(f"the image is truncated or damaged: {error}", fix="upload the whole file again") from error


def is_plain(image: Image.Image, path: Path) -> bool:
    """Return whether OpenCV reads the stored bytes as a browser does: 8 bits, opaque, upright, one frame."""
    if image.format not in PLAIN_SUFFIX or image.mode not in ("RGB", "L") or image.has_transparency_data:
        return False
    if getattr(image, "is_animated", False) or _orientation(image) in UPRIGHT:
        return False
    if image.format != "PNG":
        return True
    with path.open("rb") as file:
        return file.read(25)[24] == 8  # bit depth in IHDR; Pillow opens 16-bit RGB as RGB


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation. Pillow's own look-up also reads XMP, which browsers ignore."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; browsers then show the image as it is stored
        return 1


def decoded_bytes(image: Image.Image) -> int:
    """Return the bytes of memory that decoding an image takes at most, by its header; this decodes nothing.

    Pillow keeps up to four bytes per pixel. The memory of the decoders was measured in tests/faults/test_memory.py.
    """
    pixels = image.width * image.height
    if image.format in _BYTES_PER_PIXEL:
        return _BYTES_PER_PIXEL[image.format] * pixels
    if image.format == "TIFF":
        return 4 * pixels + _tiff_block(image)
    return int((4 + 2 * _coefficients(image)) * pixels)


def _coefficients(image: Image.Image) -> float:
    """Return how many coefficients per pixel a decoder keeps to the end: all for progressive JPEGs, else none."""
    if "progressive" not in image.info:
        return 0.0
    sampling = [(across, down) for _, across, down, _ in getattr(image, "layer", ())]
    if not sampling:
        return 4.0
    most = max(across for across, _ in sampling) * max(down for _, down in sampling)
    return float(sum(across * down for across, down in sampling) / most)


def _tiff_block(image: Image.Image) -> int:
    """Return the bytes of one strip or tile of a TIFF. It is decoded as a whole, and may be larger than the image."""
    tags = getattr(image, "tag_v2", {})
    try:
        across = int(tags.get(_TILE_WIDTH, image.width))
        down = int(tags.get(_TILE_LENGTH, min(int(tags.get(_ROWS_PER_STRIP, image.height)), image.height)))
        bits = int(max(tags.get(_BITS_PER_SAMPLE, (8,)))) * int(tags.get(_SAMPLES_PER_PIXEL, 1))
    except (TypeError, ValueError, OverflowError):
        raise MediaError("the header of the TIFF is damaged", fix="save the image anew, as PNG or JPEG") from None
    return across * down * max(4, -(-bits // 8))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an image as browsers show it."""
    width, height = image.size
    return (height, width) if _turn(image) in _SIDEWAYS else (width, height)


def upright_strips(image: Image.Image) -> Iterator[Strip]:
    """Yield strips of an image as browsers show it, upright in 8-bit RGB, from top to bottom.

    Only one strip at a time is in memory twice.
    """
    turn, (width, height) = _turn(image), upright_size(image)
    stretch = _value_range(image) if image.mode in ("I", "F") else (0.0, 1.0)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        part = _rgb(image.crop(_source_box(image.size, turn, top, bottom)), stretch)
        yield np.asarray(part if turn is None else part.transpose(turn))


def _turn(image: Image.Image) -> Image.Transpose | None:
    return None if image.format == "WEBP" else UPRIGHT.get(_orientation(image))  # Chromium never rotates a WEBP


def _source_box(
    size: tuple[int, int], turn: Image.Transpose | None, top: int, bottom: int
) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) of a stored image that is shown in the rows `top` to `bottom`."""
    width, height = size
    if turn in (Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM):
        return 0, height - bottom, width, height - top
    if turn in (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270):
        return top, 0, bottom, height
    if turn in (Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90):
        return width - bottom, 0, width - top, height
    return 0, top, width, bottom


def _value_range(image: Image.Image) -> tuple[float, float]:
    """Return the lowest value of an image of integers or floats, and the span of its values; NaN counts as 0."""
    rows = max(1, STRIP_PIXELS // image.width)
    low, high = np.inf, -np.inf
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.nan_to_num(np.asarray(strip, np.float64))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, (high - low) or 1.0


def _rgb(image: Image.Image, stretch: tuple[float, float]) -> Image.Image:
    """Return an image in 8-bit RGB: grays of more bits are scaled, and transparency is put on white."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # browsers do not show these, so stretch the values to 0..255
        low, span = stretch
        values = np.nan_to_num(np.asarray(image, np.float64))
        return Image.fromarray(((values - low) / span * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
