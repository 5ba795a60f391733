from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets.reader import YoloData, read
from backend.datasets.synthetic import CLASSES, MAX_OBJECTS, Scene, compose, generate, near_copy, split_digits
from backend.errors import RequestError
from backend.types import FloatArray


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("scenes"), pool=80, test=30, seed=3)


@pytest.fixture(scope="module")
def data(data_yaml: Path) -> YoloData:
    return read(data_yaml)


def test_pool_has_a_long_tail_and_test_set_is_balanced(data: YoloData) -> None:
    pool = Counter(box.label for file in data.train for box in file.boxes)
    test = Counter(box.label for file in data.test for box in file.boxes)
    total = sum(pool.values())
    expected = np.arange(1, 11) ** -1.3
    expected /= expected.sum()
    for name, share in zip(CLASSES[:3], expected, strict=False):
        assert pool[name] / total == pytest.approx(share, abs=0.12)
    assert max(test.values()) - min(test[name] for name in CLASSES) <= 1


def test_reads_back_as_a_clean_data_set(data: YoloData) -> None:
    assert data.classes == CLASSES
    assert (len(data.train), len(data.val), len(data.test)) == (80, 30, 30)
    assert data.val == data.test
    assert data.notes == ()
    assert all(1 <= len(file.boxes) <= MAX_OBJECTS for file in data.train + data.test)


def test_images_have_the_size_asked_for(data: YoloData) -> None:
    for file in data.train[:3]:
        with Image.open(file.path) as image:
            assert (image.size, image.mode) == ((160, 160), "RGB")


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, second, other_seed = (
        _bytes(generate(tmp_path / name, pool=3, test=2, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first != other_seed


def test_near_copies_and_strangers(tmp_path: Path) -> None:
    """There are six scenes with three frames each, and two images without digits; the test set has no copies."""
    data = read(generate(tmp_path, pool=20, test=3, seed=0, copies=3, foreign=0.1))
    assert (len(data.train), len(data.test)) == (20, 3)
    assert [len(file.boxes) == 0 for file in data.train] == [False] * 18 + [True] * 2
    pixels = [np.asarray(Image.open(file.path).convert("L"), dtype=np.float64).ravel() for file in data.train[:18]]
    alike = np.corrcoef(pixels)
    same = np.arange(18)[:, None] // 3 == np.arange(18) // 3
    assert alike[same].min() > alike[~same].max()
    for first, *others in (data.train[begin : begin + 3] for begin in range(0, 18, 3)):
        for copy in others:
            assert [box.label for box in copy.boxes] == [box.label for box in first.boxes]
            moved = np.array([box.xywh for box in copy.boxes]) - [box.xywh for box in first.boxes]
            assert np.abs(moved * 160).max() <= 2.01


def test_what_a_copy_pushes_over_the_edge_is_no_label() -> None:
    scene = Scene(np.zeros((160, 160, 3), np.uint8), (1, 2), ((0, 0, 4, 30), (50, 50, 80, 80)))
    copies = [near_copy(scene, np.random.default_rng(seed)) for seed in range(20)]
    assert {copy.classes for copy in copies} == {(1, 2), (2,)}
    assert all(0 <= edge <= 160 for copy in copies for box in copy.boxes for edge in box)


def test_a_copy_of_nothing_is_nothing() -> None:
    empty = Scene(np.zeros((160, 160, 3), np.uint8), (), ())
    assert near_copy(empty, np.random.default_rng(0)).boxes == ()


def test_a_smaller_set_in_the_same_place_leaves_no_strays(tmp_path: Path) -> None:
    generate(tmp_path, pool=4, test=3, seed=0)
    data = read(generate(tmp_path, pool=2, test=1, seed=0))
    assert (len(data.train), len(data.test)) == (2, 1)


def test_tail_zero_is_flat(tmp_path: Path) -> None:
    flat = Counter(
        box.label for file in read(generate(tmp_path, pool=60, test=1, seed=0, tail=0)).train for box in file.boxes
    )
    assert flat["zero"] / sum(flat.values()) < 0.25


def test_pool_and_test_share_no_digit() -> None:
    pool, test = split_digits(np.random.default_rng(0))
    assert sum(map(len, pool)) + sum(map(len, test)) == 1797
    for pool_scans, test_scans in zip(pool, test, strict=True):
        assert len(test_scans) > 30
        assert not {scan.tobytes() for scan in pool_scans} & {scan.tobytes() for scan in test_scans}


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_tight_inside_and_hardly_overlap(seed: int) -> None:
    scene = _scene_of_full_squares(seed)
    boxes = np.array(scene.boxes)
    assert (boxes >= 0).all()
    assert (boxes <= 160).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 8).all()
    for index, box in enumerate(boxes):
        for other in boxes[:index]:
            corner, opposite = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
            shared = np.prod((opposite - corner).clip(0))
            assert shared <= 0.25 * min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))


def test_a_digit_can_be_seen_in_its_box() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        scene = _scene_of_full_squares(int(rng.integers(1 << 30)))
        x1, y1, x2, y2 = scene.boxes[-1]  # it is painted last, so nothing covers it
        inside = scene.pixels[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].astype(float)
        ring = np.vstack(
            [scene.pixels[max(y1 - 3, 0) : y2 + 3, x].astype(float) for x in (max(x1 - 3, 0), min(x2 + 2, 159))]
        )
        assert np.linalg.norm(inside.mean((0, 1)) - ring.mean(0)) > 15


@pytest.mark.parametrize(("pool", "test", "size"), [(0, 1, 160), (1, 0, 160), (1, 1, 32)])
def test_refuses_what_cannot_be_generated(tmp_path: Path, pool: int, test: int, size: int) -> None:
    with pytest.raises(RequestError, match="Fix: ask for at least"):
        generate(tmp_path, pool=pool, test=test, seed=0, size=size)
    assert not list(tmp_path.iterdir())


def _scene_of_full_squares(seed: int) -> Scene:
    full: list[FloatArray] = [np.ones((1, 8, 8), dtype=np.float32)] * len(CLASSES)
    return compose(full, lambda: 0, 160, np.random.default_rng(seed))


def _bytes(data_yaml: Path) -> dict[str, bytes]:
    root = data_yaml.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
