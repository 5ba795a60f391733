"""Distances of embeddings, shared by the strategies on diversity and density. Rows are points, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.pool import Pool
from backend.types import FloatArray, IntArray

Floats = npt.NDArray[np.floating[Any]]
_BLOCK = 256  # rows of a distance matrix at a time; larger matrices leave the processor's cache
_SAME = 1e-6  # squared distances below this share of the squared lengths are rounding


def unit(vectors: Floats) -> FloatArray:
    """Return the rows at length 1: (n, D) -> (n, D); a row of zeros stays as it is.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0)[:, None].astype(np.float32), dtype=np.float32)


def half_spread(points: Floats) -> float:
    """Return half the mean squared distance of two points drawn from (n, D): mean |x|² − |mean x|², at least 1e-6.

    This is the natural scale of a kernel: about 1 for unit vectors in all directions, and small if all images are
    alike.

    >>> half_spread(np.array([[0.0], [2.0]]))
    1.0
    """
    if not len(points):
        return 1.0
    centre = points.mean(axis=0, dtype=np.float64)
    return max(float(np.einsum("ij,ij->", points, points, dtype=np.float64) / len(points) - centre @ centre), 1e-6)


def squared_distances(x: Floats, y: Floats) -> FloatArray:
    """Return the squared distances of each x to each y: (a, D), (b, D) -> (a, b); rounding errors are set to 0.

    >>> squared_distances(np.array([[0.0], [1.0]]), np.array([[3.0], [1.0]]))
    array([[9., 1.],
           [4., 0.]], dtype=float32)
    """
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    x_lengths, y_lengths = squared_lengths(x), squared_lengths(y)
    squares = np.asarray(x @ y.T, dtype=np.float32)
    squares *= -2.0
    squares += np.add.outer(x_lengths, y_lengths)
    if squares.size:  # few rows have a distance that may be rounding, and only these are looked at again
        rows = np.flatnonzero(squares.min(axis=1) < 2 * _SAME * (x_lengths + y_lengths.max()))
        squares[rows] = _without_rounding(squares[rows], np.add.outer(x_lengths[rows], y_lengths))
    return squares


def squared_lengths(points: FloatArray) -> FloatArray:
    """Return |x|² of each row (n,)."""
    return np.asarray(np.einsum("ij,ij->i", points, points))


def from_products(products: FloatArray, lengths: FloatArray) -> FloatArray:
    """Return |x|² + |y|² − 2xy of any shape, computed in place in the array of the products xy."""
    products *= -2.0
    products += lengths
    return _without_rounding(products, lengths)


def _without_rounding(squares: FloatArray, lengths: FloatArray) -> FloatArray:
    """Set the squared distances to 0 that are rounding errors, in place."""
    squares[squares < lengths * np.float32(_SAME)] = 0.0
    return squares


def nearest(x: Floats, y: Floats) -> FloatArray:
    """Return the squared distance of each x to the nearest y: (a, D), (b, D) -> (a,), infinite without any y.

    >>> nearest(np.array([[0.0], [1.0]]), np.array([[3.0], [1.0]]))
    array([1., 0.], dtype=float32)
    """
    least = np.full(len(x), np.inf, dtype=np.float32)
    for columns in blocks(len(y)):
        for rows in blocks(len(x)):
            np.minimum(least[rows], squared_distances(x[rows], y[columns]).min(axis=1), out=least[rows])
    return least


def blocks(n: int, size: int = _BLOCK) -> Iterator[slice]:
    """Yield slices that cover n rows, so that no matrix over all rows is in memory."""
    for begin in range(0, n, size):
        yield slice(begin, min(begin + size, n))


def by_task(pool: Pool) -> IntArray:
    """Return the rows of a pool in the order of their task ids (n,).

    Greedy strategies pick in this order. So the picks do not depend on the order of the pool, which would change
    rounding and ties.
    """
    return np.argsort(pool.task_ids, kind="stable")


def units(pool: Pool, order: IntArray) -> FloatArray:
    """Return the pool's embeddings at length 1 in that order (n, D)."""
    return unit(pool.columns["embeddings"][order])


def labeled_units(pool: Pool) -> FloatArray:
    """Return the embeddings of labeled images at length 1 (l, D), l = 0 where they are not known."""
    if pool.labeled_embeddings is None or not len(pool.labeled_embeddings):
        return np.zeros((0, pool.columns["embeddings"].shape[1]), dtype=np.float32)
    return unit(pool.labeled_embeddings)


def places(order: IntArray, picks: IntArray, tail_values: Floats) -> npt.NDArray[np.float64]:
    """Return n for the first pick, n − 1 for the second, ...; then come the other rows, by falling `tail_values`.

    `picks` (b,) and `tail_values` (n,) index rows in the order (n,) of `by_task`; the result (n,) is in pool order.

    >>> places(np.array([2, 0, 1]), np.array([1]), np.array([0.1, 0.0, 0.7]))
    array([3., 2., 1.])
    """
    n = len(order)
    is_left = np.ones(n, dtype=np.bool_)
    is_left[picks] = False
    others = np.flatnonzero(is_left)
    sequence = np.concatenate([picks, others[np.argsort(-tail_values[others], kind="stable")]])
    values = np.empty(n, dtype=np.float64)
    values[order[sequence]] = n - np.arange(n)
    return values
