"""A map of a pool: every image as a point in the plane, and which images are near-duplicates or do not belong.

The plane is that of the two main directions of the embeddings (principal component analysis). It needs no random
start, so the map of a version is always the same. All distances are taken block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.acquisition.distances import Floats, blocks, squared_distances
from backend.acquisition.random import dice
from backend.types import BoolArray, FloatArray, IntArray

NEIGHBOURS = 5  # an image whose fifth neighbour is far away does not belong; copies of it do not hide it
REFERENCES = 2_000  # images among which neighbours are looked for, so that 100,000 images take seconds
FEWEST_JUDGED = 20  # with fewer images nothing is called odd


@dataclass(frozen=True, slots=True)
class PoolMap:
    """The map of n images and b of their boxes, by one model; all arrays have one row per image or per box."""

    task_ids: IntArray  # (n,) ascending
    places: FloatArray  # (n, 2)
    labeled: BoolArray  # (n,) when the pool was scored
    classes: IntArray  # (n,) of the most confident box, as an index of `names`; -1: no box
    uncertainty: FloatArray  # (n,) of the most uncertain box, in [0, 1]; NaN: no box
    twins: IntArray  # (n,) task id of the first near-duplicate, or its own
    oddness: FloatArray  # (n,) distance to the NEIGHBOURS-th neighbour as a share of the fence; above 1: odd
    box_tasks: IntArray  # (b,)
    box_places: FloatArray  # (b, 2)
    box_classes: IntArray  # (b,)
    box_confidence: FloatArray  # (b,)
    names: tuple[str, ...]  # of the classes
    pool_counts: IntArray  # (C,) predicted boxes of each class on unlabeled images
    explained: float  # share of the variance of the embeddings that the plane shows

    def __len__(self) -> int:
        return len(self.task_ids)


def plane(points: Floats) -> tuple[FloatArray, float]:
    """Return the coordinates (n, 2) of points (n, D) along their two main directions, and the share of the variance.

    The largest component of each direction is positive, so that the map is not mirrored by chance. Fewer than two
    directions leave zeros.

    >>> places, explained = plane(np.array([[0.0, 0, 1], [3, 0, 1], [6, 0, 1]]))
    >>> places.round(2).tolist(), round(explained, 2)
    ([[-3.0, 0.0], [0.0, 0.0], [3.0, 0.0]], 1.0)
    """
    n, dimensions = points.shape
    places = np.zeros((n, 2), dtype=np.float32)
    if n < 2 or not dimensions:
        return places, 0.0
    centre = sum((points[rows].sum(axis=0, dtype=np.float64) for rows in blocks(n)), np.zeros(dimensions)) / n
    spread = np.zeros((dimensions, dimensions))
    for rows in blocks(n):
        part = points[rows] - centre
        spread += part.T @ part
    values, vectors = np.linalg.eigh(spread)
    total = float(values.sum())
    if total <= 0:
        return places, 0.0
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    for rows in blocks(n):
        places[rows, : axes.shape[1]] = (points[rows] - centre) @ axes
    return places, float(values[::-1][:2].sum() / total)


def oddness(points: Floats, task_ids: IntArray) -> FloatArray:
    """Return how far each point (n, D) is from its neighbours, as a share of the outer fence (n,); above 1 is odd.

    The distance is that to the NEIGHBOURS-th nearest of REFERENCES points, which a hash of the task id draws. The
    fence is the upper quartile plus three times the distance of the quartiles (Tukey, 1977).
    """
    drawn = np.sort(np.argsort(dice(task_ids), kind="stable")[:REFERENCES])
    if len(points) < FEWEST_JUDGED:
        return np.zeros(len(points), dtype=np.float32)
    distances = np.empty(len(points), dtype=np.float32)
    for rows in blocks(len(points)):
        squares = squared_distances(points[rows], points[drawn])
        own = np.searchsorted(drawn, np.arange(rows.start, rows.stop)).clip(max=len(drawn) - 1)
        is_drawn = drawn[own] == np.arange(rows.start, rows.stop)
        squares[np.flatnonzero(is_drawn), own[is_drawn]] = np.inf
        distances[rows] = np.sqrt(np.partition(squares, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1])
    low, high = np.percentile(distances, [25, 75])
    fence = high + 3 * (high - low)
    return np.asarray(distances / fence if fence > 0 else np.zeros_like(distances), dtype=np.float32)


def drawn_boxes(task_ids: IntArray, places: IntArray, limit: int) -> BoolArray:
    """Return which boxes of a part of the pool stay (b,): those with the `limit` lowest hashes of task and place.

    So the boxes of a pool are the same whatever the parts it comes in.
    """
    hashes = dice(task_ids * 1_000 + places)
    stays = np.zeros(len(task_ids), dtype=np.bool_)
    stays[np.argsort(hashes, kind="stable")[:limit]] = True
    return stays
