"""Control tasks: a small random share of the queue that is handed out without pre-annotation.

Only by them can we tell what pre-annotation saves, see `evaluation.effort`.
"""

from __future__ import annotations

import numpy as np

from backend.acquisition.random import dice
from backend.types import Ranking

_SALT = 0x626C616E6B  # another draw than that of explored tasks, which uses 0


def blank_tasks(order: Ranking, share: float, number: int) -> frozenset[int]:
    """Return the ids of the tasks that version `number` hands out without its regions: `share` of the explored ones.

    A hash of the task id and the version decides, so a ranking made again gives the same tasks.

    >>> ids = np.arange(2000)
    >>> order = Ranking(ids, ids / 1999, ids / 1999, ids < 1000, "random")
    >>> drawn = blank_tasks(order, 0.1, 1)
    >>> 70 < len(drawn) < 130, max(drawn) < 1000, drawn == blank_tasks(order, 0.1, 2)
    (True, True, False)
    """
    explored = order.task_ids[order.explored]
    uniform = (dice(explored, _SALT + number) >> np.uint64(11)) * 2.0**-53
    return frozenset(explored[uniform < share].tolist())
