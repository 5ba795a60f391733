"""Random selection, the baseline of every other strategy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.types import IntArray


@acquisition(
    "random",
    asks="nothing: chance decides",
    cost="one hash per image",
    paper="the control of every study",
    when="the labels must stand for the whole pool, or to see what another strategy gains",
)
def uniform(pool: Pool, rng: np.random.Generator) -> Values:
    """Return one uniform draw in [0, 1) per image (n,).

    The value depends only on the generator's state and the task id, so a task scored alone gets its value in the pool.
    """
    salt = int(rng.integers(2**63))
    return (dice(pool.task_ids, salt) >> np.uint64(11)) * 2.0**-53


def dice(task_ids: IntArray, salt: int = 0) -> npt.NDArray[np.uint64]:
    """Return a pseudo-random 64-bit number per task id (n,), always the same for the same id and salt.

    Source: the finaliser of splitmix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014).
    """
    z = (task_ids.astype(np.uint64) ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
