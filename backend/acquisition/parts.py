"""Parts of a pool, or of a committee's predictions for it: some of its images, as a pool of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backend.acquisition.columns import select_rows
from backend.acquisition.pool import Committee, Pool
from backend.types import IntArray


def ragged(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the boxes of the images `rows` (m',), and the offsets of these boxes (len(rows) + 1,).

    >>> ragged(np.array([0, 2, 3, 6]), np.array([2, 0]))
    (array([3, 4, 5, 0, 1]), array([0, 3, 5]))
    """
    counts = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(ends[-1]) + np.repeat(offsets[:-1][rows] - ends[:-1], counts), ends


def pool_part(pool: Pool, rows: IntArray) -> Pool:
    """Return the pool of the images `rows` only, in this order."""
    boxes, offsets = ragged(pool.offsets, rows)
    return replace(
        pool,
        task_ids=pool.task_ids[rows],
        offsets=offsets,
        class_probs=pool.class_probs[boxes],
        columns=select_rows(pool.columns, boxes, rows),
        committee=None if pool.committee is None else committee_part(pool.committee, rows),
    )


def committee_part(committee: Committee, rows: IntArray) -> Committee:
    """Return the committee's predictions for the images `rows` only, in this order."""
    anchors, offsets = ragged(committee.offsets, rows)
    variance = committee.member_variance
    return Committee(
        offsets,
        committee.member_probs[:, anchors],
        committee.member_boxes[:, anchors],
        None if variance is None else variance[:, anchors],
    )
