"""The scored pools and rankings of the versions of a project, by project, version number and control tag.

Number 0 is the base model, and `tag` is a control tag's name in the store. With `labeled`, a method reads or writes the
predictions for tasks that had labels already, otherwise those for the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from backend.acquisition.pool import Committee, Pool
from backend.storage import Files
from backend.store.paths import LABELED, scored_folder, version_folder, version_folders
from backend.store.pool_store import PoolStore
from backend.store.shard_codec import PoolShard, ShardArrays
from backend.types import BoolArray, Column, FloatArray, IntArray, Prediction, Ranking

NO_SOURCES: Mapping[int, int] = MappingProxyType({})


class ScoredPools:
    """The predictions of each version for the pool and for labeled tasks, its committee's votes, and its rankings."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._pools = PoolStore(files)

    def save_shard(self, project_id: int, number: int, shard: PoolShard, *, labeled: bool = False, tag: str) -> None:
        """Write one scored shard, replacing the shard with the same index."""
        self._pools.save_shard(scored_folder(project_id, number, tag, labeled=labeled), shard)

    def save_votes(
        self, project_id: int, number: int, index: int, task_ids: IntArray, votes: Committee, *, tag: str
    ) -> None:
        """Write a committee's predictions for one shard of the pool."""
        self._pools.save_votes(scored_folder(project_id, number, tag), index, task_ids, votes)

    def votes(self, project_id: int, number: int, *, tag: str) -> Iterator[tuple[IntArray, Committee]]:
        """Yield the tasks (k,) and the votes of each shard. Raises ModelError naming a damaged file."""
        return self._pools.votes(scored_folder(project_id, number, tag))

    def has_votes(self, project_id: int, number: int, *, tag: str) -> bool:
        """Return whether a committee has voted on the pool."""
        return self._pools.has_votes(scored_folder(project_id, number, tag))

    def next_shard(self, project_id: int, number: int, *, labeled: bool = False, tag: str) -> int:
        """Return an index above those of all stored shards."""
        return self._pools.next_shard(scored_folder(project_id, number, tag, labeled=labeled))

    def clear(self, project_id: int, number: int) -> None:
        """Delete a version's predictions for the pool and for labeled tasks, its votes and its rankings."""
        for folder in version_folders(self._files, project_id, number):
            self._pools.clear(folder)
            self._pools.clear(f"{folder}/{LABELED}")

    def load_pool(
        self,
        project_id: int,
        number: int,
        class_weights: FloatArray | None,
        *,
        needs: frozenset[str] = frozenset(),
        labeled: bool = False,
        tag: str,
    ) -> tuple[Pool, tuple[int, ...]]:
        """Return the scored tasks as a pool, each task once, and the ids of the tasks that failed.

        The pool has the columns that every pool has, and those that a strategy `needs`. If several shards hold a task,
        the one written last counts. Raises ModelError naming a damaged shard, BusyError if the pool is rewritten
        meanwhile.
        """
        folder = scored_folder(project_id, number, tag, labeled=labeled)
        return self._pools.load_pool(folder, class_weights, needs)

    def shards(self, project_id: int, number: int, *, labeled: bool = False, tag: str) -> Iterator[PoolShard]:
        """Yield the scored tasks shard by shard, each task once. Raises as `load_pool`."""
        return self._pools.shards(scored_folder(project_id, number, tag, labeled=labeled))

    def parts(
        self, project_id: int, number: int, columns: Sequence[Column], *, labeled: bool = False, tag: str
    ) -> Iterator[tuple[ShardArrays, BoolArray]]:
        """Yield the arrays of each shard, with these columns, and which of its tasks count. Raises as `load_pool`."""
        folder = scored_folder(project_id, number, tag, labeled=labeled)
        return ((arrays, counted) for _, arrays, counted in self._pools.parts(folder, columns))

    def prediction(
        self,
        project_id: int,
        number: int,
        task_id: int,
        source: int | None = None,
        *,
        labeled: bool = False,
        tag: str,
    ) -> Prediction | None:
        """Return the stored prediction for a task, None if it was not scored or failed. Raises as `load_pool`.

        `source` is what the task shows now. If the task showed something else when it was scored, the result is None. A
        `source` of None matches any.
        """
        place = self._pools.find(scored_folder(project_id, number, tag, labeled=labeled), task_id, source)
        if place is None:
            return None
        shard, row = place
        return shard.prediction(row)

    def predictions(
        self,
        project_id: int,
        number: int,
        task_ids: Iterable[int],
        sources: Mapping[int, int] = NO_SOURCES,
        *,
        labeled: bool = False,
        tag: str,
    ) -> Iterator[tuple[int, Prediction]]:
        """Yield the stored predictions of many tasks, by the rules of `prediction`; each shard is read once."""
        return self._pools.of_tasks(scored_folder(project_id, number, tag, labeled=labeled), task_ids, sources)

    def sources(self, project_id: int, number: int, *, labeled: bool = False, tag: str) -> dict[int, int]:
        """Return the source of each stored prediction by task id, including tasks that failed; 0: not known."""
        return self._pools.sources(scored_folder(project_id, number, tag, labeled=labeled))

    def written(self, project_id: int, number: int, *, labeled: bool = False, tag: str) -> list[tuple[int, IntArray]]:
        """Return when each shard was written, in ns since 1970, and the ids of its tasks (k,)."""
        return self._pools.written(scored_folder(project_id, number, tag, labeled=labeled))

    def save_ranking(self, project_id: int, number: int, ranking: Ranking, *, tag: str | None = None) -> None:
        """Write a version's ranking, or with `tag` that of one tag among several, replacing the one before."""
        self._pools.save_ranking(_ranking_folder(project_id, number, tag), ranking)

    def ranking(self, project_id: int, number: int, *, tag: str | None = None) -> Ranking | None:
        """Return a version's ranking, or with `tag` one tag's; None without one. Raises ModelError if damaged."""
        return self._pools.ranking(_ranking_folder(project_id, number, tag))


def _ranking_folder(project_id: int, number: int, tag: str | None) -> str:
    return version_folder(project_id, number) if tag is None else scored_folder(project_id, number, tag)
