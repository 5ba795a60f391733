"""The input of a strategy: a pool of unlabeled images as ragged arrays, and a committee's predictions for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from backend.acquisition import columns
from backend.acquisition.columns import Arrays
from backend.types import ByteArray, FloatArray, IntArray

Empty = Literal["lowest", "median", "highest"]
LEAST_SCORE = 0.05  # lowest score of a label in `by_label`, the same as for boxes


@dataclass(frozen=True, slots=True)
class Committee:
    """Predictions of T >= 2 members for the same m anchors, before NMS.

    The anchors of image i are rows offsets[i]:offsets[i + 1]. Member 0 is the reference: the newest version, or the
    model on the unchanged image. Raises ValueError for shapes that do not fit and for values that are not finite.
    """

    offsets: IntArray  # (n + 1,), not those of the pool: anchors are not the boxes that NMS keeps
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

    All other fields are optional; a strategy declares those it `needs`. Raises ValueError for shapes that do not fit,
    NaN and infinity.
    """

    task_ids: IntArray  # (n,)
    offsets: IntArray  # (n + 1,)
    class_probs: FloatArray  # (m, C) sigmoid scores; where `exclusive`, distributions
    columns: Arrays = field(default_factory=dict)  # other predictions: rows of `types.COLUMNS`, as far as known
    class_weights: FloatArray | None = None  # (C,) long-tail weights, None = all 1
    committee: Committee | None = None  # of the same n images
    labeled_embeddings: FloatArray | None = None  # (l, D) of the labeled images, None = not known
    labeled_losses: FloatArray | None = None  # (l,) out of fold, NaN where the model has learned from the image
    labeled_thumbnails: ByteArray | None = None  # (l, 192)
    empty: Empty = "median"  # value of an image without boxes, see `aggregation.fill`
    batch: int = 100  # how many tasks are labeled before the next ranking
    map50: float | None = None  # of the model that scored the pool, None = not known
    exclusive: bool = False  # each row is a distribution over the classes, without the outcome "nothing"

    def __post_init__(self) -> None:
        if self.offsets.shape != (len(self.task_ids) + 1,) or int(self.offsets[-1]) != len(self.class_probs):
            raise ValueError(
                f"offsets {self.offsets.shape} do not fit {len(self.task_ids)} images and {len(self.class_probs)} boxes"
            )
        _check_finite("class_probs", self.class_probs, "; drop those boxes before ranking")
        weights = self.class_weights
        if weights is not None and len(self.class_probs) and weights.shape != self.class_probs.shape[1:]:
            raise ValueError(f"class_weights {weights.shape} do not fit class_probs {self.class_probs.shape}")
        columns.check(self.columns, len(self.task_ids), len(self.class_probs))
        if self.committee is not None and self.committee.offsets.shape != self.offsets.shape:
            raise ValueError(f"a committee on {len(self.committee.offsets) - 1} images does not fit {len(self)}")
        self._check_labeled()
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; it must be 1 or more")
        if self.map50 is not None and not 0.0 <= self.map50 <= 1.0:
            raise ValueError(f"map50 is {self.map50}; it must lie in [0, 1]")

    def _check_labeled(self) -> None:
        for name in ("embeddings", "thumbnails"):
            array, labeled = self.columns.get(name), getattr(self, f"labeled_{name}")
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
        for name in ("class_weights", "labeled_embeddings"):
            _check_finite(name, getattr(self, name), "; leave those images out of the pool")

    def has(self, name: str) -> bool:
        """Return whether this pool has a column or an optional field that a strategy `needs`."""
        return name in self.columns or getattr(self, name, None) is not None

    def __len__(self) -> int:
        return len(self.task_ids)


def by_label(pool: Pool) -> Pool:
    """Split the row of each image into one row per label; each new row has the score of its label, and 0 elsewhere.

    Labels with a score under LEAST_SCORE are left out, as boxes are. The most likely label of an image always stays, so
    that no image is without rows.
    """
    probs = pool.class_probs
    if not probs.size:
        return pool
    is_shown = probs >= LEAST_SCORE
    is_shown[np.arange(len(probs)), probs.argmax(axis=1)] = True
    rows, labels = np.nonzero(is_shown)
    split = np.zeros((len(rows), probs.shape[1]), dtype=probs.dtype)
    split[np.arange(len(rows)), labels] = probs[rows, labels]
    ends = np.concatenate([[0], np.cumsum(is_shown.sum(axis=1))]).astype(np.int64)
    return replace(
        pool,
        offsets=ends[pool.offsets],
        class_probs=split,
        columns=columns.select_rows(pool.columns, rows),
    )


def _check_finite(name: str, array: FloatArray | None, fix: str) -> None:
    if array is not None and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity{fix}")
