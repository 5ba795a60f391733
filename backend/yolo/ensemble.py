"""How a committee is asked: snapshots, test-time augmentation or perturbation; every member on the same anchors.

Members are compared before NMS, which keeps other boxes of each. All of them are detectors on one grid of anchors, so
an anchor of the plain image has its like in a mirrored or smaller one: the cell that its centre falls into. Of turned
boxes the upright hulls are compared, so what disagrees about an angle shows in them. Classifiers have one anchor, the
image, whose box nobody disagrees about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from backend.acquisition.pool import Committee
from backend.errors import ModelError, SettingError
from backend.types import FloatArray, IntArray
from backend.yolo.classifier import Classifier
from backend.yolo.dense_head import Dense, dfl_variance
from backend.yolo.detector import Detector
from backend.yolo.letterbox import Letterboxed
from backend.yolo.predictors import Predictor
from backend.yolo.runtime import check_finite
from backend.yolo.semantic_segmentation import Segmenter

if TYPE_CHECKING:
    import torch

Voter: TypeAlias = Detector | Classifier
TOP = 16  # anchors kept of each image, those with the highest score any member gives
SCALES = (0.83, 0.67)  # as ultralytics' own test-time augmentation


@dataclass(frozen=True, slots=True)
class Member:
    """A committee member: a model, how it sees the image, and how much of its head is switched off."""

    detector: Voter
    flip: bool = False  # left and right
    scale: float = 1.0  # of the image, at most 1: a member costs no more than one scoring
    dropout: float = 0.0  # share of the channels before the head's last convolutions
    seed: int = 0  # of the channels switched off, the same for all images


@dataclass(frozen=True, slots=True)
class Votes:
    """What T members say of the same k anchors of one image."""

    probs: FloatArray  # (T, k, C)
    boxes: FloatArray  # (T, k, 4) xyxy in pixels of the upright image
    variance: FloatArray | None  # (T, k, 4) DFL variance in px², None where a member has no DFL


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one member says of k anchors of each of B images, boxes in pixels of the plain batch."""

    boxes: FloatArray  # (B, k, 4) xyxy
    probs: FloatArray  # (B, k, C)
    variance: FloatArray | None  # (B, k, 4) of left, top, right, bottom, None where there is no DFL


def voter(found: Predictor) -> Voter:
    """Return a model that may vote; raises ModelError for a model of pixels."""
    if isinstance(found, Segmenter):
        raise ModelError(
            "a committee compares objects or images, and this project's model predicts pixels",
            fix="choose a strategy without one: `yolo-backend strategies` lists what each needs",
        )
    return found


def snapshots(detectors: Sequence[Voter]) -> tuple[Member, ...]:
    """Return the committee of the last versions, the newest first.

    Raises ModelError for fewer than two, and for versions that differ in their classes or their anchors.
    """
    if len(detectors) < 2:
        raise ModelError(
            f"a committee of snapshots needs two published versions, there are {len(detectors)}",
            fix="train once more, or use COMMITTEE=augmented",
        )
    first = detectors[0]
    if any(_kind(each) != _kind(first) for each in detectors):
        raise ModelError(
            "a committee of snapshots needs versions with the same classes and the same anchors",
            fix="train once more after a change of the labels or of BASE_MODEL, or use COMMITTEE=augmented",
        )
    return tuple(map(Member, detectors))


def _kind(member: Voter) -> tuple[object, ...]:
    """Return what the members of a committee must share."""
    return member.classes, member.strides, member.task, isinstance(member, Classifier) and member.multiple


def augmented(detector: Voter, scales: Sequence[float] = SCALES) -> tuple[Member, ...]:
    """Return the committee of one model on the image, its mirror image, and smaller ones.

    Raises SettingError for a scale outside 0.1 … 1.
    """
    if any(not 0.1 <= scale <= 1.0 for scale in scales):
        raise SettingError(f"scales {tuple(scales)} of test-time augmentation", fix="use values from 0.1 to 1")
    return (Member(detector), Member(detector, flip=True), *(Member(detector, scale=scale) for scale in scales))


def perturbed(detector: Voter, members: int = 4, rate: float = 0.1) -> tuple[Member, ...]:
    """Return the committee of one model, first whole, then with other channels of its head switched off each time.

    Under `bald` this is "perturbation BALD": the head was trained without dropout, so it samples no posterior.
    Raises SettingError for fewer than two members, and for a rate outside (0, 0.9].
    """
    if members < 2 or not 0.0 < rate <= 0.9:
        raise SettingError(
            f"a perturbed committee of {members} at rate {rate}", fix="use 2 members or more, and a rate up to 0.9"
        )
    return (Member(detector), *(Member(detector, dropout=rate, seed=seed) for seed in range(1, members)))


def committee_members(kind: str, size: int, detectors: Sequence[Voter]) -> tuple[Member, ...]:
    """Return the members of a committee of one kind of COMMITTEE, `size` at most; `detectors` are newest first.

    Raises as `snapshots`, `augmented` and `perturbed` do. The last two ask the newest detector alone.
    """
    if kind == "snapshots":
        return snapshots(detectors[:size])
    if kind == "perturbed":
        return perturbed(detectors[0], size)
    return augmented(detectors[0])[:size]


def consult(members: Sequence[Member], paths: Sequence[Path], top: int = TOP) -> Iterator[Votes]:
    """Give the votes on each path, in order, of the `top` anchors to which any member gives the highest scores.

    Costs at most one scoring per member. Raises as `Detector.predict` does.
    """
    first = members[0].detector
    if isinstance(first, Classifier):
        return _class_votes(members, first, paths)
    return first.run(paths, partial(_votes, members, first, top))


def _class_votes(members: Sequence[Member], first: Classifier, paths: Sequence[Path]) -> Iterator[Votes]:
    """Give what all members, classifiers, say of each image as a whole."""
    for batch, sizes in first.batches(paths):
        said = [
            member.detector.forward(_view(member, batch), partial(_drop, member, 0) if member.dropout else None)[0]
            for member in members
            if isinstance(member.detector, Classifier)
        ]
        probs = check_finite(np.stack([each.float().cpu().numpy() for each in said]))
        for index, (width, height) in enumerate(sizes):
            boxes = np.tile(np.array([0, 0, width, height], dtype=np.float32), (len(said), 1, 1))
            yield Votes(probs[:, index : index + 1], boxes, None)


def committee_of(votes: Sequence[Votes]) -> Committee:
    """Return the committee on n images, as a Pool takes it; raises ValueError where the members differ in number."""
    offsets = np.cumsum([0, *(each.probs.shape[1] for each in votes)], dtype=np.int64)
    if not votes:
        return nobody(0)
    variances = [each.variance for each in votes if each.variance is not None]
    return Committee(
        offsets,
        np.concatenate([each.probs for each in votes], axis=1),
        np.concatenate([each.boxes for each in votes], axis=1),
        np.concatenate(variances, axis=1) if len(variances) == len(votes) else None,
    )


def nobody(n: int) -> Committee:
    """Return the committee that says nothing of n images."""
    return Committee(np.zeros(n + 1, np.int64), np.zeros((2, 0, 0), np.float32), np.zeros((2, 0, 4), np.float32))


def same_anchors(grids: Sequence[tuple[int, int]], seen: Sequence[tuple[int, int]], flip: bool) -> IntArray:
    """Return for each anchor of the plain image, A in all, the one of the grids `seen` in which its centre lies (A,).

    >>> same_anchors([(1, 4)], [(1, 2)], False).tolist(), same_anchors([(1, 4)], [(1, 4)], True).tolist()
    ([0, 0, 1, 1], [3, 2, 1, 0])
    """
    start, indices = 0, []
    for (rows, columns), (their_rows, their_columns) in zip(grids, seen, strict=True):
        row = (np.arange(rows) * 2 + 1) * their_rows // (2 * rows)
        column = (np.arange(columns) * 2 + 1) * their_columns // (2 * columns)
        column = their_columns - 1 - column if flip else column
        indices.append((start + row[:, None] * their_columns + column).ravel())
        start += their_rows * their_columns
    return np.concatenate(indices)


def _votes(members: Sequence[Member], first: Detector, top: int, images: Sequence[Letterboxed]) -> list[Votes]:
    """Ask all members about images of one shape."""
    import torch

    with torch.inference_mode():
        plain = first.stack(images)
        views = [_view(member, plain) for member in members]
        said = [_ask(member, view) for member, view in zip(members, views, strict=True)]
        own = tuple((plain.shape[2] // stride, plain.shape[3] // stride) for stride in first.strides)
        places = [
            torch.from_numpy(same_anchors(own, dense.grids, member.flip)).to(dense.probs.device)
            for member, dense in zip(members, said, strict=True)
        ]
        scores = [dense.probs.amax(1)[:, place].cpu() for dense, place in zip(said, places, strict=True)]
        best = torch.stack(scores).amax(0)
        anchors = best.topk(min(top, best.shape[1]), dim=1).indices
        answers = [
            _answers(member, dense, place[anchors.to(place.device)], view.shape, plain.shape)
            for member, dense, place, view in zip(members, said, places, views, strict=True)
        ]
    return [_image_votes(image, row, answers) for row, image in enumerate(images)]


def _view(member: Member, plain: torch.Tensor) -> torch.Tensor:
    """Return the batch as a member sees it: smaller, in whole cells of the coarsest grid, then mirrored."""
    from torch.nn.functional import interpolate

    cell = max(member.detector.strides)
    size = [max(cell, round(side * member.scale / cell) * cell) for side in plain.shape[2:]]
    view = plain
    if size != list(plain.shape[2:]):
        view = interpolate(plain, size, mode="bilinear", align_corners=False, antialias=True)
    return view.flip(3) if member.flip else view


def _ask(member: Member, view: torch.Tensor) -> Dense:
    """Return what a member says of its view."""
    assert isinstance(member.detector, Detector), "a committee's members are of one kind"
    return member.detector.dense(view, partial(_drop, member) if member.dropout else None)


def _drop(member: Member, index: int, x: torch.Tensor) -> torch.Tensor:
    """Switch off a member's share of the channels F, and raise the others to the same sum: (B, F, ...)."""
    rng = np.random.default_rng((member.seed, index))
    keep = (rng.random(x.shape[1]) >= member.dropout) / (1.0 - member.dropout)
    return x * x.new_tensor(keep.tolist()).reshape(-1, *[1] * (x.ndim - 2))


def _answers(
    member: Member, dense: Dense, anchors: torch.Tensor, seen: Sequence[int], plain: Sequence[int]
) -> _Answers:
    """Return what a member says of anchors (B, k)."""
    import torch

    image = torch.arange(len(anchors), device=anchors.device)[:, None]
    x, y, width, height = dense.boxes[image, :, anchors].unbind(2)
    if dense.angles is not None:  # a mirrored box has the same hull
        angle = dense.angles[image, anchors]
        across, down = angle.cos().abs(), angle.sin().abs()
        width, height = width * across + height * down, width * down + height * across
    if member.flip:
        x = seen[3] - x
    gain = dense.boxes.new_tensor([plain[3] / seen[3], plain[2] / seen[2]]).repeat(2)
    boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 2) * gain
    variance = None
    if dense.sides is not None:
        sides = dense.sides[image, :, anchors].reshape(anchors.numel(), 4, -1)
        variance = dfl_variance(sides, dense.strides[anchors.flatten()]).reshape(*anchors.shape, 4)
        variance = (variance[:, :, [2, 1, 0, 3]] if member.flip else variance) * gain**2
    return _Answers(
        boxes=boxes.cpu().numpy(),
        probs=dense.probs[image, :, anchors].cpu().numpy(),
        variance=None if variance is None else variance.cpu().numpy(),
    )


def _image_votes(image: Letterboxed, row: int, answers: Sequence[_Answers]) -> Votes:
    """Return the votes on the image of one row."""
    probs = check_finite(np.stack([answer.probs[row] for answer in answers]))
    boxes = check_finite(np.stack([answer.boxes[row] for answer in answers]))
    variances = [answer.variance[row] for answer in answers if answer.variance is not None]
    variance = None
    if len(variances) == len(answers):  # one member without DFL is enough for none to have it
        variance = check_finite(np.stack(variances)) / np.float32(image.gain**2)
    return Votes(probs, image.upright(boxes.reshape(-1, 4)).reshape(boxes.shape), variance)
