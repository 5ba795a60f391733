"""Key frames of a track in a video, and the `sequence` in which Label Studio stores them.

Label Studio draws a box at a key frame and interpolates linearly up to the next one. After a key frame that is not
`enabled` the object is hidden until the next key frame. Frames count from 1. Boxes are x, y, width, height in percent
of the frame, rotated clockwise about their top-left corner by `rotation` degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from backend.errors import MediaError, RegionError
from backend.geometry.coordinates import Boxes, rotated_hull
from backend.types import BoolArray, IntArray, Json

TAU = 0.2  # of boxes shaken by 0.25% of the image, 6% become key frames; at 0.15 it is 15%, at 0.1 42%
ROUNDS = 64  # a smooth track takes about 2 log2 of its key frames
MOST = 1e6  # percent or degrees; larger numbers come from damaged files, and arithmetic on them overflows
LAST_FRAME = 2**31 - 1
MAX_FRAMES = 1_000_000  # of a video; a longer one is damaged, or does not fit into memory


@dataclass(frozen=True, slots=True)
class Track:
    """The boxes of one object at t frames; the object is not visible at other frames.

    Raises ValueError unless frames ascend from 1 and all numbers are finite.
    """

    frames: IntArray  # (t,)
    boxes: Boxes  # (t, 4)
    rotation: Boxes | None = None  # (t,), None: upright

    def __post_init__(self) -> None:
        _check(self.frames, self.boxes, self.rotation)


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """k key frames of one object. Raises ValueError unless frames ascend from 1 and all numbers are finite."""

    frames: IntArray  # (k,)
    boxes: Boxes  # (k, 4)
    enabled: BoolArray  # (k,)
    rotation: Boxes | None = None  # (k,), None: upright
    onward: Track | None = None  # the boxes from which interpolation goes on after each key frame, None: `boxes`

    def __post_init__(self) -> None:
        _check(self.frames, self.boxes, self.rotation)
        if self.enabled.shape != self.frames.shape:
            raise ValueError(f"enabled {self.enabled.shape} does not fit {len(self.frames)} frames")
        if self.onward is not None and self.onward.frames.tolist() != self.frames.tolist():
            raise ValueError(f"`onward` has other frames than the {len(self.frames)} key frames")


def select(track: Track, tau: float = TAU, bridge: int = 0) -> KeyFrames:
    """Return key frames whose interpolation differs from the track by 1 - IoU < tau at every frame.

    Where more than `bridge` frames in a row are missing, the object has left the picture, and a new key frame starts
    when it comes back. Shorter gaps are interpolated. The algorithm is Douglas and Peucker's with 1 - IoU as distance:
    between two key frames the frame with the largest distance becomes a key frame, until all distances are under tau.
    Raises ValueError for a tau outside (0, 1] and for a rotated track.

    >>> straight = Track(np.arange(1, 102), np.linspace([0, 0, 9, 9], [50, 0, 9, 9], 101))
    >>> select(straight, tau=0.1).frames.tolist()
    [1, 101]
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau is {tau}; it must lie in (0, 1]")
    if track.rotation is not None and track.rotation.any():
        raise ValueError("a rotated track has no IoU here; take upright() of it first")
    gaps = np.diff(track.frames) > bridge + 1
    first, last = np.append(True, gaps)[: len(track.frames)], np.append(gaps, True)[: len(track.frames)]
    chosen = np.flatnonzero(_split(track, first | last, tau))
    return KeyFrames(track.frames[chosen], track.boxes[chosen], ~last[chosen])


def interpolate(keyframes: KeyFrames, frames: npt.ArrayLike) -> Track:
    """Return the boxes that Label Studio draws at `frames`, ascending, without frames that do not show the object."""
    wanted = np.asarray(frames, dtype=np.int64).reshape(-1)
    if not len(keyframes.frames):
        return Track(wanted[:0], np.zeros((0, 4)))
    before = np.searchsorted(keyframes.frames, wanted, side="right") - 1
    visible = (before >= 0) & (keyframes.enabled[before] | (keyframes.frames[before] == wanted))
    wanted, before = wanted[visible], before[visible]
    after = np.minimum(before + 1, len(keyframes.frames) - 1)
    share = _share(keyframes.frames, before, after, wanted)
    boxes, rotation = _starts(keyframes, before, keyframes.frames[before] == wanted)
    boxes = boxes + share[:, None] * (keyframes.boxes[after] - boxes)
    if rotation is None or keyframes.rotation is None:
        return Track(wanted, boxes)
    turn = 180 - (180 - keyframes.rotation[after] + rotation) % 360  # the shorter direction; clockwise for half a turn
    return Track(wanted, boxes, rotation + share * turn)


def upright(track: Track, width: float, height: float) -> Track:
    """Return a track with its rotated boxes replaced by upright hulls; `width` and `height` of the video in pixels."""
    if track.rotation is None:
        return track
    boxes = track.boxes.copy()
    for index in np.flatnonzero(track.rotation % 360).tolist():
        x, y, w, h = track.boxes[index].tolist()
        boxes[index] = rotated_hull((x, y, w, h), float(track.rotation[index]), width, height)
    return Track(track.frames, boxes)


def to_sequence(keyframes: KeyFrames, frames_count: int, fps: float) -> Json:
    """Return `framesCount`, `duration` and `sequence` of a VideoRectangle's value.

    `time` is frame / fps, as the front end writes it. Raises MediaError for a video without a frame rate. Raises
    ValueError for key frames past the end of the video, and for key frames with two boxes each.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise MediaError(
            f"the video says it has {fps} frames per second", where="video", fix="encode it with a constant frame rate"
        )
    if len(keyframes.frames) and keyframes.frames[-1] > frames_count:
        raise ValueError(f"key frame {keyframes.frames[-1]} is past the last of {frames_count} frames")
    if keyframes.onward is not None:
        raise ValueError("a prediction has one box at each key frame")
    rotation = np.zeros(len(keyframes.frames)) if keyframes.rotation is None else keyframes.rotation
    rows = zip(
        keyframes.frames.tolist(), keyframes.boxes.tolist(), keyframes.enabled.tolist(), rotation.tolist(), strict=True
    )
    sequence = [
        {
            **dict(zip(("x", "y", "width", "height"), box, strict=True)),
            **{"rotation": turn, "frame": frame, "enabled": enabled, "time": frame / fps},
        }
        for frame, box, enabled, turn in rows
    ]
    return {"framesCount": frames_count, "duration": frames_count / fps, "sequence": sequence}


def from_sequence(value: Mapping[str, Any]) -> KeyFrames:
    """Return the key frames of a VideoRectangle's value, as the front end reads them.

    A key frame without `enabled` is not enabled. Where a sequence has several key frames at one frame, the box of the
    first is drawn there and is where the interpolation before it ends. The interpolation after it starts from the last,
    whose `enabled` holds. Raises RegionError naming the key frame that cannot be read.
    """
    items = value.get("sequence")
    if not isinstance(items, list):
        _refuse("it has no list of key frames", "value.sequence")
    rows: dict[int, tuple[list[float], list[float], bool]] = {}
    for index, item in enumerate(items):
        frame, numbers, on = _read(item, f"value.sequence[{index}]")
        rows[frame] = rows[frame][0] if frame in rows else numbers, numbers, on
    frames = np.array(sorted(rows), dtype=np.int64)
    ordered = [rows[frame] for frame in frames.tolist()]
    shapes = np.array([row[:2] for row in ordered], dtype=np.float64).reshape(-1, 2, 5)
    enabled = np.array([row[2] for row in ordered], dtype=np.bool_)
    turned = bool(shapes[:, :, 4].any())
    first, last = (Track(frames, shapes[:, i, :4], shapes[:, i, 4] if turned else None) for i in (0, 1))
    onward = None if (shapes[:, 0] == shapes[:, 1]).all() else last
    return KeyFrames(frames, first.boxes, enabled, first.rotation, onward)


def frame_rate(value: Mapping[str, Any]) -> float | None:
    """Return the frames per second with which a region was drawn, None if its value does not tell.

    This is the `frameRate` of the label config (24 by default), not that of the file; the two number frames
    differently. A value of one frame tells nothing, because the front end writes 1 until it has loaded the video.

    >>> frame_rate({"framesCount": 1500, "duration": 60.0, "sequence": []})
    25.0
    """
    count, duration = _number(value.get("framesCount")), _number(value.get("duration"))
    return count / duration if count > 1 and duration > 0 else None


def _starts(keyframes: KeyFrames, before: IntArray, drawn_there: BoolArray) -> tuple[Boxes, Boxes | None]:
    """Return the boxes and rotations from which to interpolate after the key frames with the indices `before`.

    Where `drawn_there` is true the frame is the key frame itself, so its own box is drawn and not its `onward` box.
    """
    onward, boxes, rotation = keyframes.onward, keyframes.boxes[before], keyframes.rotation
    if onward is not None:
        boxes = np.where(drawn_there[:, None], boxes, onward.boxes[before])
    if rotation is None:
        return boxes, None
    turned = rotation[before]
    if onward is not None and onward.rotation is not None:
        turned = np.where(drawn_there, turned, onward.rotation[before])
    return boxes, turned


def _split(track: Track, is_key: BoolArray, tau: float) -> BoolArray:
    """Return the mask `is_key` (t,) with the key frames added that bring every frame under tau.

    Each round splits all intervals between two key frames at once.
    """
    is_key = is_key.copy()
    inner = np.flatnonzero(~is_key)
    for round_ in range(len(track.frames)):
        if not len(inner):
            break
        keys = np.flatnonzero(is_key)
        after = np.searchsorted(keys, inner)
        error = interpolation_error(track, keys[after - 1], keys[after], inner)
        starts = np.flatnonzero(np.diff(after, prepend=-1))
        sizes = np.diff(starts, append=len(inner))
        worst = np.maximum.reduceat(error, starts)
        # Some tracks would split off one frame a round. Halve their intervals, so that the work stays O(n log n).
        cut = starts + sizes // 2 if round_ >= ROUNDS else _first_worst(error, np.repeat(worst, sizes), starts)
        is_key[inner[cut[worst >= tau]]] = True
        inner = inner[np.repeat(worst >= tau, sizes) & ~is_key[inner]]
    return is_key


def _first_worst(error: Boxes, worst: Boxes, starts: IntArray) -> IntArray:
    """Return for each interval the position of its first frame with the worst error."""
    at = np.flatnonzero(error == worst)
    return at[np.searchsorted(at, starts)]


def interpolation_error(track: Track, before: IntArray, after: IntArray, at: IntArray) -> Boxes:
    """Return the error (m,) of interpolating between two key frames: 1 - IoU, or 1 + distance of boxes that are apart.

    `before`, `after` and `at` (m,) are indices of the track's frames. Without the distance all frames of a small object
    on a curve would have the error 1, and each of them would become a key frame.
    """
    share = _share(track.frames, before, after, track.frames[at])[:, None]
    real, drawn = track.boxes[at], track.boxes[before] + share * (track.boxes[after] - track.boxes[before])
    ends = np.minimum(real[:, :2] + real[:, 2:], drawn[:, :2] + drawn[:, 2:])
    shared = np.clip(ends - np.maximum(real[:, :2], drawn[:, :2]), 0.0, None).prod(axis=1)
    union = real[:, 2:].prod(axis=1) + drawn[:, 2:].prod(axis=1) - shared
    apart = np.abs(real[:, :2] + real[:, 2:] / 2 - drawn[:, :2] - drawn[:, 2:] / 2).sum(axis=1)
    error = 1 - np.divide(shared, union, out=np.ones_like(union), where=union > 0)
    return np.where((shared > 0) | (union <= 0), error, 1 + apart)


def _share(frames: IntArray, before: IntArray, after: IntArray, at: IntArray) -> Boxes:
    """Return how far the frames `at` are on the way from key frame `before` to key frame `after`, in [0, 1)."""
    share: Boxes = (at - frames[before]) / np.maximum(frames[after] - frames[before], 1) * (after > before)
    return share


def _check(frames: IntArray, boxes: Boxes, rotation: Boxes | None) -> None:
    if boxes.shape != (len(frames), 4) or (rotation is not None and rotation.shape != frames.shape):
        raise ValueError(f"boxes {boxes.shape} do not fit {len(frames)} frames")
    if len(frames) and (frames[0] < 1 or (np.diff(frames) < 1).any()):
        raise ValueError("frames must ascend and count from 1")
    if not np.isfinite(boxes).all() or (rotation is not None and not np.isfinite(rotation).all()):
        raise ValueError("boxes hold NaN or infinity; drop those frames")
    if (boxes[:, 2:] < 0).any():
        raise ValueError("boxes have a negative width or height")


def _read(item: Any, where: str) -> tuple[int, list[float], bool]:
    """Return the frame, [x, y, width, height, rotation] and `enabled` of one key frame."""
    if not isinstance(item, Mapping):
        _refuse("a key frame is not an object", where)
    frame = _number(item.get("frame"))
    if not (1 <= frame <= LAST_FRAME and frame.is_integer()):
        _refuse(f"a key frame has the frame {item.get('frame')!r}, and frames count from 1", where)
    names = ("x", "y", "width", "height", "rotation")
    numbers = [_number(item.get(name, 0 if name == "rotation" else None)) for name in names]
    if not all(abs(number) <= MOST for number in numbers) or min(numbers[2:4]) < 0:
        _refuse(f"frame {frame:.0f} has no usable x, y, width, height or rotation", where)
    return int(frame), numbers, bool(item.get("enabled"))


def _number(value: Any) -> float:
    """Return a JSON number, or NaN for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LAST_FRAME
    return float(value) if usable else math.nan


def _refuse(reason: str, where: str) -> NoReturn:
    raise RegionError(f"the track cannot be read: {reason}", where=where, fix="draw or import the region anew")
