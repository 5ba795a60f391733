"""What strategies look at: a pool of unlabeled images as ragged arrays, and what a committee says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from backend.types import ByteArray, FloatArray, IntArray

Empty = Literal["lowest", "median", "highest"]
LEAST_SCORE = 0.05  # of a label that a strategy hears of, as of the boxes that are kept
THUMBNAIL_SIDE = 8  # pixels: by fewer different images are alike, by more a picture moved a little is another


@dataclass(frozen=True, slots=True)
class Committee:
    """What T >= 2 members say of the same m anchors, before NMS; anchors of image i are rows offsets[i]:offsets[i + 1].

    Member 0 is the reference: the newest version, or the model on the plain image. Raises ValueError for shapes that do
    not fit and for values that are not finite.
    """

    offsets: IntArray  # (n + 1,), of its own: anchors are not the boxes that NMS keeps
    member_probs: FloatArray  # (T, m, C) sigmoid scores
    member_boxes: FloatArray  # (T, m, 4) xyxy in pixels of the upright image
    member_variance: FloatArray | None = None  # (T, m, 4) DFL variance in px², None where a head has no DFL

    def __post_init__(self) -> None:
        members, anchors = self.member_probs.shape[:2]
        if members < 2:
            raise ValueError(f"a committee of {members}: it takes two members to disagree")
        if not len(self.offsets) or int(self.offsets[-1]) != anchors or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets {self.offsets.shape} do not fit {anchors} anchors")
        for name in ("member_boxes", "member_variance"):
            values = getattr(self, name)
            if values is not None and values.shape != (members, anchors, 4):
                raise ValueError(f"{name} {values.shape} do not fit member_probs {self.member_probs.shape}")
        for name in ("member_probs", "member_boxes", "member_variance"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinity; drop those images before ranking")


@dataclass(frozen=True, slots=True)
class Pool:
    """n unlabeled images with m boxes in all; boxes of image i are rows offsets[i]:offsets[i + 1].

    What a strategy may look at beyond that is optional; it declares its `needs`. Raises ValueError for shapes that do
    not fit, NaN and infinity.
    """

    task_ids: IntArray  # (n,)
    offsets: IntArray  # (n + 1,)
    class_probs: FloatArray  # (m, C) sigmoid scores; where `exclusive`, distributions
    embeddings: FloatArray | None = None  # (n, D)
    class_weights: FloatArray | None = None  # (C,) long-tail weights, None = all one
    box_variance: FloatArray | None = None  # (m, 4) DFL variance in px², None where the head has no DFL
    committee: Committee | None = None  # of the same n images
    labeled_embeddings: FloatArray | None = None  # (l, D) of the images that have labels, None = not known
    labeled_losses: FloatArray | None = None  # (l,) out of fold, NaN where the model has learned from the image
    box_embeddings: FloatArray | None = None  # (m, E)
    shape_confidence: FloatArray | None = None  # (m,) of masks or points, None where the model finds boxes alone
    video_doubt: FloatArray | None = None  # (n,) nats, None where the tasks are images
    thumbnails: ByteArray | None = None  # (n, 192) what the images look like, None = not known
    labeled_thumbnails: ByteArray | None = None  # (l, 192)
    empty: Empty = "median"  # what an image without boxes counts as, among those with some
    batch: int = 100  # how many tasks are labeled before the next ranking
    map50: float | None = None  # of the model that scored the pool, None = not known
    exclusive: bool = False  # each row is one choice among the classes, and nothing is no answer

    def __post_init__(self) -> None:
        if self.offsets.shape != (len(self.task_ids) + 1,) or int(self.offsets[-1]) != len(self.class_probs):
            raise ValueError(
                f"offsets {self.offsets.shape} do not fit {len(self.task_ids)} images and {len(self.class_probs)} boxes"
            )
        _check_finite("class_probs", self.class_probs, "; drop those boxes before ranking")
        weights = self.class_weights
        if weights is not None and len(self.class_probs) and weights.shape != self.class_probs.shape[1:]:
            raise ValueError(f"class_weights {weights.shape} do not fit class_probs {self.class_probs.shape}")
        variance = self.box_variance
        if variance is not None and variance.shape != (len(self.class_probs), 4):
            raise ValueError(f"box_variance {variance.shape} do not fit {len(self.class_probs)} boxes")
        _check_finite("box_variance", variance, "; drop those boxes before ranking")
        shapes = self.shape_confidence
        if shapes is not None and shapes.shape != (len(self.class_probs),):
            raise ValueError(f"shape_confidence {shapes.shape} do not fit {len(self.class_probs)} boxes")
        _check_finite("shape_confidence", shapes, "; drop those boxes before ranking")
        if self.video_doubt is not None and self.video_doubt.shape != self.task_ids.shape:
            raise ValueError(f"video_doubt {self.video_doubt.shape} does not fit {len(self)} videos")
        _check_finite("video_doubt", self.video_doubt, "; leave those videos out of the pool")
        if self.committee is not None and self.committee.offsets.shape != self.offsets.shape:
            raise ValueError(f"a committee on {len(self.committee.offsets) - 1} images does not fit {len(self)}")
        self._check_embeddings()
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; it must be 1 or more")
        if self.map50 is not None and not 0.0 <= self.map50 <= 1.0:
            raise ValueError(f"map50 is {self.map50}; it must lie in [0, 1]")

    def _check_embeddings(self) -> None:
        images = len(self.task_ids)
        pairs = (("embeddings", images), ("thumbnails", images), ("box_embeddings", len(self.class_probs)))
        for name, rows in pairs:
            array = getattr(self, name)
            if array is not None and (array.ndim != 2 or len(array) != rows):
                raise ValueError(f"{name} {array.shape} must have {rows} rows of one vector each")
        for name in ("embeddings", "thumbnails"):
            array, labeled = getattr(self, name), getattr(self, f"labeled_{name}")
            if labeled is not None and (
                labeled.ndim != 2 or (array is not None and len(labeled) and labeled.shape[1:] != array.shape[1:])
            ):
                raise ValueError(f"labeled_{name} {labeled.shape} do not fit the pool's {name}")
        losses = self.labeled_losses
        if losses is not None and (
            self.labeled_embeddings is None
            or losses.shape != self.labeled_embeddings.shape[:1]
            or np.isinf(losses).any()
        ):
            raise ValueError(f"labeled_losses {losses.shape} must be finite, or NaN, one per labeled embedding")
        for name in ("class_weights", "embeddings", "labeled_embeddings", "box_embeddings"):
            _check_finite(name, getattr(self, name), "; leave those images out of the pool")

    def __len__(self) -> int:
        return len(self.task_ids)


def by_label(pool: Pool) -> Pool:
    """Return a pool of n images with one row each as one with a row for each label that an image may have.

    A row has its label's score, and 0 for all others. Left out are labels under LEAST_SCORE, as boxes are, but for the
    likeliest of an image: an image on which nothing is likely is not one of which nothing is known.
    """
    probs = pool.class_probs
    if not probs.size:
        return pool
    shown = probs >= LEAST_SCORE
    shown[np.arange(len(probs)), probs.argmax(axis=1)] = True
    rows, labels = np.nonzero(shown)
    apart = np.zeros((len(rows), probs.shape[1]), dtype=probs.dtype)
    apart[np.arange(len(rows)), labels] = probs[rows, labels]
    ends = np.concatenate([[0], np.cumsum(shown.sum(axis=1))]).astype(np.int64)
    return replace(
        pool,
        offsets=ends[pool.offsets],
        class_probs=apart,
        box_embeddings=None if pool.box_embeddings is None else pool.box_embeddings[rows],
        box_variance=None if pool.box_variance is None else pool.box_variance[rows],
        shape_confidence=None if pool.shape_confidence is None else pool.shape_confidence[rows],
    )


def thumbnail_table(parts: Sequence[ByteArray]) -> ByteArray | None:
    """Return thumbnails as one table: (k, 192) each -> (n, 192); None where one of them is not known."""
    known = [part for part in parts if len(part)]
    if not known:
        return np.zeros((0, 3 * THUMBNAIL_SIDE**2), dtype=np.uint8)
    return np.concatenate(known) if {part.shape[1] for part in known} == {3 * THUMBNAIL_SIDE**2} else None


def _check_finite(name: str, array: FloatArray | None, fix: str) -> None:
    if array is not None and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity{fix}")
