"""npz files: what NumPy writes is read as NumPy reads it, and a damaged file is named."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backend.errors import ModelError
from backend.store.npz import load_arrays

ARRAYS = {
    "number": np.int64(7),
    "text": np.array("entropy"),
    "empty": np.zeros((0, 5), np.float32),
    "flags": np.array([True, False]),
    "half": np.linspace(0, 1, 6).astype(np.float16).reshape(2, 3),
    "by_columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "named_fields": np.zeros(2, [("é", np.int32)]),  # a header that is not ASCII has another version
}


def packed(compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def load(data: bytes, *names: str) -> dict[str, npt.NDArray[np.generic]]:
    return load_arrays(io.BytesIO(data), "a.npz", names, "delete it")


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_as_numpy_reads_them(compressed: bool) -> None:
    data = packed(compressed, **ARRAYS)
    stored, expected = load(data, *ARRAYS), np.load(io.BytesIO(data))
    for name, array in stored.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.flags.writeable
        assert array.flags.f_contiguous == expected[name].flags.f_contiguous
        np.testing.assert_array_equal(array, expected[name])


def test_an_optional_array_may_be_missing() -> None:
    data = packed(a=[1], b=[2])
    assert load_arrays(io.BytesIO(data), "a.npz", ["a"], "", optional=["b", "c"]).keys() == {"a", "b"}
    with pytest.raises(ModelError, match=r"damaged file.*c\.npy.*\[a\.npz\]\. Fix: delete it"):
        load(data, "a", "c")


def changed_bit(data: bytes) -> bytes:
    """Return the file with one bit of its values turned over; the check sum in it no longer fits."""
    place = data.index(b"\x2a\0\0\0\0\0\0\0")
    return data[:place] + b"\x2b" + data[place + 1 :]


def cut_array(data: bytes) -> bytes:
    """Return the file with its array cut short, under a check sum that fits."""
    with zipfile.ZipFile(io.BytesIO(data)) as whole:
        array = whole.read("a.npy")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as cut:
        cut.writestr("a.npy", array[:-3])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zip file",
        packed(a=[1])[:-9],
        changed_bit(packed(a=np.array([42, 42], np.int64))),
        cut_array(packed(a=[1, 2])),
    ],
)
def test_a_damaged_file_is_named(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"damaged file.*\[a\.npz\]"):
        load(data, "a")


def test_nothing_is_unpickled() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{"a": 1}], dtype=object))  # pickles it
    with pytest.raises(ModelError, match="damaged file"):
        load(buffer.getvalue(), "a")
