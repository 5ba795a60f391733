"""Generated detection scenes with a long tail: real handwritten digits on cluttered canvases, as a YOLO data set.

The pool's class frequency falls as 1 / rank^tail (zero is most common, nine rarest). The test set is class-balanced and
uses scans that the pool does not use. The scans are scikit-learn's `load_digits`: 1,797 digits of 8x8 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from backend.errors import RequestError
from backend.types import FloatArray

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")  # in rank order
MAX_OBJECTS = 6
_TEST_SHARE = 0.25  # of the digits
_MAX_OVERLAP = 0.1  # of the smaller of two squares
_SMALLEST = 4  # pixels of the smallest side of a label, where a copy moves a digit over the edge
_INK = 0.35  # lowest opacity of a pixel that belongs to the digit

ClassDraw = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and its n digits."""

    pixels: npt.NDArray[np.uint8]  # (size, size, 3) RGB
    classes: tuple[int, ...]  # n
    boxes: tuple[tuple[int, int, int, int], ...]  # n times xyxy in pixels, tight around the ink


def generate(
    root: Path,
    *,
    pool: int,
    test: int,
    seed: int,
    tail: float = 1.3,
    size: int = 160,
    copies: int = 1,
    foreign: float = 0.0,
) -> Path:
    """Write `pool` training and `test` test scenes of size x size pixels under `root`; return its data.yaml.

    Each scene of the pool is there `copies` times, nearly alike, like frames of a video. `foreign` is the share of
    pool images that show characters that are not digits, without a label. The same arguments write the same files.
    `val` and `test` are both the test set. Raises RequestError when a count is below 1, the share is 1 or more, or the
    size is below 96, where six digits do not fit.
    """
    if min(pool, test, copies) < 1 or size < 96 or not 0 <= foreign < 1:
        raise RequestError(
            f"cannot generate {pool} pool and {test} test scenes of {size} px, {copies} of each, {foreign:.0%} foreign",
            where="scenes.generate",
            fix="ask for at least 1 scene each, at least 96 px and less than 100% foreign scenes",
        )
    rng = np.random.default_rng(seed)
    pool_digits, test_digits = split_digits(rng)
    weights = np.arange(1, len(CLASSES) + 1, dtype=np.float64) ** -tail
    unlabeled, deck = round(pool * foreign), _deck(rng)
    originals = (compose(pool_digits, lambda: _long_tail(weights, rng), size, rng) for _ in range(pool - unlabeled))
    _write_split(root, "pool", islice(_repeated(originals, copies, rng), pool - unlabeled), size)
    _write_split(root, "test", (compose(test_digits, deck, size, rng) for _ in range(test)), size)
    _write_split(root, "pool", (_nonsense(pool_digits, size, rng) for _ in range(unlabeled)), size, pool - unlabeled)
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASSES))
    data_yaml = root / "data.yaml"
    data_yaml.write_text(f"train: pool.txt\nval: test.txt\ntest: test.txt\nnames:\n{names}")
    return data_yaml


def compose(digits: list[FloatArray], draw_class: ClassDraw, size: int, rng: np.random.Generator) -> Scene:
    """Return one scene; `digits[c]` holds the (n, 8, 8) scans of class c with ink in [0, 1]."""
    canvas = _background(size, digits, rng)
    classes, boxes = [], []
    for x, y, side in _squares(int(rng.integers(1, MAX_OBJECTS + 1)), size, rng):
        label = draw_class()
        ink = _ink(_pick(digits[label], rng), side, rng)
        _paint(canvas, ink, x, y, rng)
        rows, columns = np.nonzero(ink > _INK)
        boxes.append((x + int(columns.min()), y + int(rows.min()), x + int(columns.max()) + 1, y + int(rows.max()) + 1))
        classes.append(label)
    canvas += rng.normal(0, rng.uniform(2, 10), canvas.shape)
    return Scene(canvas.clip(0, 255).astype(np.uint8), tuple(classes), tuple(boxes))


def near_copy(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene like the next frame of a video: moved by up to 2 pixels, lighter or darker, with new noise."""
    dx, dy = (int(step) for step in rng.integers(-2, 3, 2))
    size = len(scene.pixels)
    rows, columns = (np.clip(np.arange(size) - step, 0, size - 1) for step in (dy, dx))
    moved = scene.pixels[np.ix_(rows, columns)] * rng.uniform(0.95, 1.05) + rng.normal(0, 3, scene.pixels.shape)
    boxes = (np.array(scene.boxes, dtype=np.int64).reshape(-1, 4) + np.array([dx, dy, dx, dy])).clip(0, size)
    x1, y1, x2, y2 = boxes.T
    visible = (x2 - x1 >= _SMALLEST) & (y2 - y1 >= _SMALLEST)
    return Scene(
        moved.clip(0, 255).astype(np.uint8),
        tuple(label for label, stays in zip(scene.classes, visible, strict=True) if stays),
        tuple((int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in boxes[visible]),
    )


def _repeated(originals: Iterable[Scene], copies: int, rng: np.random.Generator) -> Iterator[Scene]:
    for scene in originals:
        yield scene
        yield from (near_copy(scene, rng) for _ in range(copies - 1))


def _nonsense(digits: list[FloatArray], size: int, rng: np.random.Generator) -> Scene:
    """Return a scene without boxes: each of its characters is two digits printed over each other."""
    canvas = _background(size, digits, rng)
    for x, y, side in _squares(MAX_OBJECTS, size, rng):
        first, second = rng.choice(len(digits), 2, replace=False)
        ink = np.maximum(_ink(_pick(digits[first], rng), side, rng), _ink(_pick(digits[second], rng).T, side, rng))
        _paint(canvas, ink, x, y, rng)
    return Scene((canvas + rng.normal(0, 6, canvas.shape)).clip(0, 255).astype(np.uint8), (), ())


def split_digits(rng: np.random.Generator) -> tuple[list[FloatArray], list[FloatArray]]:
    """Return the scans (8, 8) of the pool and of the test set, per class, in [0, 1]."""
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    scans, labels = (data.images / 16).astype(np.float32), data.target
    pool, test = [], []
    for label in range(len(CLASSES)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cut = round(len(rows) * _TEST_SHARE)
        test.append(scans[rows[:cut]])
        pool.append(scans[rows[cut:]])
    return pool, test


def _long_tail(weights: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _deck(rng: np.random.Generator) -> ClassDraw:
    """Return a function that draws every class once, in random order, before it draws any class again."""
    cards: list[int] = []

    def draw() -> int:
        if not cards:
            cards.extend(rng.permutation(len(CLASSES)).tolist())
        return cards.pop()

    return draw


def _write_split(root: Path, name: str, scenes: Iterable[Scene], size: int, first: int = 0) -> None:
    """Write images, labels and the list `<name>.txt`. The list leaves out files of an earlier, larger data set."""
    images, labels = root / "images" / name, root / "labels" / name
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    end = first
    for end, scene in enumerate(scenes, first + 1):
        index = end - 1
        Image.fromarray(scene.pixels).save(images / f"{index:05d}.jpg", quality=90)
        (labels / f"{index:05d}.txt").write_text("".join(_label_lines(scene, size)))
    (root / f"{name}.txt").write_text("".join(f"./images/{name}/{index:05d}.jpg\n" for index in range(end)))


def _label_lines(scene: Scene, size: int) -> list[str]:
    return [
        f"{label} {(x1 + x2) / 2 / size:.6f} {(y1 + y2) / 2 / size:.6f} {(x2 - x1) / size:.6f} {(y2 - y1) / size:.6f}\n"
        for label, (x1, y1, x2, y2) in zip(scene.classes, scene.boxes, strict=True)
    ]


def _squares(count: int, size: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return up to `count` squares (x, y, side) in pixels that hardly overlap; the first always fits."""
    squares: list[tuple[int, int, int]] = []
    for _ in range(count * 20):
        side = int(rng.integers(size // 5, size * 2 // 5))
        x, y = (int(value) for value in rng.integers(0, size - side + 1, 2))
        if all(_shared(x, y, side, *other) <= _MAX_OVERLAP for other in squares):
            squares.append((x, y, side))
        if len(squares) == count:
            break
    return squares


def _shared(x: int, y: int, side: int, x2: int, y2: int, side2: int) -> float:
    """Return the intersection of two squares as a share of the smaller one."""
    width = min(x + side, x2 + side2) - max(x, x2)
    height = min(y + side, y2 + side2) - max(y, y2)
    return max(width, 0) * max(height, 0) / min(side, side2) ** 2


def _pick(scans: FloatArray, rng: np.random.Generator) -> FloatArray:
    scan: FloatArray = scans[rng.integers(len(scans))]
    return scan


def _ink(scan: FloatArray, side: int, rng: np.random.Generator) -> FloatArray:
    """Return the scan as smooth, slightly rotated opacity in [0, 1] of (side, side) pixels."""
    field = np.pad((scan * 255).astype(np.uint8), 1)  # a margin, so that turning cuts nothing off
    picture = Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC)
    turned = picture.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BICUBIC)
    # Upscaled scans are blurred: the slope of this ramp gives strokes an edge, and its position their thickness.
    return ((np.asarray(turned, dtype=np.float32) / 255 - rng.uniform(0.35, 0.5)) / 0.2).clip(0, 1)


def _paint(canvas: FloatArray, ink: FloatArray, x: int, y: int, rng: np.random.Generator) -> None:
    """Paint `ink` at (x, y) in a random bright colour."""
    height, width = ink.shape
    patch = canvas[y : y + height, x : x + width]
    colour = rng.uniform(140, 255, 3)
    alpha = (ink * rng.uniform(0.75, 1.0))[..., None]
    patch += alpha * (colour - patch)


def _background(size: int, digits: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Return a (size, size, 3) canvas: a gradient, soft noise, lines, blobs, and pieces of digits as distractors."""
    start, end = rng.uniform(20, 110, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    slope = (rows * np.sin(angle) + columns * np.cos(angle)) / np.sqrt(2) + 0.5
    canvas = start + slope[..., None] * (end - start)
    coarse = Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
    canvas += (np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) - 127.5) * rng.uniform(0, 0.2)
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    _scribble(picture, rng)
    clutter: FloatArray = np.array(picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1)))), dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        side = int(rng.integers(size // 5, size * 2 // 5))
        ink = _ink(_fragment(_pick(digits[rng.integers(len(digits))], rng), rng), side, rng)
        x, y = (int(value) for value in rng.integers(0, size - side + 1, 2))
        _paint(clutter, ink, x, y, rng)
    return clutter


def _scribble(picture: Image.Image, rng: np.random.Generator) -> None:
    """Draw lines, arcs and filled ellipses in random dark colours."""
    draw = ImageDraw.Draw(picture)
    size = picture.width

    def colour() -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in rng.integers(0, 150, 3))
        return red, green, blue

    for _ in range(rng.integers(1, 6)):
        points = [float(value) for value in rng.uniform(0, size, 4)]
        draw.line(points, fill=colour(), width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 3)):
        x, y, width, height = (float(value) for value in rng.uniform((0, 0, 8, 8), (size, size, size / 3, size / 3)))
        start = float(rng.uniform(0, 360))
        draw.arc((x, y, x + width, y + height), start, start + 150, fill=colour(), width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 4)):
        x, y, width, height = (float(value) for value in rng.uniform((0, 0, 4, 4), (size, size, size / 4, size / 4)))
        draw.ellipse((x, y, x + width, y + height), fill=colour())


def _fragment(scan: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return a quarter of the scan, too little to be a digit, on an empty 8x8 field."""
    row, column = (int(value) for value in rng.integers(0, 2, 2) * 4)
    piece = np.zeros_like(scan)
    piece[2:6, 2:6] = scan[row : row + 4, column : column + 4]
    return piece
