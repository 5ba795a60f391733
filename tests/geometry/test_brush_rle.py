from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import brush as sdk

from backend.errors import RegionError
from backend.geometry import brush_rle
from backend.types import BoolArray

SHAPES = [(1, 1), (1, 97), (97, 1), (13, 200), (200, 13), (64, 64), (48, 64)]
# The front end's @thi.ng/rle-pack 3.2 writes this for a stroke with soft edges: alpha as in SOFT on all four channels.
SOFT = np.array([[0, 60, 255, 255], [0, 127, 128, 0]])
SOFT_RLE = [0, 0, 0, 32, 57, 27, 252, 96, 17, 158, 79, 255, 24, 4, 111, 241, 192, 70, 0]
# It writes this for three pixels with the values 1 to 12, a run that does not repeat.
LITERAL_RLE = [0, 0, 0, 12, 57, 27, 249, 176, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192]
GOOD = brush_rle.encode_rle(np.eye(5, 7))


def blob(shape: tuple[int, int], seed: int) -> BoolArray:
    """Return an ellipse somewhere in the image, with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    (b, c), (a, d) = rng.random(2) * shape, (rng.random(2) + 0.2) * shape
    noise = rng.random(shape) < 0.01
    return np.asarray(noise ^ (((y - b) / a) ** 2 + ((x - c) / d) ** 2 < 0.3))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0, "blob"])
def test_bytes_are_those_of_the_sdk(shape: tuple[int, int], share: float | str) -> None:
    for seed in range(3):
        mask = blob(shape, seed) if isinstance(share, str) else np.random.default_rng(seed).random(shape) < share
        rle = brush_rle.encode_rle(mask)
        assert rle == sdk.mask2rle(mask.astype(np.uint8) * 255)
        assert np.array_equal(brush_rle.decode_rle(rle, *shape), mask)
        assert np.array_equal(brush_rle.decode_rle(rle, *shape), sdk.decode_rle(rle).reshape(*shape, 4)[..., 3] > 0)


@pytest.mark.parametrize("pixels", [2, 3, 4, 5, 64, 65, 16383, 16384, 16385, 32768, 49153])
def test_runs_at_the_limits_of_each_run_size(pixels: int) -> None:
    mask = np.arange(pixels + 1)[None] < pixels
    rle = brush_rle.encode_rle(mask)
    assert rle == sdk.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(brush_rle.decode_rle(rle, *mask.shape), mask)


def test_soft_edges_of_the_front_end_are_cut_at_half() -> None:
    assert brush_rle.decode_rle(SOFT_RLE, 2, 4).tolist() == (SOFT > 127).tolist()
    assert sdk.decode_rle(SOFT_RLE).reshape(2, 4, 4)[..., 3].tolist() == SOFT.tolist()


@pytest.mark.parametrize("value", [1, 100, 255])
def test_a_mask_of_any_opacity_is_whole(value: int) -> None:
    mask = blob((20, 30), 1)
    assert np.array_equal(brush_rle.decode_rle(sdk.mask2rle(mask.astype(np.uint8) * value), 20, 30), mask)


def test_values_that_do_not_repeat() -> None:
    assert sdk.decode_rle(LITERAL_RLE).tolist() == list(range(1, 13))
    assert brush_rle.decode_rle(LITERAL_RLE, 1, 3).tolist() == [[False, True, True]]


def packed(runs: Sequence[tuple[bool, int, Sequence[int]]]) -> list[int]:
    """Return runs (repeats, index of the run size, values) as an RLE."""
    sizes = (3, 4, 8, 16)
    total = sum(len(values) for _, _, values in runs)
    bits = f"{total:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for repeats, size_index, values in runs:
        bits += f"{repeats:b}{size_index:02b}{len(values) - 1:0{sizes[size_index]}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if repeats else values))
    return list(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.lists(st.integers(0, 255), min_size=1, max_size=8))))
def test_runs_of_every_kind_may_start_and_end_inside_a_pixel(runs: list[tuple[bool, int, list[int]]]) -> None:
    runs = [
        (repeats, size_index, values[:1] * len(values) if repeats else values) for repeats, size_index, values in runs
    ]
    total = sum(len(values) for _, _, values in runs)
    rle = packed([*runs, (True, 0, [255] * (4 + -total % 4))])
    alpha = sdk.decode_rle(rle)[3::4]
    assert brush_rle.decode_rle(rle, 1, len(alpha)).tolist() == [(alpha >= 128).tolist()]


def test_a_run_that_passes_the_last_value_by_one_is_refused() -> None:
    rle = packed([(True, 0, [9] * 5)])
    rle[:4] = 0, 0, 0, 4
    with pytest.raises(RegionError, match="a run passes the last of 4"):
        brush_rle.decode_rle(rle, 1, 1)


@pytest.mark.parametrize("mask", [np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(4), np.zeros((2, 2, 4))], ids=np.shape)
def test_a_mask_without_pixels_or_of_another_form_is_refused(mask: BoolArray) -> None:
    with pytest.raises(ValueError, match="must be"):
        brush_rle.encode_rle(mask)


@pytest.mark.parametrize(
    ("rle", "problem"),
    [
        ([], "0 bytes, fewer than its header"),
        (GOOD[:6], "6 bytes, fewer"),
        (GOOD[:-4], "it ends after"),
        (GOOD[:7], "it ends after 0 of 140"),
        ([0, 0, 0, 141, *GOOD[4:]], "holds 141 values where the image has 140"),
        ([255] * 4 + GOOD[4:], "holds 4294967295 values"),
        (brush_rle.encode_rle(np.ones((5, 8))), "holds 160 values"),
        ([*GOOD[:4], 0x79, *GOOD[5:]], "16 bits instead of 8"),
        ([*GOOD[:7], 255, 255, 255, 255, 255], "a run passes the last of 140"),
        ([0.5, *GOOD[1:]], "not a list of integers"),
        ([256, *GOOD[1:]], "not a list of integers"),
        ([-1, *GOOD[1:]], "not a list of integers"),
        ([None], "not a list of integers"),
        ("AAAA", "not a list of integers"),
        (10**9, "not a list of integers"),
        (None, "not a list of integers"),
        ({"rle": []}, "not a list of integers"),
    ],
)
def test_a_damaged_rle_says_what_where_and_how_to_fix_it(rle: list[int], problem: str) -> None:
    tracemalloc.start()
    with pytest.raises(RegionError) as caught:
        brush_rle.decode_rle(rle, 5, 7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem in caught.value.what
    assert caught.value.where.startswith("value.rle, byte ")
    assert "label_studio_sdk.converter.brush" in caught.value.fix
    assert peak < 100_000


@pytest.mark.parametrize("size", [(0, 7), (5, 0), (-5, -7)])
def test_an_image_without_size_has_no_mask(size: tuple[int, int]) -> None:
    with pytest.raises(RegionError, match="has the size"):
        brush_rle.decode_rle(GOOD, *size)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), max_size=60), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_any_bytes_are_a_mask_or_refused(noise: list[int], height: int, width: int, honest: bool) -> None:
    rle = [*(4 * height * width).to_bytes(4, "big"), 0x38 | noise[0] & 7, *noise[1:]] if honest and noise else noise
    with suppress(RegionError):
        assert brush_rle.decode_rle(rle, height, width).shape == (height, width)


def test_memory_stays_that_of_the_image() -> None:
    mask = np.zeros((1000, 1500), dtype=np.bool_)
    mask[200:700, 300:900] = True
    rle = brush_rle.encode_rle(mask)
    tracemalloc.start()
    brush_rle.decode_rle(rle, 1000, 1500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * mask.size
