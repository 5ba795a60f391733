"""Near-duplicates: images that show the same as another image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.distances import Floats, blocks, by_task, nearest, squared_distances
from backend.acquisition.pool import Pool
from backend.types import ByteArray, FloatArray, IntArray

_CELL = 1024  # usual number of points that near_duplicates compares with each other
_NEAR = 0.3  # near-duplicates lie within this share of the usual distance of two images
_MOST, _FEWEST = 64, 8  # dimensions that images are compared in
_IMAGES = 4  # per dimension, at least; with as many dimensions as images, all images are equally far from each other
SAMPLE = 2_000  # images from which the main directions are computed
_ROUNDING = 1e-5  # a direction with less than this share of the largest deviation is rounding noise


def repeats(pool: Pool, order: IntArray, values: Floats, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which images are near-duplicates of a labeled image, or of one with a higher value: (n,), (n,) -> (n,).

    Rows are in `order`, and so are the `values`. Thumbnails are compared, not embeddings: a model that has learned
    little tells different images apart badly. "Near" is a share of the root mean square distance of two images. If the
    pool is too small or too uniform for that, only exact copies are found.
    """
    thumbnails = pool.columns["thumbnails"][order].astype(np.float32)
    labeled = thumbnails[:0] if pool.labeled_thumbnails is None else pool.labeled_thumbnails.astype(np.float32)
    space, radius = _space(np.concatenate([thumbnails, labeled]), rng)
    points, labeled_points = space[: len(order)], space[len(order) :]
    ranking = np.argsort(-values, kind="stable")
    is_repeated = np.empty(len(order), dtype=np.bool_)
    is_repeated[ranking] = near_duplicates(points[ranking], radius, rng) != np.arange(len(order))
    return np.asarray(is_repeated | (nearest(points, labeled_points) <= radius**2))


def twins(thumbnails: ByteArray, rng: np.random.Generator) -> IntArray:
    """Return the row of the first near-duplicate of each image, or its own: (n, 192) -> (n,); as in `repeats`."""
    space, radius = _space(thumbnails.astype(np.float32), rng)
    return near_duplicates(space, radius, rng)


def _space(thumbnails: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Return points (n, d) for thumbnails, and the distance within which two of them are near-duplicates."""
    white = whitened(thumbnails, rng)
    if white.shape[1] < _FEWEST:
        return thumbnails, 0.0
    return white, _NEAR * float(np.sqrt(2.0 * white.shape[1]))


def set_back(pool: Pool, values: Floats, rng: np.random.Generator) -> npt.NDArray[np.floating[Any]]:
    """Return the values (n,), with those of near-duplicates lowered below all others; see `repeats`."""
    order = by_task(pool)
    is_repeated = np.empty(len(pool), dtype=np.bool_)
    is_repeated[order] = repeats(pool, order, values[order], rng)
    return np.asarray(np.where(is_repeated, values - (values.max() - values.min() + 1), values))


def whitened(points: Floats, rng: np.random.Generator) -> FloatArray:
    """Return points along their main directions, each scaled to variance 1: (n, D) -> (n, d), d ≤ min(64, D, n / 4).

    A few directions hold nearly all variance, such as the brightness of the whole picture. Unscaled, they would decide
    alone: near-copies would lie far apart, and different images close together. Two points are √(2d) apart in the root
    mean square.
    """
    if len(points) < 2:
        return np.zeros((len(points), 0), dtype=np.float32)
    wanted = min(_MOST, points.shape[1], len(points) // _IMAGES)
    sample = points if len(points) <= SAMPLE else points[np.sort(rng.choice(len(points), SAMPLE, replace=False))]
    centre = sample.mean(axis=0, dtype=np.float64)
    lengths, directions = np.linalg.svd(sample - centre, full_matrices=False)[1:]
    is_distinct = lengths[:wanted] > max(_ROUNDING * lengths[0], float(np.finfo(np.float32).tiny))
    scaled = (directions[:wanted][is_distinct] / lengths[:wanted][is_distinct, None] * np.sqrt(len(sample))).T.astype(
        np.float32
    )
    return np.asarray((points - centre.astype(np.float32)) @ scaled, dtype=np.float32)


def near_duplicates(points: Floats, radius: float, rng: np.random.Generator) -> IntArray:
    """Return the leader of each row (n,): the lowest row within about `radius` of it, or the row itself.

    Up to 2,048 points, all pairs are compared. Of more points, only those in one cell around a random pivot are
    compared, twice with different pivots. Copies always share a cell; a pair at about the radius may be missed.

    >>> near_duplicates(np.array([[0.0], [5.0], [0.1], [5.1], [9.0]]), 0.5, np.random.default_rng(0))
    array([0, 1, 0, 1, 4])
    """
    leader = np.arange(len(points))
    for _ in range(2):
        heads = np.flatnonzero(leader == np.arange(len(points)))
        for cell in _cells(points, heads, rng):
            leader[cell] = cell[_leaders(points[cell], radius**2)]
    return np.asarray(leader[leader])


def _cells(points: Floats, rows: IntArray, rng: np.random.Generator) -> list[IntArray]:
    """Return the rows grouped by their nearest pivot, ascending in each group."""
    if len(rows) <= 2 * _CELL:
        return [rows]
    pivots = points[rng.choice(rows, len(rows) // _CELL, replace=False)]
    cell = np.concatenate([squared_distances(points[rows[part]], pivots).argmin(axis=1) for part in blocks(len(rows))])
    ends = np.cumsum(np.bincount(cell, minlength=len(pivots)))[:-1]
    return np.split(rows[np.argsort(cell, kind="stable")], ends)


def _leaders(points: Floats, squared_radius: float) -> IntArray:
    """Return the leader of each row (n,); a row is its own leader unless an earlier leader is within the radius."""
    leader = np.arange(len(points))
    heads = np.zeros(0, dtype=np.int64)
    for part in blocks(len(points), 512):
        left = np.arange(part.start, part.stop)
        if len(heads):
            squares = squared_distances(points[left], points[heads])
            close = squares.min(axis=1) <= squared_radius
            leader[left[close]] = heads[squares[close].argmin(axis=1)]
            left = left[~close]
        near = np.tril(squared_distances(points[left], points[left]) <= squared_radius, -1)
        for row in np.flatnonzero(near.any(axis=1)):  # few: most images have no twin
            earlier = np.flatnonzero(near[row] & (leader[left] == left))
            if len(earlier):
                leader[left[row]] = left[earlier[0]]
        heads = np.concatenate([heads, left[leader[left] == left]])
    return leader
