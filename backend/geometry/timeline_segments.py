"""Segments of a video from the class probabilities of its frames, and the `ranges` in which TimelineLabels stores them.

Frames count from 1, and a range includes both of its ends, as in Label Studio's front end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.types import BoolArray, IntArray, Json

KIND = "timelinelabels"
LAST_FRAME = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """A label from frame `start` up to and including frame `end`. Raises ValueError unless 1 <= start <= end."""

    start: int
    end: int
    label: str
    score: float = 1.0  # mean probability of its frames

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.end:
            raise ValueError(f"a segment cannot go from frame {self.start} to {self.end}")


def smooth(probs: npt.ArrayLike, window: int) -> npt.NDArray[np.float64]:
    """Return probabilities (n, C) averaged over a centred window of frames, which is shorter at both ends of the video.

    Raises ValueError for an even window, which has no centre, and for NaN or infinity.

    >>> smooth([[0], [1], [0], [0]], window=3).round(3).ravel().tolist()
    [0.5, 0.333, 0.333, 0.0]
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window}; it must be an odd number of frames")
    values = _values(probs)
    at = np.arange(len(values))[:, None]
    first, stop = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    return _means(values, first, stop, np.arange(values.shape[1]))


def segments(probs: npt.ArrayLike, labels: Sequence[str], threshold: float, shortest: int = 1) -> tuple[Segment, ...]:
    """Return the segments in which a class of (n, C) reaches the threshold for at least `shortest` frames.

    They are sorted by start, then by class. Segments of two labels may overlap, as Label Studio allows. Raises
    ValueError for shapes that do not fit, and for NaN or infinity.

    >>> segments([[0.9], [0.8], [0.1], [0.6]], ["run"], threshold=0.5, shortest=2)
    (Segment(start=1, end=2, label='run', score=0.85),)
    """
    values = _values(probs)
    if values.shape[1] != len(labels):
        raise ValueError(f"probabilities {values.shape} do not fit {len(labels)} labels")
    starts, ends, classes = _runs(values >= threshold)
    long = ends - starts >= shortest
    starts, ends, classes = starts[long], ends[long], classes[long]
    scores = _means(values, starts, ends, classes).tolist()
    order = np.lexsort((classes, starts)).tolist()
    return tuple(Segment(int(starts[i]) + 1, int(ends[i]), labels[int(classes[i])], scores[i]) for i in order)


def frame_labels(timeline: Iterable[Segment], frames: int, labels: Sequence[str]) -> BoolArray:
    """Return the labels of each of n frames as a mask (n, C).

    Frames past the last one, and segments whose label is not in `labels`, are left out.

    >>> frame_labels([Segment(2, 3, "run")], 4, ["walk", "run"])[:, 1].tolist()
    [False, True, True, False]
    """
    number = {label: index for index, label in enumerate(labels)}
    marks = np.zeros((frames, len(labels)), dtype=np.bool_)
    for segment in timeline:
        if segment.label in number:
            marks[segment.start - 1 : segment.end, number[segment.label]] = True
    return marks


def to_value(segment: Segment) -> Json:
    """Return a segment as the value of a TimelineLabels region; the front end writes one range per region.

    >>> to_value(Segment(3, 5, "run"))
    {'ranges': [{'start': 3, 'end': 5}], 'timelinelabels': ['run']}
    """
    return {"ranges": [{"start": segment.start, "end": segment.end}], KIND: [segment.label]}


def from_value(value: Mapping[str, Any], frames: int) -> tuple[Segment, ...]:
    """Return the segments of a region in a video of n frames, one for each label of each range.

    As in the front end, a range without an end lasts to the last frame, and a range without a start is a single frame.
    A range whose start is after its end is reversed. Ranges are cut off after the last frame, and left out if they
    start after it. Raises RegionError naming the range that cannot be read.
    """
    ranges, names = value.get("ranges"), value.get(KIND)
    if not isinstance(ranges, list):
        _refuse("it has no list of ranges", "value.ranges")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        _refuse("it has no list of labels", f"value.{KIND}")
    spans = [_span(item, frames, f"value.ranges[{index}]") for index, item in enumerate(ranges)]
    return tuple(Segment(first, min(last, frames), name) for first, last in spans if first <= frames for name in names)


def _values(probs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(probs, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"probabilities {values.shape} must be (n, C)")
    if not np.isfinite(values).all():
        raise ValueError("probabilities hold NaN or infinity; leave the video out")
    return values


def _means(
    values: npt.NDArray[np.float64], first: IntArray, stop: IntArray, column: IntArray
) -> npt.NDArray[np.float64]:
    """Return the means of the rows first..stop - 1 in a column; the three index arrays broadcast."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    # Sums of a long video have rounding errors of about 1e-11. Without rounding, a mean could leave [0, 1].
    means = (sums[stop, column] - sums[first, column]) / (stop - first)
    return np.asarray(np.round(means, 9) + 0.0)


def _runs(marks: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the first frame, the frame after the last, and the column of each run of True in (n, C); frames from 0."""
    edge = np.zeros((1, marks.shape[1]), dtype=np.int8)
    change = np.diff(np.concatenate([edge, marks.astype(np.int8), edge]), axis=0).T
    classes, starts = np.nonzero(change == 1)
    return starts, np.nonzero(change == -1)[1], classes


def _span(item: Any, frames: int, where: str) -> tuple[int, int]:
    """Return the first and the last frame of a range."""
    if not isinstance(item, Mapping):
        _refuse("a range is not an object", where)
    start, end = item.get("start"), item.get("end")
    if start is None and end is None:
        _refuse("a range has neither start nor end", where)
    first = _frame(end if start is None else start, where)
    last = max(first, frames) if end is None else _frame(end, where)
    return min(first, last), max(first, last)


def _frame(value: Any, where: str) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= LAST_FRAME
    if not number or value != int(value):
        _refuse(f"a range has the frame {value!r}, and frames count from 1", where)
    return int(value)


def _refuse(reason: str, where: str) -> NoReturn:
    raise RegionError(f"the timeline cannot be read: {reason}", where=where, fix="draw or import the region anew")
