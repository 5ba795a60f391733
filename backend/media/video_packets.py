"""The size of a frame, read from its packet without decoding, for codecs that browsers and cameras write.

OpenCV silently scales a frame of another size to the size in the header, so a changed size must be found here.
"""

from __future__ import annotations

from collections.abc import Callable

Size = tuple[int, int]  # width, height

_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})  # of JPEG's markers from 0xC0 to 0xCF, those that do not begin a frame


def size_of(codec: str, packet: bytes) -> Size | None:
    """Return the width and height in a packet; None if it holds no size, or we do not read its codec.

    >>> size_of("VP80", bytes.fromhex("1037009d012a40003000"))
    (64, 48)
    >>> size_of("VP90", bytes.fromhex("824983420003f002f000"))
    (64, 48)
    >>> size_of("MJPG", bytes.fromhex("ffd8fffe000400ffffc0000b08003000400101"))
    (64, 48)
    """
    reader = _READERS.get(codec)
    return None if reader is None else reader(packet)


def _vp8(packet: bytes) -> Size | None:
    """Key frames hold their size (RFC 6386, 9.1)."""
    if len(packet) < 10 or packet[0] & 1 or packet[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = (int.from_bytes(packet[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height


def _vp9(packet: bytes) -> Size | None:
    """Key frames of 4:2:0 hold their size after the colours (the uncompressed header of the VP9 specification)."""
    if len(packet) < 10 or packet[0] & 0b11101100 != 0b10000000 or packet[1:4] != b"\x49\x83\x42":
        return None
    deep = bool(packet[0] & 0b00010000)  # then one more bit tells how many bits a colour has
    bits = int.from_bytes(packet[4:10], "big") << deep
    return (bits >> 28 & 0xFFFF) + 1, (bits >> 12 & 0xFFFF) + 1


def _jpeg(packet: bytes) -> Size | None:
    at = 2
    while at + 9 <= len(packet) and packet[at] == 0xFF:
        if 0xC0 <= packet[at + 1] <= 0xCF and packet[at + 1] not in _NO_SIZE:
            height, width = (int.from_bytes(packet[place : place + 2], "big") for place in (at + 5, at + 7))
            return width, height
        at += 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return None


_READERS: dict[str, Callable[[bytes], Size | None]] = {"VP80": _vp8, "VP90": _vp9, "MJPG": _jpeg}
CODECS = frozenset(_READERS)
