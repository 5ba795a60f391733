"""Maps of pools for tests, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.evaluation.pool_map import PoolMap
from backend.types import IntArray


def pool_map(task_ids: Sequence[int] | IntArray, names: tuple[str, ...], labeled: int = 3) -> PoolMap:
    """Return a map on which the images lie on a spiral; the second image repeats the first, the last one is odd."""
    ids = np.asarray(task_ids, dtype=np.int64)
    count = len(ids)
    turn = np.linspace(0, 12, count)
    places = (np.stack([np.cos(turn), np.sin(turn)], axis=1) * (turn + 1)[:, None]).astype(np.float32)
    classes = np.arange(count) % (len(names) + 1) - 1
    twins, oddness = ids.copy(), np.full(count, 0.5, np.float32)
    if count > 1:
        twins[1], oddness[-1] = ids[0], 2.5
    boxes = np.repeat(np.arange(count), 2)[:1000]
    return PoolMap(
        task_ids=ids,
        places=places,
        labeled=np.arange(count) < labeled,
        classes=classes,
        uncertainty=np.where(classes < 0, np.nan, np.linspace(0, 1, count)).astype(np.float32),
        twins=twins,
        oddness=oddness,
        box_tasks=ids[boxes],
        box_places=places[boxes] + np.float32(0.1),
        box_classes=np.abs(classes[boxes]),
        box_confidence=np.full(len(boxes), 0.7, np.float32),
        names=names,
        pool_counts=np.arange(len(names)) + 1,
        explained=0.42,
    )
