"""Files that people take for images: their first bytes tell what they are, and each has a cure."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 256  # of a file, in which the signatures are looked for
_CONVERT = "convert it to JPEG or PNG, as in: magick FILE.{suffix} FILE.jpg"


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """A format that the backend does not read."""

    name: str  # with its article
    signature: re.Pattern[bytes]  # from the first byte
    fix: str


FOREIGN_FORMATS = (
    ForeignFormat(
        "a HEIC image, which most browsers do not show",
        re.compile(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
        _CONVERT.format(suffix="heic"),
    ),
    ForeignFormat(
        "a video",
        re.compile(rb".{4}ftyp(iso|mp4|avc1|M4V|qt  |dash|3gp)|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL),
        "show it with a Video tag in the label config",
    ),
    ForeignFormat("a PDF", re.compile(rb"%PDF-"), "store each page as a PNG, as in: pdftoppm -png FILE.pdf page"),
    ForeignFormat(
        "an SVG drawing", re.compile(rb"\s*(<\?xml.*?\?>\s*)?(<!.*?>\s*)*<svg\b", re.DOTALL), "store it as a PNG"
    ),
    ForeignFormat(
        "a DICOM image", re.compile(rb".{128}DICM", re.DOTALL), "store it as a PNG, as in: dcm2img FILE.dcm FILE.png"
    ),
    ForeignFormat("a Photoshop file", re.compile(rb"8BPS"), _CONVERT.format(suffix="psd")),
    ForeignFormat(
        "a JPEG 2000 image, which most browsers do not show",
        re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
        _CONVERT.format(suffix="jp2"),
    ),
    ForeignFormat(
        "a JPEG XL image, which most browsers do not show",
        re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
        _CONVERT.format(suffix="jxl"),
    ),
)


def foreign_format(head: bytes) -> ForeignFormat | None:
    """Return the format of a file that starts with `head` (HEAD_BYTES of it), None for any other.

    >>> foreign_format(b"%PDF-1.7").name
    'a PDF'
    """
    return next((kind for kind in FOREIGN_FORMATS if kind.signature.match(head)), None)
