"""The lines of ultralytics label files for each task: reading them as training labels, and writing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.errors import DataError
from backend.geometry.coordinates import bridged, clip_ring, ring_area, ring_hull
from backend.types import WHOLE, Keypoint, LabeledBox, Ring, YoloTask

_BOX_FIELDS = 5  # the class and four numbers
_TOLERANCE = 0.01  # of the image; ultralytics allows as much
_UNSEEN: Keypoint = (0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Lines:
    """The format of the lines in a data set's label files."""

    task: YoloTask
    classes: tuple[str, ...]
    kpt_shape: tuple[int, int] = (0, 0)  # pose: points of an object, and numbers of a point, 2 or 3
    clipped: bool = False  # labels are cut at the image's border, however far they leave it, as Label Studio allows

    @property
    def noun(self) -> str:
        """Return the name of a line's label for messages, e.g. "a box"."""
        return _FORMATS[self.task].noun

    def of_file(self, rows: Sequence[str], where: str) -> Lines:
        """Return the format of one label file, given its rows.

        A data set of boxes may have files with outlines, or with objects and their points; ultralytics accepts both.
        Raises DataError for a file that mixes boxes and outlines.
        """
        if self.task != "detect":
            return self
        counts = {len(row.split()) for row in rows}
        points, size = self.kpt_shape
        if points and counts == {5 + points * size}:
            return replace(self, task="pose")
        if max(counts, default=0) <= _BOX_FIELDS + 1:
            return self
        if _BOX_FIELDS in counts:
            fix = "write only boxes, or only outlines, into one file; ultralytics leaves such an image out"
            raise DataError("boxes and outlines in one file", where=where, fix=fix)
        return replace(self, task="segment")


@dataclass(frozen=True, slots=True)
class _LineFormat:
    """How a task writes a label in a line; `numbers` are the numbers after the class."""

    noun: str
    written: str
    fits: Callable[[Sequence[float], Lines], bool]
    shares: Callable[[Sequence[float], Lines], Sequence[float]]  # the numbers that must lie in [0, 1]
    read: Callable[[Sequence[float], Lines], LabeledBox]  # a box without a label; its area may be 0
    numbers: Callable[[LabeledBox], Sequence[float]]  # the numbers to write for a label, after its class


def parse(line: str, lines: Lines, where: str) -> LabeledBox | None:
    """Return the label of a line, None for one without an area.

    A label that leaves the image by no more than 1% of its side is clipped, any other only with `lines.clipped`. The
    corners of a rotated box are not clipped. Raises DataError for a line that does not fit the task, has an unknown
    class, or leaves the image by more.
    """
    form, text = _FORMATS[lines.task], repr(line.strip()[:80])
    kind, numbers = _numbers(line)
    if kind is None or not form.fits(numbers, lines):
        fix = f"write {form.written}, all numbers; labels of another task need a BASE_MODEL of that task"
        raise DataError(f"not {form.noun}: {text}", where=where, fix=fix)
    if kind not in range(len(lines.classes)):
        raise DataError(f"no class {kind:g}", where=where, fix=f"use 0 to {len(lines.classes) - 1}, as in names")
    margin = math.inf if lines.clipped else _TOLERANCE
    if not all(-margin <= share <= 1 + margin for share in form.shares(numbers, lines)):  # also refuses NaN
        fix = f"give {form.written} as shares of the image, between 0 and 1"
        raise DataError(f"{form.noun}, {text}, leaves the image", where=where, fix=fix)
    label = form.read(numbers, lines)
    return replace(label, label=lines.classes[int(kind)]) if min(label.xywh[2:]) > 0 else None


def written(label: LabeledBox, task: YoloTask) -> Sequence[float]:
    """Return the numbers to write for a label in a line, after its class."""
    return _FORMATS[task].numbers(label)


def _numbers(line: str) -> tuple[float | None, Sequence[float]]:
    """Return the class and the numbers after it; None for a line that is not all numbers."""
    try:
        kind, *numbers = (float(field) for field in line.split())
    except ValueError:
        return None, ()
    return kind, numbers


def _clipped(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _edges(numbers: Sequence[float], _: Lines) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom; NaN for a box with a negative side."""
    x, y, width, height = numbers[:4]
    if min(width, height) < 0:
        return (math.nan,) * 4
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _box(numbers: Sequence[float], lines: Lines) -> LabeledBox:
    left, top, right, bottom = map(_clipped, _edges(numbers, lines))
    return LabeledBox("", ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top))


def _ring(numbers: Sequence[float]) -> Ring:
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _hull(inside: Ring) -> tuple[float, float, float, float]:
    """Return the box around a ring inside the image; its sides are 0 where the ring has no area."""
    return ring_hull(inside) if ring_area(inside) > 0 else (0.0, 0.0, 0.0, 0.0)


def _corners(numbers: Sequence[float], _: Lines) -> LabeledBox:
    corners = _ring(numbers)
    return LabeledBox("", _hull(clip_ring(corners)), outline=(corners,))


def _outline(numbers: Sequence[float], _: Lines) -> LabeledBox:
    inside = clip_ring(_ring(numbers))
    return LabeledBox("", _hull(inside), outline=(inside,))


def _points(numbers: Sequence[float], lines: Lines) -> list[Keypoint]:
    """Return the key points of an object; without a visibility, a point with a negative coordinate is unseen."""
    size = lines.kpt_shape[1]
    rows = [numbers[start : start + size] for start in range(4, len(numbers), size)]
    points = [(x, y, int(visibility[0]) if visibility else 2 * (x >= 0 and y >= 0)) for x, y, *visibility in rows]
    return [point if point[2] else _UNSEEN for point in points]


def _object(numbers: Sequence[float], lines: Lines) -> LabeledBox:
    points = ((_clipped(x), _clipped(y), visibility) for x, y, visibility in _points(numbers, lines))
    return replace(_box(numbers, lines), keypoints=tuple(points))


def _is_object(numbers: Sequence[float], lines: Lines) -> bool:
    points, size = lines.kpt_shape
    visibilities = numbers[6::3] if size == 3 else ()
    return len(numbers) == 4 + points * size and all(value in (0, 1, 2) for value in visibilities)


def _object_shares(numbers: Sequence[float], lines: Lines) -> Sequence[float]:
    return [*_edges(numbers, lines), *(share for x, y, _ in _points(numbers, lines) for share in (x, y))]


def _corner_numbers(label: LabeledBox) -> Sequence[float]:
    """Return the ring inside the image; ultralytics takes the smallest rectangle around any number of points."""
    return _flat(clip_ring(label.outline[0]))


def _flat(points: Iterable[Sequence[float]]) -> list[float]:
    return [number for point in points for number in point]


_OUTLINE = _LineFormat(
    noun="an outline",
    written='"class x1 y1 x2 y2 x3 y3 ...", three points or more',
    fits=lambda numbers, _: len(numbers) >= 6 and len(numbers) % 2 == 0,
    shares=lambda numbers, _: numbers,
    read=_outline,
    numbers=lambda label: _flat(clip_ring(bridged(label.outline))),
)
_FORMATS: Mapping[YoloTask, _LineFormat] = {
    "detect": _LineFormat(
        noun="a box",
        written='"class x y width height"',
        fits=lambda numbers, _: len(numbers) == 4,
        shares=_edges,
        read=_box,
        numbers=lambda label: label.xywh,
    ),
    "obb": _LineFormat(
        noun="a rotated box",
        written='"class x1 y1 x2 y2 x3 y3 x4 y4", the four corners',
        fits=lambda numbers, _: len(numbers) == 8,
        shares=lambda numbers, _: numbers,
        read=_corners,
        numbers=_corner_numbers,
    ),
    "segment": _OUTLINE,
    "semantic": _OUTLINE,
    "pose": _LineFormat(
        noun="an object with its points",
        written='"class x y width height" and the points, each as kpt_shape says: "x y" or "x y visible" (0, 1 or 2)',
        fits=_is_object,
        shares=_object_shares,
        read=_object,
        numbers=lambda label: [*label.xywh, *_flat(label.keypoints)],
    ),
    "classify": _LineFormat(
        noun="a class",
        written="the number of a class alone",
        fits=lambda numbers, _: not numbers,
        shares=lambda *_: (),
        read=lambda *_: LabeledBox("", WHOLE),
        numbers=lambda _: (),
    ),
}
