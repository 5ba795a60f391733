"""How far two versions, or a version and a human, agree on what an image shows; on a video, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from backend.geometry.coordinates import iou, percent_boxes
from backend.geometry.keyframes import KeyFrames, Track, interpolate
from backend.types import IntArray, Prediction

SHOWN = 0.25  # confidence from which boxes of two versions are compared
FRAMES = 100  # of a video that are compared, at even distances: a longer one counts no more

Boxes = npt.ArrayLike
Classes = npt.NDArray[np.integer]
Shown = tuple[npt.NDArray[np.floating], Classes]  # boxes (n, 4) and classes (n,)


def stability(before: Sequence[Prediction], after: Sequence[Prediction]) -> float | None:
    """Return F1@.5 between two versions' boxes on the same images, in order; None where neither shows a box.

    Boxes from a confidence of SHOWN match one to one within a class, the best overlap first; those of videos within a
    frame. Videos whose frames the two versions count differently tell nothing.
    """
    matched = total = 0
    for one, other in zip(before, after, strict=True):
        for mine, theirs in _images(one, other):
            hits, count = agreement(*mine, *theirs)
            matched, total = matched + hits, total + count
    return 2 * matched / total if total else None


def agreement(boxes: Boxes, classes: Classes, others: Boxes, other_classes: Classes) -> tuple[int, int]:
    """Return how many pairs of same-class boxes overlap by IoU >= .5, each box used once, and how many boxes there are.

    F1 is twice the first over the second.

    >>> one, same = np.array([[0, 0, 10, 10]]), np.array([[1, 0, 11, 10], [50, 50, 60, 60]])
    >>> agreement(one, np.array([0]), same, np.array([0, 0])), agreement(one, np.array([0]), same, np.array([1, 0]))
    ((1, 3), (0, 3))
    """
    overlap = np.where(classes[:, None] == other_classes[None, :], iou(boxes, others), 0.0)
    pairs = np.argwhere(overlap >= 0.5)
    used_one, used_other = set[int](), set[int]()
    for row, column in pairs[np.argsort(-overlap[tuple(pairs.T)], kind="stable")].tolist():
        if row not in used_one and column not in used_other:
            used_one.add(row)
            used_other.add(column)
    return len(used_one), len(classes) + len(other_classes)


def shown(prediction: Prediction) -> Shown:
    """Return the boxes (n, 4) of an image in pixels and the classes (n,) of those that count."""
    kept = prediction.confidence >= SHOWN
    probs = prediction.class_probs[kept]
    return prediction.boxes[kept], probs.argmax(axis=1) if len(probs) else np.zeros(0, dtype=np.int64)


def shown_in(prediction: Prediction, frames: IntArray) -> list[Shown]:
    """Return the boxes in percent and the classes of the objects that a video shows in each of these ascending frames.

    An object has the class and the confidence of its key frames' mean, as where it becomes a region.
    """
    drawn = list(_objects(prediction, frames))
    places = np.concatenate([np.zeros(0, np.int64), *(np.searchsorted(frames, track.frames) for track, _ in drawn)])
    boxes = np.concatenate([np.zeros((0, 4)), *(track.boxes for track, _ in drawn)])
    lengths = np.array([len(track.frames) for track, _ in drawn], np.int64)
    classes = np.repeat(np.array([kind for _, kind in drawn], np.int64), lengths)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], np.arange(len(frames) + 1)).tolist()
    return [(corners[order[begin:end]], classes[order[begin:end]]) for begin, end in pairwise(ends)]


def _objects(prediction: Prediction, frames: IntArray) -> Iterator[tuple[Track, int]]:
    """Yield where each object that counts is drawn in percent, and its class; each looks at its own frames only."""
    tracks = prediction.tracks
    assert tracks is not None, "an image has no frames"
    percent = percent_boxes(prediction)
    bounds = np.searchsorted(tracks.objects, np.arange(tracks.objects.max(initial=-1) + 2)).tolist()
    for mine in (slice(*ends) for ends in pairwise(bounds) if ends[0] < ends[1]):
        probs = prediction.class_probs[mine].mean(axis=0)
        if probs.max(initial=0) >= SHOWN:
            keys = KeyFrames(tracks.frames[mine], percent[mine], tracks.enabled[mine])
            stop = len(frames) if keys.enabled[-1] else np.searchsorted(frames, keys.frames[-1], side="right")
            here = frames[np.searchsorted(frames, keys.frames[0]) : stop]
            yield interpolate(keys, here), int(probs.argmax())


def label_objects(found: Prediction) -> Prediction:
    """Return the labels of an image that may have several as a box of the whole image each, as what is chosen is.

    Of a video each label is an object, from one of the frames that were looked at to the next where both show it.
    """
    sure = found.class_probs >= SHOWN
    labels, rows = np.nonzero(sure.T)
    probs = np.zeros((len(rows), sure.shape[1]), dtype=found.class_probs.dtype)
    probs[np.arange(len(rows)), labels] = confidence = found.class_probs[rows, labels]
    tracks = found.tracks
    if tracks is not None:
        lasts = np.append(sure[1:], np.zeros((1, sure.shape[1]), np.bool_), axis=0)[rows, labels]
        tracks = replace(tracks, frames=tracks.frames[rows], objects=labels, enabled=lasts)
    return replace(found, boxes=found.boxes[rows], class_probs=probs, confidence=confidence, tracks=tracks)


def _images(one: Prediction, other: Prediction) -> Iterator[tuple[Shown, Shown]]:
    """Yield what two versions show of an image, or of the same frames of a video."""
    if one.tracks is None and other.tracks is None:
        yield shown(one), shown(other)
    elif (
        one.tracks and other.tracks and (one.tracks.length, one.tracks.rate) == (other.tracks.length, other.tracks.rate)
    ):
        every = np.linspace(1, one.tracks.length, min(one.tracks.length, FRAMES)).round().astype(np.int64)
        yield from zip(shown_in(one, every), shown_in(other, every), strict=True)
