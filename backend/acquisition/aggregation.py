"""From values of boxes to one value per image, on ragged arrays: boxes of image i are offsets[i]:offsets[i + 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backend.types import FloatArray, IntArray, Pool, Prediction

Empty = Literal["lowest", "median", "highest"]


def pool_of(task_ids: IntArray, predictions: Sequence[Prediction | None], class_weights: FloatArray | None) -> Pool:
    """Return the pool of the tasks that could be scored, those with a prediction: k tasks -> n <= k images."""
    found = [prediction for prediction in predictions if prediction is not None]
    ids = [
        task_id for task_id, prediction in zip(task_ids.tolist(), predictions, strict=True) if prediction is not None
    ]
    offsets = np.cumsum([0, *(len(prediction.class_probs) for prediction in found)], dtype=np.int64)
    boxes = [prediction.class_probs for prediction in found if len(prediction.class_probs)]
    probs = np.concatenate(boxes) if boxes else np.zeros((0, 0), dtype=np.float32)
    embeddings = np.stack([prediction.embedding for prediction in found]) if found else None
    return Pool(np.array(ids, dtype=np.int64), offsets, probs, embeddings, class_weights)


def top_sum(
    values: npt.NDArray[np.floating[Any]], offsets: IntArray, *, k: int = 10, empty: Empty = "median"
) -> npt.NDArray[np.float64]:
    """Return the sum of the k largest box values of each image: (m,), (n + 1,) -> (n,).

    The cut at k keeps crowded images from winning by their count alone. `empty` says what an image without boxes gets:
    the lowest, the median or the highest value of the images that have some (0 where none has). The median is the
    default: "nothing found" means "unknown" to a cold model and "background" to a good one.

    >>> top_sum(np.array([.1, .6, .2, .5]), np.array([0, 3, 3, 4]), k=2)
    array([0.8 , 0.65, 0.5 ])
    """
    counts = np.diff(offsets)
    image = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((-values, image))  # images stay in place, largest value first within each
    kept = order[np.arange(len(values)) - np.repeat(offsets[:-1], counts) < k]
    sums = np.bincount(image[kept], weights=values[kept], minlength=len(counts)).astype(np.float64, copy=False)
    found = counts > 0
    if found.any() and not found.all():
        sums[~found] = np.quantile(sums[found], {"lowest": 0.0, "median": 0.5, "highest": 1.0}[empty])
    return sums
