"""Image files of any kind: opened without harm, and shown upright in 8-bit RGB as browsers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from backend.errors import MediaError
from backend.faults import is_of_disk, is_out_of_memory

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # Pillow's others are left out: attack surface
PLAIN_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def opened(path: Path, content_type: str) -> Image.Image:
    """Read the header; Pillow does not decode before the pixels are asked for."""
    try:
        with decoding():
            return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        seen = f" (the server calls it {content_type.partition(';')[0]})" if content_type else ""
        raise MediaError(
            f"not an image{seen}", fix="use JPEG, PNG, WEBP, BMP, GIF, TIFF or AVIF; open the URL in a browser to check"
        ) from None


@contextmanager
def decoding() -> Iterator[None]:
    """Raise MediaError for whatever a decoder stumbles over, but not for what the machine lacks."""
    try:
        yield
    except (UnidentifiedImageError, MediaError):
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise anything
        if is_of_disk(error) or is_out_of_memory(error):
            raise
        raise MediaError(f"the image is truncated or damaged: {error}", fix="upload the whole file again") from error


def is_plain(image: Image.Image, path: Path) -> bool:
    """Tell whether OpenCV reads the stored bytes as the browser does: 8 bits, opaque, upright, one frame."""
    if image.format not in PLAIN_SUFFIX or image.mode not in ("RGB", "L") or image.has_transparency_data:
        return False
    if getattr(image, "is_animated", False) or _orientation(image) in UPRIGHT:
        return False
    if image.format != "PNG":
        return True
    with path.open("rb") as file:
        return file.read(25)[24] == 8  # bit depth in IHDR; Pillow opens 16-bit RGB as RGB


def _orientation(image: Image.Image) -> int:
    """Read EXIF alone: Pillow's own look-up falls back to XMP, which browsers ignore."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; browsers then show the image as it is stored
        return 1


def upright(image: Image.Image) -> Image.Image:
    turn = None if image.format == "WEBP" else UPRIGHT.get(_orientation(image))  # Chromium turns no WEBP
    rgb = _rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info = {}  # or the PNG inherits the colour profile of another colour space
    return rgb


def _rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB: wide grays scaled, transparency on white."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # no browser shows these: stretch what is there
        values = np.nan_to_num(np.asarray(image, np.float64))
        span = float(np.ptp(values)) or 1.0
        return Image.fromarray(((values - values.min()) / span * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
