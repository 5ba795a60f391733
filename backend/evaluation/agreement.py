"""How far two versions, or a version and an annotator, agree on an image; on a video, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import iou, percent_boxes
from backend.geometry.keyframes import KeyFrames, Track, interpolate
from backend.types import IntArray, Prediction

SHOWN = 0.25  # lowest confidence of the boxes that are compared
FRAMES = 100  # most frames per video that are compared, evenly spaced, so that long videos do not dominate

Boxes = npt.ArrayLike
Classes = npt.NDArray[np.integer]
Shown = tuple[npt.NDArray[np.floating], Classes]  # boxes (n, 4) and classes (n,)


def stability(before: Sequence[Prediction], after: Sequence[Prediction]) -> float | None:
    """Return F1@.5 between two versions' boxes on the same images, in order; None if neither version shows a box.

    Boxes with a confidence of SHOWN or more match one to one within a class, the best overlap first. Boxes of videos
    match within a frame. A video is left out if the versions differ in its length or frame rate.
    """
    matched = total = 0
    for earlier, later in zip(before, after, strict=True):
        for earlier_boxes, later_boxes in _images(earlier, later):
            hits, count = agreement(*earlier_boxes, *later_boxes)
            matched, total = matched + hits, total + count
    return 2 * matched / total if total else None


def agreement(boxes: Boxes, classes: Classes, others: Boxes, other_classes: Classes) -> tuple[int, int]:
    """Return the number of pairs of same-class boxes with IoU >= .5, each box used once, and the number of boxes.

    F1 is 2 · pairs / boxes.

    >>> box, others = np.array([[0, 0, 10, 10]]), np.array([[1, 0, 11, 10], [50, 50, 60, 60]])
    >>> [agreement(box, np.array([0]), others, np.array(classes)) for classes in ([0, 0], [1, 0])]
    [(1, 3), (0, 3)]
    """
    overlap = np.where(classes[:, None] == other_classes[None, :], iou(boxes, others), 0.0)
    pairs = np.argwhere(overlap >= 0.5)
    used_rows, used_columns = set[int](), set[int]()
    for row, column in pairs[np.argsort(-overlap[tuple(pairs.T)], kind="stable")].tolist():
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
    return len(used_rows), len(classes) + len(other_classes)


def shown(prediction: Prediction) -> Shown:
    """Return the boxes (n, 4) of an image that count, in pixels, and their classes (n,)."""
    is_shown = prediction.confidence >= SHOWN
    probs = prediction.class_probs[is_shown]
    return prediction.boxes[is_shown], probs.argmax(axis=1) if len(probs) else np.zeros(0, dtype=np.int64)


def shown_in(prediction: Prediction, frames: IntArray) -> list[Shown]:
    """Return, for each of these ascending frames, the boxes of the video's objects in percent and their classes.

    The class and the confidence of an object come from the mean over its key frames, as for regions.
    """
    objects = list(_objects(prediction, frames))
    places = np.concatenate([np.zeros(0, np.int64), *(np.searchsorted(frames, track.frames) for track, _ in objects)])
    boxes = np.concatenate([np.zeros((0, 4)), *(track.boxes for track, _ in objects)])
    lengths = np.array([len(track.frames) for track, _ in objects], np.int64)
    classes = np.repeat(np.array([kind for _, kind in objects], np.int64), lengths)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], np.arange(len(frames) + 1)).tolist()
    return [(corners[order[begin:end]], classes[order[begin:end]]) for begin, end in pairwise(ends)]


def _objects(prediction: Prediction, frames: IntArray) -> Iterator[tuple[Track, int]]:
    """Yield the track of each object that counts, in percent, and its class; a track has only the object's frames."""
    tracks = prediction.tracks
    assert tracks is not None, "an image has no frames"
    percent = percent_boxes(prediction)
    bounds = np.searchsorted(tracks.objects, np.arange(tracks.objects.max(initial=-1) + 2)).tolist()
    for rows in (slice(*ends) for ends in pairwise(bounds) if ends[0] < ends[1]):
        probs = prediction.class_probs[rows].mean(axis=0)
        if probs.max(initial=0) >= SHOWN:
            keys = KeyFrames(tracks.frames[rows], percent[rows], tracks.enabled[rows])
            stop = len(frames) if keys.enabled[-1] else np.searchsorted(frames, keys.frames[-1], side="right")
            shown_frames = frames[np.searchsorted(frames, keys.frames[0]) : stop]
            yield interpolate(keys, shown_frames), int(probs.argmax())


def label_objects(prediction: Prediction) -> Prediction:
    """Return the prediction of a multi-label image with one object for each label that it shows.

    Each object is a box of the whole image, as for single choices. In a video, an object extends from one analysed
    frame to the next if both show the label.
    """
    is_shown = prediction.class_probs >= SHOWN
    labels, rows = np.nonzero(is_shown.T)
    probs = np.zeros((len(rows), is_shown.shape[1]), dtype=prediction.class_probs.dtype)
    probs[np.arange(len(rows)), labels] = confidence = prediction.class_probs[rows, labels]
    tracks = prediction.tracks
    if tracks is not None:
        continues = np.append(is_shown[1:], np.zeros((1, is_shown.shape[1]), np.bool_), axis=0)[rows, labels]
        tracks = replace(tracks, frames=tracks.frames[rows], objects=labels, enabled=continues)
    return replace(prediction, boxes=prediction.boxes[rows], class_probs=probs, confidence=confidence, tracks=tracks)


def _images(before: Prediction, after: Prediction) -> Iterator[tuple[Shown, Shown]]:
    """Yield the boxes and classes of two versions for an image, each page, or each compared frame of a video."""
    if before.one_image and after.one_image:
        yield shown(before), shown(after)
    elif before.pages and after.pages:
        yield from ((shown(old), shown(new)) for old, new in zip(before.pages, after.pages, strict=False))
    elif (
        before.tracks
        and after.tracks
        and (before.tracks.length, before.tracks.rate) == (after.tracks.length, after.tracks.rate)
    ):
        frames = np.linspace(1, before.tracks.length, min(before.tracks.length, FRAMES)).round().astype(np.int64)
        yield from zip(shown_in(before, frames), shown_in(after, frames), strict=True)
