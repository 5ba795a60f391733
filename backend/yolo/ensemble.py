"""Committees of snapshots, test-time augmentation or perturbation, whose members are compared on the same anchors.

Members are compared before NMS, because NMS keeps different boxes for each member. Detectors share one grid of anchors,
so an anchor of the plain image corresponds to an anchor of a mirrored or smaller image: the cell in which its centre
lies. For rotated boxes the upright hulls are compared, in which different angles show, too. Classifiers have one
anchor, the whole image, and its box is the same for all members.
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
from backend.yolo.dense_head import DenseOutput, dfl_variance
from backend.yolo.detector import Detector
from backend.yolo.letterbox import Letterboxed
from backend.yolo.predictors import Predictor
from backend.yolo.runtime import check_finite
from backend.yolo.semantic_segmentation import Segmenter

if TYPE_CHECKING:
    import torch

MemberModel: TypeAlias = Detector | Classifier
TOP = 16  # anchors kept per image: those with the highest scores that any member gives
SCALES = (0.83, 0.67)  # those of ultralytics' own test-time augmentation


@dataclass(frozen=True, slots=True)
class Member:
    """A committee member: a model, how the image is changed for it, and how much of its head is switched off."""

    detector: MemberModel
    flip: bool = False  # left and right
    scale: float = 1.0  # of the image; at most 1, so that a member costs no more than one scoring
    dropout: float = 0.0  # share of the channels before the head's last convolutions
    seed: int = 0  # chooses the channels to switch off, which are the same for all images


@dataclass(frozen=True, slots=True)
class Votes:
    """The outputs of T members for the same k anchors of one image."""

    probs: FloatArray  # (T, k, C)
    boxes: FloatArray  # (T, k, 4) xyxy in pixels of the upright image
    variance: FloatArray | None  # (T, k, 4) DFL variance in px², None if a member has no DFL


@dataclass(frozen=True, slots=True)
class _Answers:
    """The outputs of one member for k anchors of each of B images, with boxes in pixels of the plain batch."""

    boxes: FloatArray  # (B, k, 4) xyxy
    probs: FloatArray  # (B, k, C)
    variance: FloatArray | None  # (B, k, 4) of left, top, right, bottom, None without DFL


def member_model(model: Predictor) -> MemberModel:
    """Return a model that can be a committee member; raises ModelError for a semantic segmentation model."""
    if isinstance(model, Segmenter):
        raise ModelError(
            "a committee compares objects or images, and this project's model predicts pixels",
            fix="choose a strategy without one: `yolo-backend strategies` lists what each needs",
        )
    return model


def snapshots(detectors: Sequence[MemberModel]) -> tuple[Member, ...]:
    """Return the committee of the last versions, the newest first.

    Raises ModelError for fewer than two models, and for models with different classes or anchors.
    """
    if len(detectors) < 2:
        raise ModelError(
            f"a committee of snapshots needs two published versions, there are {len(detectors)}",
            fix="train once more, or use COMMITTEE=augmented",
        )
    first = detectors[0]
    if any(_kind(detector) != _kind(first) for detector in detectors):
        raise ModelError(
            "a committee of snapshots needs versions with the same classes and the same anchors",
            fix="train once more after a change of the labels or of BASE_MODEL, or use COMMITTEE=augmented",
        )
    return tuple(map(Member, detectors))


def _kind(member: MemberModel) -> tuple[object, ...]:
    """Return the properties that all members of a committee must share."""
    return member.classes, member.strides, member.task, isinstance(member, Classifier) and member.multiple


def augmented(detector: MemberModel, scales: Sequence[float] = SCALES) -> tuple[Member, ...]:
    """Return the committee of one model that sees the image, its mirror image, and smaller images.

    Raises SettingError for a scale outside 0.1 … 1.
    """
    if any(not 0.1 <= scale <= 1.0 for scale in scales):
        raise SettingError(f"scales {tuple(scales)} of test-time augmentation", fix="use values from 0.1 to 1")
    return (Member(detector), Member(detector, flip=True), *(Member(detector, scale=scale) for scale in scales))


def perturbed(detector: MemberModel, members: int = 4, rate: float = 0.1) -> tuple[Member, ...]:
    """Return the committee of one model: the whole model, and models with different channels of the head switched off.

    With the strategy `bald` this is "perturbation BALD": the head was trained without dropout, so the members are no
    sample of a posterior. Raises SettingError for fewer than two members, and for a rate outside (0, 0.9].
    """
    if members < 2 or not 0.0 < rate <= 0.9:
        raise SettingError(
            f"a perturbed committee of {members} at rate {rate}", fix="use 2 members or more, and a rate up to 0.9"
        )
    return (Member(detector), *(Member(detector, dropout=rate, seed=seed) for seed in range(1, members)))


def committee_members(kind: str, size: int, detectors: Sequence[MemberModel]) -> tuple[Member, ...]:
    """Return at most `size` members of a committee of this kind of COMMITTEE; `detectors` are newest first.

    `augmented` and `perturbed` use the newest detector alone. Raises as `snapshots`, `augmented` and `perturbed` do.
    """
    if kind == "snapshots":
        return snapshots(detectors[:size])
    if kind == "perturbed":
        return perturbed(detectors[0], size)
    return augmented(detectors[0])[:size]


def consult(members: Sequence[Member], paths: Sequence[Path], top: int = TOP) -> Iterator[Votes]:
    """Yield the votes on each image, in order, for the `top` anchors with the highest scores that any member gives.

    This costs at most one scoring per member. Raises as `Detector.predict` does.
    """
    first = members[0].detector
    if isinstance(first, Classifier):
        return _class_votes(members, first, paths)
    return first.run(paths, partial(_votes, members, first, top))


def _class_votes(members: Sequence[Member], first: Classifier, paths: Sequence[Path]) -> Iterator[Votes]:
    """Yield the votes of classifiers on each image as a whole."""
    for batch, sizes in first.batches(paths):
        outputs = [
            member.detector.forward(member_view(member, batch), partial(_drop, member, 0) if member.dropout else None)[
                0
            ]
            for member in members
            if isinstance(member.detector, Classifier)
        ]
        probs = check_finite(np.stack([output.float().cpu().numpy() for output in outputs]))
        for index, (width, height) in enumerate(sizes):
            boxes = np.tile(np.array([0, 0, width, height], dtype=np.float32), (len(outputs), 1, 1))
            yield Votes(probs[:, index : index + 1], boxes, None)


def committee_of(votes: Sequence[Votes]) -> Committee:
    """Return the votes on n images as a column of a Pool; raises ValueError if images differ in their members."""
    offsets = np.cumsum([0, *(image.probs.shape[1] for image in votes)], dtype=np.int64)
    if not votes:
        return nobody(0)
    variances = [image.variance for image in votes if image.variance is not None]
    return Committee(
        offsets,
        np.concatenate([image.probs for image in votes], axis=1),
        np.concatenate([image.boxes for image in votes], axis=1),
        np.concatenate(variances, axis=1) if len(variances) == len(votes) else None,
    )


def nobody(n: int) -> Committee:
    """Return a committee without votes on n images."""
    return Committee(np.zeros(n + 1, np.int64), np.zeros((2, 0, 0), np.float32), np.zeros((2, 0, 4), np.float32))


def same_anchors(grids: Sequence[tuple[int, int]], other_grids: Sequence[tuple[int, int]], flip: bool) -> IntArray:
    """Return for each of A anchors of the plain image the anchor of `other_grids` in which its centre lies (A,).

    A grid is the number of rows and columns of a level; `flip` is true if the other image is mirrored.

    >>> same_anchors([(1, 4)], [(1, 2)], False).tolist(), same_anchors([(1, 4)], [(1, 4)], True).tolist()
    ([0, 0, 1, 1], [3, 2, 1, 0])
    """
    start, indices = 0, []
    for (rows, columns), (other_rows, other_columns) in zip(grids, other_grids, strict=True):
        rows_there = (np.arange(rows) * 2 + 1) * other_rows // (2 * rows)
        column = (np.arange(columns) * 2 + 1) * other_columns // (2 * columns)
        column = other_columns - 1 - column if flip else column
        indices.append((start + rows_there[:, None] * other_columns + column).ravel())
        start += other_rows * other_columns
    return np.concatenate(indices)


def _votes(members: Sequence[Member], first: Detector, top: int, images: Sequence[Letterboxed]) -> list[Votes]:
    """Return the votes of all members on images of one shape."""
    import torch

    with torch.inference_mode():
        plain = first.stack(images)
        views = [member_view(member, plain) for member in members]
        outputs = [_dense_output(member, view) for member, view in zip(members, views, strict=True)]
        own = tuple((plain.shape[2] // stride, plain.shape[3] // stride) for stride in first.strides)
        places = [
            torch.from_numpy(same_anchors(own, dense.grids, member.flip)).to(dense.probs.device)
            for member, dense in zip(members, outputs, strict=True)
        ]
        scores = [dense.probs.amax(1)[:, place].cpu() for dense, place in zip(outputs, places, strict=True)]
        best = torch.stack(scores).amax(0)
        anchors = best.topk(min(top, best.shape[1]), dim=1).indices
        answers = [
            _answers(member, dense, place[anchors.to(place.device)], view.shape, plain.shape)
            for member, dense, place, view in zip(members, outputs, places, views, strict=True)
        ]
    return [_image_votes(image, row, answers) for row, image in enumerate(images)]


def member_view(member: Member, plain: torch.Tensor) -> torch.Tensor:
    """Return the batch as a member sees it: scaled to whole cells of the coarsest grid, then mirrored."""
    from torch.nn.functional import interpolate

    cell = max(member.detector.strides)
    size = [max(cell, round(side * member.scale / cell) * cell) for side in plain.shape[2:]]
    view = plain
    if size != list(plain.shape[2:]):
        view = interpolate(plain, size, mode="bilinear", align_corners=False, antialias=True)
    return view.flip(3) if member.flip else view


def _dense_output(member: Member, view: torch.Tensor) -> DenseOutput:
    """Return a member's dense output for its view of the batch."""
    assert isinstance(member.detector, Detector), "all members of a committee are of one kind"
    return member.detector.dense(view, partial(_drop, member) if member.dropout else None)


def _drop(member: Member, index: int, x: torch.Tensor) -> torch.Tensor:
    """Return x (B, F, ...) with a member's share of the channels F at 0, and the others scaled up to the same sum."""
    rng = np.random.default_rng((member.seed, index))
    keep = (rng.random(x.shape[1]) >= member.dropout) / (1.0 - member.dropout)
    return x * x.new_tensor(keep.tolist()).reshape(-1, *[1] * (x.ndim - 2))


def _answers(
    member: Member, dense: DenseOutput, anchors: torch.Tensor, view_shape: Sequence[int], plain_shape: Sequence[int]
) -> _Answers:
    """Return a member's outputs for anchors (B, k), with boxes converted from the member's view to the plain batch."""
    import torch

    image = torch.arange(len(anchors), device=anchors.device)[:, None]
    x, y, width, height = dense.boxes[image, :, anchors].unbind(2)
    if dense.angles is not None:  # hulls of rotated boxes; mirrored boxes have hulls of the same size
        angle = dense.angles[image, anchors]
        across, down = angle.cos().abs(), angle.sin().abs()
        width, height = width * across + height * down, width * down + height * across
    if member.flip:
        x = view_shape[3] - x
    gain = dense.boxes.new_tensor([plain_shape[3] / view_shape[3], plain_shape[2] / view_shape[2]]).repeat(2)
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
    """Return the votes on the image in one row of the batch."""
    probs = check_finite(np.stack([answer.probs[row] for answer in answers]))
    boxes = check_finite(np.stack([answer.boxes[row] for answer in answers]))
    variances = [answer.variance[row] for answer in answers if answer.variance is not None]
    variance = None
    if len(variances) == len(answers):  # variances are compared only if all members have DFL
        variance = check_finite(np.stack(variances)) / np.float32(image.gain**2)
    return Votes(probs, image.upright(boxes.reshape(-1, 4)).reshape(boxes.shape), variance)
