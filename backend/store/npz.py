"""Reads npz files several times as fast as `np.load`, which reads each array in chunks and parses its header anew.

A shard has 27 arrays, most of them small or empty, and their headers are alike from shard to shard.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from backend.errors import ModelError

Array = npt.NDArray[Any]
_SUFFIX = ".npy"
# The version that NumPy writes unless a header is longer than 64 kB, or is not ASCII.
_USUAL = npy.MAGIC_PREFIX + b"\x01\x00"


def load_arrays(
    file: BinaryIO, where: str, names: Sequence[str], fix: str, optional: Sequence[str] = ()
) -> dict[str, Array]:
    """Return the named arrays of an npz file, never unpickling. Raises ModelError naming a damaged file.

    Optional arrays are left out if the file, written by an earlier release, lacks them.
    """
    try:
        with zipfile.ZipFile(file) as stored:
            entries = set(stored.namelist())
            present = [name for name in optional if f"{name}{_SUFFIX}" in entries]
            return {name: _array(stored.read(f"{name}{_SUFFIX}")) for name in (*names, *present)}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, TypeError) as error:
        raise ModelError(f"damaged file: {error}", where=where, fix=fix) from error


def _array(stored: bytes) -> Array:
    """Return the array of an npy file, which may be changed. Raises ValueError for a damaged file and for objects."""
    if not stored.startswith(_USUAL):
        return np.asarray(npy.read_array(io.BytesIO(stored), allow_pickle=False))  # type: ignore[no-untyped-call]
    start = len(_USUAL) + 2 + int.from_bytes(stored[len(_USUAL) : len(_USUAL) + 2], "little")
    shape, by_columns, dtype = _header(stored[len(_USUAL) : start])
    flat = np.frombuffer(stored, dtype, offset=start)
    return flat.reshape(shape, order="F" if by_columns else "C").copy(order="K")


@lru_cache(maxsize=4096)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape of an array, whether it is stored by columns, and its dtype."""
    shape, by_columns, dtype = npy.read_array_header_1_0(io.BytesIO(text))  # type: ignore[no-untyped-call]
    return shape, by_columns, dtype
