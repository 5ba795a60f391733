"""Label Studio's brush RLE, and the masks that go into it.

A brush region is the alpha of an RGBA image of the image's size, packed bit by bit by the front end's @thi.ng/rle-pack:

header  32 bits: number of values (4 per pixel) · 5 bits: word size - 1 · 4 times 4 bits: run size - 1
run     1 bit: "one value repeats" · 2 bits: index of the run size · length - 1 in that size · one or `length` values
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.types import BoolArray, IntArray

WORD = 8
SIZES = (3, 4, 8, 16)  # bits of a run's length, as the front end and the SDK write them
LONGEST = 1 << SIZES[-1]
HEADER = 32 + 5 + 4 * len(SIZES)
MOST_PIXELS = (2**32 - 1) // 4


def encode_rle(mask: npt.ArrayLike) -> list[int]:
    """Return a mask (h, w) as brush RLE: alpha 255 where it is true, 0 elsewhere.

    The bytes are those of the SDK's converter. Raises ValueError for a mask that is not two-dimensional, has no pixel,
    or has more than MOST_PIXELS.

    >>> encode_rle([[False, True]])
    [0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128]
    """
    flat = _flat(mask)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = 4 * np.diff(ends, prepend=0)
    values = np.where(flat[ends - 1], 255, 0)
    pieces = (lengths + LONGEST - 1) // LONGEST
    last = np.cumsum(pieces) - 1
    piece_lengths = np.full(last[-1] + 1, LONGEST)
    piece_lengths[last] = lengths - (pieces - 1) * LONGEST
    # The SDK gives all pieces of a long run the same size, even a short last piece. We do the same.
    size_index = np.repeat(np.searchsorted([1 << size_bits for size_bits in SIZES[:-1]], lengths), pieces)
    size_bits = np.array(SIZES)[size_index]
    codes = ((4 + size_index) << size_bits | (piece_lengths - 1)) << WORD | np.repeat(values, pieces)
    sizes = int("".join(f"{size_bits - 1:04b}" for size_bits in SIZES), 2)
    head = [4 * flat.size, (WORD - 1) << 16 | sizes]
    return _pack(np.append(head, codes), np.append([32, HEADER - 32], 3 + size_bits + WORD))


def decode_rle(rle: Sequence[int], height: int, width: int) -> BoolArray:
    """Return the mask (height, width) of a brush RLE: true where alpha is at least half of the region's highest alpha.

    This threshold keeps the soft edge of a stroke in place, and keeps half-transparent masks of other tools whole.
    Takes one byte of memory per pixel. Raises RegionError for an RLE that is damaged or has another size.
    """
    if height < 1 or width < 1:
        _refuse(f"its image has the size {width} x {height}", 0)
    data, sizes = _open(rle, 4 * height * width)
    alpha = np.zeros(height * width, dtype=np.uint8)
    bits, position, start = 8 * len(data), HEADER, 0
    data += bytes(8)  # the window below may read past the last byte
    while start < 4 * alpha.size:
        at, shift = position >> 3, position & 7
        window = int.from_bytes(data[at : at + 5], "big") >> (8 - shift) & 0xFFFFFFFF
        size = sizes[window >> 29 & 3]
        length = (window >> (29 - size) & ((1 << size) - 1)) + 1
        repeats = window >> 31
        position += 3 + size + (WORD if repeats else WORD * length)
        if position > bits:
            _refuse(f"it ends after {start} of {4 * alpha.size} values", at)
        stop = start + length
        if stop > 4 * alpha.size:
            _refuse(f"a run passes the last of {4 * alpha.size} values", at)
        if not repeats:
            words = _words(data, position - WORD * length, length)
            alpha[start // 4 : stop // 4] = words[3 - start % 4 :: 4]
        elif value := window >> (21 - size) & 255:
            alpha[start // 4 : stop // 4] = value
        start = stop
    half = max((int(alpha.max(initial=0)) + 1) // 2, 1)
    mask = alpha.view(np.bool_)
    np.greater_equal(alpha, half, out=mask)
    return mask.reshape(height, width)


def _flat(mask: npt.ArrayLike) -> BoolArray:
    array = np.asarray(mask)
    if array.ndim != 2 or not 0 < array.size <= MOST_PIXELS:
        raise ValueError(f"mask {array.shape} must be (h, w) with 1 to {MOST_PIXELS} pixels")
    return array.astype(np.bool_).ravel()


def _pack(codes: IntArray, lengths: IntArray) -> list[int]:
    """Return the bytes of codes (n,) of up to 32 bits, written one after the other; `lengths` (n,) are their bits."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # Like the SDK, end with a byte of zeros where the codes fill their last byte.
    packed = np.zeros(ends[-1] // 8 + 1, dtype=np.uint8)
    windows = (codes << (40 - lengths - starts % 8)).astype(">u8")
    for byte, part in enumerate(windows.view(np.uint8).reshape(-1, 8)[:, 3:].T):
        reached = part > 0
        np.add.at(packed, starts[reached] // 8 + byte, part[reached])  # codes share bytes, not bits: a sum is an OR
    numbers: list[int] = packed.tolist()
    return numbers


def _open(rle: Any, values: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the bytes and the run sizes of an RLE.

    Raises RegionError unless its header gives this number of values.
    """
    try:
        data = bytes(rle) if isinstance(rle, list | tuple) else None
    except (TypeError, ValueError):
        data = None
    if data is None:
        _refuse("it is not a list of integers from 0 to 255", 0)
    if 8 * len(data) < HEADER:
        _refuse(f"it has {len(data)} bytes, fewer than its header takes", 0)
    header = int.from_bytes(data[:7], "big") >> (56 - HEADER)
    count, word = header >> (HEADER - 32), (header >> 16 & 31) + 1
    if count != values:
        _refuse(f"it holds {count} values where the image has {values} (4 per pixel)", 0)
    if word != WORD:
        _refuse(f"its values have {word} bits instead of {WORD}", 4)
    return data, tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))


def _words(data: bytes, position: int, length: int) -> npt.NDArray[np.uint8]:
    at, shift = position >> 3, position & 7
    value = int.from_bytes(data[at : at + length + 1], "big") >> (8 - shift)
    return np.frombuffer((value & ((1 << WORD * length) - 1)).to_bytes(length, "big"), dtype=np.uint8)


def _refuse(reason: str, byte: int) -> NoReturn:
    raise RegionError(
        f"the brush mask cannot be read: {reason}",
        where=f"value.rle, byte {byte}",
        fix="paint the region anew, or import it with the RLE of label_studio_sdk.converter.brush and the image's size",
    )
