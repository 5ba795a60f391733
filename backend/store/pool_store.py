"""Scored pools and rankings as npz files, by folder, with indexes and recently used shards in memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from backend.acquisition.columns import Filling, gathered, pooled
from backend.acquisition.pool import Committee, Pool
from backend.errors import BusyError
from backend.storage import Files
from backend.store import shard_codec
from backend.store.npz import load_arrays
from backend.store.opened_shards import OpenedShards
from backend.store.shard_codec import OF_PREDICTIONS, PoolShard, ShardArrays, ShardHeader
from backend.types import BoolArray, Column, FloatArray, IntArray, Prediction, Ranking

_REMEMBERED = 8  # indexes and rankings kept in memory for look-ups
_NO_IDS = np.zeros(0, dtype=np.int64)
_OF_LATE_TASKS = ("late",)  # missing in rankings without late tasks, and of earlier releases
_RANKING = ("task_ids", "priority", "acquisition", "explored", "strategy")

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Index:
    """The place of each task of a pool; if several shards hold a task, the shard with the highest index counts."""

    stamp: object  # of the folder; None: list the folder again next time
    signatures: dict[str, str]  # shard file -> signature
    headers: dict[str, ShardHeader]  # ordered by shard index; the clock may be set back
    is_newest: dict[str, BoolArray]  # which rows of each shard count: those that no later shard holds
    task_ids: IntArray  # (n,) sorted
    rows: IntArray  # (n,) row of each task in the concatenated shards

    def find(self, task_id: int) -> tuple[str, int] | None:
        """Return the shard file and the row of a task, None if no shard holds it."""
        place = int(np.searchsorted(self.task_ids, task_id))
        if place == len(self.task_ids) or self.task_ids[place] != task_id:
            return None
        row = int(self.rows[place])
        for name, header in self.headers.items():
            if row < len(header.task_ids):
                return name, row
            row -= len(header.task_ids)
        return None


class PoolStore:
    """Reads and writes pools; one object may serve many threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, Index] = OrderedDict()
        self._opened = OpenedShards()
        self._rankings: OrderedDict[str, tuple[object, Ranking | None]] = OrderedDict()

    def save_shard(self, folder: str, shard: PoolShard) -> None:
        """Write one shard, replacing the shard with the same index."""
        self._files.write(f"{folder}/pool-{shard.index:06d}.npz", shard_codec.encode(shard))
        self._invalidate(folder)

    def next_shard(self, folder: str) -> int:
        """Return an index above those of all stored shards."""
        return max((int(name[5:-4]) for name in self._shard_files(folder)), default=-1) + 1

    def clear(self, folder: str) -> None:
        """Delete the shards, the votes and the ranking in a folder."""
        for name in ("ranking.npz", *self._shard_files(folder), *self._shard_files(folder, "votes-")):
            self._files.remove(f"{folder}/{name}")
        self._invalidate(folder)

    def save_votes(self, folder: str, index: int, task_ids: IntArray, votes: Committee) -> None:
        """Write the predictions of a committee for one shard."""
        self._files.write(f"{folder}/votes-{index:06d}.npz", shard_codec.encode_votes(task_ids, votes))

    def votes(self, folder: str) -> Iterator[tuple[IntArray, Committee]]:
        """Yield the tasks and the votes of each shard that has some."""
        for name in sorted(self._shard_files(folder, "votes-")):
            path = f"{folder}/{name}"
            with self._files.open(path) as file:
                yield shard_codec.read_votes(file, self._files.where(path))

    def has_votes(self, folder: str) -> bool:
        """Return whether a shard has votes, without reading them."""
        return bool(self._shard_files(folder, "votes-"))

    def load_pool(
        self, folder: str, class_weights: FloatArray | None, needs: frozenset[str] = frozenset()
    ) -> tuple[Pool, tuple[int, ...]]:
        """Return the scored tasks as a pool, and the ids of the tasks that failed; see `ScoredPools.load_pool`."""
        index = self._index(folder)
        scored = {name: is_newest & ~index.headers[name].failed for name, is_newest in index.is_newest.items()}
        failed = [header.task_ids[index.is_newest[name] & header.failed] for name, header in index.headers.items()]
        counts = [np.diff(header.offsets)[scored[name]] for name, header in index.headers.items()]
        offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
        ids = np.concatenate([_NO_IDS, *(header.task_ids[scored[name]] for name, header in index.headers.items())])
        # The arrays are filled shard by shard, so that the pool is in memory only once.
        classes = max((header.classes for header in index.headers.values()), default=0)
        probs = np.empty((int(offsets[-1]), classes), dtype=np.float32)
        wanted, rows = pooled(needs), {"image": len(ids), "box": len(probs)}
        fillings = {column: Filling(column, rows[column.per]) for column in wanted}
        row = 0
        for name, is_scored in scored.items():
            end = row + int(is_scored.sum())
            if row < end:
                arrays = self._read(folder, name, index.headers[name], wanted)
                boxes = np.repeat(is_scored, np.diff(arrays.header.offsets))
                probs[offsets[row] : offsets[end]] = _probs(arrays, boxes, classes)
                for column, filling in fillings.items():
                    if column.per == "image" or boxes.any():
                        filling.add(arrays.part(column, is_scored))
            row = end
        columns = gathered({column.table: filling.array() for column, filling in fillings.items()})
        return Pool(ids, offsets, probs, columns, class_weights), tuple(np.concatenate([_NO_IDS, *failed]).tolist())

    def parts(
        self, folder: str, columns: Sequence[Column] = OF_PREDICTIONS
    ) -> Iterator[tuple[int, ShardArrays, BoolArray]]:
        """Yield the index and the arrays of each shard, and which of its tasks count."""
        index = self._index(folder)
        for name, is_newest in index.is_newest.items():
            if is_newest.any():
                yield int(name[5:-4]), self._read(folder, name, index.headers[name], columns), is_newest

    def shards(self, folder: str) -> Iterator[PoolShard]:
        """Yield the scored tasks shard by shard, each task once."""
        for number, arrays, is_newest in self.parts(folder):
            rows = np.flatnonzero(is_newest)
            yield PoolShard(number, arrays.header.task_ids[rows], tuple(arrays.prediction(int(row)) for row in rows))

    def of_tasks(
        self, folder: str, task_ids: Iterable[int], sources: Mapping[int, int]
    ) -> Iterator[tuple[int, Prediction]]:
        """Yield the stored predictions of some tasks, reading each shard once; `sources` as in `find`."""
        index, wanted = self._index(folder), np.array(list(task_ids), dtype=np.int64)
        for name, is_newest in index.is_newest.items():
            header = index.headers[name]
            rows = np.flatnonzero(is_newest & ~header.failed & np.isin(header.task_ids, wanted))
            arrays = self._shard(folder, name, index) if len(rows) else None
            for row in rows.tolist():
                task_id = int(header.task_ids[row])
                prediction = (
                    arrays.prediction(row) if arrays and _has_source(header, row, sources.get(task_id)) else None
                )
                if prediction is not None:
                    yield task_id, prediction

    def sources(self, folder: str) -> dict[int, int]:
        """Return the source of each stored prediction by task id, including tasks that failed."""
        index = self._index(folder)
        pairs = (
            (index.headers[name].task_ids[is_newest], index.headers[name].sources[is_newest])
            for name, is_newest in index.is_newest.items()
        )
        return {
            task: source for ids, sources in pairs for task, source in zip(ids.tolist(), sources.tolist(), strict=True)
        }

    def written(self, folder: str) -> list[tuple[int, IntArray]]:
        """Return when each shard was written, in ns since 1970, and the ids of its tasks that count (k,)."""
        index = self._index(folder)
        return [
            (index.headers[name].written, index.headers[name].task_ids[is_newest])
            for name, is_newest in index.is_newest.items()
        ]

    def find(self, folder: str, task_id: int, source: int | None = None) -> tuple[ShardArrays, int] | None:
        """Return the shard and the row of a task; None if it is not stored, or if its source differs from this one."""
        index = self._index(folder)
        place = index.find(task_id)
        if place is None:
            return None
        name, row = place
        if not _has_source(index.headers[name], row, source):
            return None
        try:
            return self._shard(folder, name, index), row
        except BusyError:
            return None  # it was replaced meanwhile; the caller predicts the task itself

    def save_ranking(self, folder: str, ranking: Ranking) -> None:
        """Write the ranking, replacing the one before."""
        buffer = io.BytesIO()
        names = (*_RANKING, *(() if ranking.late is None else _OF_LATE_TASKS))
        np.savez(buffer, allow_pickle=False, **{name: np.asarray(getattr(ranking, name)) for name in names})
        self._files.write(f"{folder}/ranking.npz", buffer.getvalue())
        self._invalidate(folder)

    def ranking(self, folder: str) -> Ranking | None:
        """Return the stored ranking, None without one. Raises ModelError for a damaged file."""
        path = f"{folder}/ranking.npz"
        stamp = self._files.stamp(path)
        cached = self._rankings.get(folder)
        if cached is not None and stamp is not None and cached[0] == stamp:
            return cached[1]
        ranking = self._read_ranking(path)
        self._remember(self._rankings, folder, (stamp, ranking))
        return ranking

    def _read_ranking(self, path: str) -> Ranking | None:
        try:
            file = self._files.open(path)
        except FileNotFoundError:
            return None
        with file:
            fix = "delete this file and score the project again"
            arrays = load_arrays(file, self._files.where(path), _RANKING, fix, optional=_OF_LATE_TASKS)
        columns = {name: array for name, array in arrays.items() if name != "strategy"}
        return Ranking(**columns, strategy=str(arrays["strategy"]))

    def _shard_files(self, folder: str, kind: str = "pool-") -> dict[str, str]:
        entries = self._files.entries(folder).items()
        return {name: mark for name, mark in entries if name.startswith(kind) and name.endswith(".npz")}

    def _shard(self, folder: str, name: str, index: Index) -> ShardArrays:
        """Return a shard that the index describes, from memory if it is there. Raises as `_read`."""
        return self._opened.get(
            (f"{folder}/{name}", index.signatures[name]), lambda: self._read(folder, name, index.headers[name])
        )

    def _read(
        self, folder: str, name: str, expected: ShardHeader, columns: Sequence[Column] = OF_PREDICTIONS
    ) -> ShardArrays:
        """Read a shard that the index describes. Raises BusyError if it was replaced or deleted meanwhile."""
        path = f"{folder}/{name}"
        try:
            with self._files.open(path) as file:
                arrays = shard_codec.read(file, self._files.where(path), columns)
        except FileNotFoundError:
            arrays = None
        if arrays is None or arrays.header.written != expected.written:
            raise BusyError("pool changed while it was read", where=self._files.where(path), fix="try again")
        return arrays

    def _index(self, folder: str) -> Index:
        """Return the index of a folder, reading the headers of new and changed shards only."""
        stamp = self._files.stamp(folder)  # before the listing, so that a later change shows
        cached = self._indexes.get(folder)
        if cached is not None and stamp is not None and cached.stamp == stamp:
            return cached
        signatures = self._shard_files(folder)
        if cached is not None and cached.signatures == signatures:
            index = replace(cached, stamp=stamp)
        else:
            headers = self._headers(folder, signatures, cached)
            index = _index_of(stamp, {name: signatures[name] for name in headers}, headers)
        self._remember(self._indexes, folder, index)
        return index

    def _invalidate(self, folder: str) -> None:
        """Invalidate the cached index and ranking of a folder: the stamp of a remote folder only follows the clock."""
        with self._lock:
            self._rankings.pop(folder, None)
            if folder in self._indexes:
                self._indexes[folder] = replace(self._indexes[folder], stamp=None)

    def _remember(self, cache: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            cache[key] = value
            cache.move_to_end(key)
            while len(cache) > _REMEMBERED:
                cache.popitem(last=False)

    def _headers(self, folder: str, signatures: dict[str, str], cached: Index | None) -> dict[str, ShardHeader]:
        headers = {}
        for name, signature in signatures.items():
            if cached is not None and cached.signatures.get(name) == signature:
                headers[name] = cached.headers[name]
                continue
            try:
                with self._files.open(f"{folder}/{name}") as file:
                    headers[name] = shard_codec.read_header(file, self._files.where(f"{folder}/{name}"))
            except FileNotFoundError:
                continue  # cleared while we look
        return dict(sorted(headers.items()))


def _has_source(header: ShardHeader, row: int, source: int | None) -> bool:
    """Return whether a stored prediction has this source; an unknown source matches any."""
    stored = int(header.sources[row])
    return source is None or stored in (0, source)


def _index_of(stamp: object, signatures: dict[str, str], headers: dict[str, ShardHeader]) -> Index:
    ids = np.concatenate([_NO_IDS, *(header.task_ids for header in headers.values())])
    unique, from_the_end = np.unique(ids[::-1], return_index=True)
    rows = len(ids) - 1 - from_the_end
    is_newest = np.zeros(len(ids), dtype=np.bool_)
    is_newest[rows] = True
    ends = np.cumsum([len(header.task_ids) for header in headers.values()], dtype=np.int64)
    by_shard = dict(zip(headers, np.split(is_newest, ends[:-1]), strict=True)) if headers else {}
    return Index(stamp, signatures, headers, by_shard, unique, rows)


def _probs(arrays: ShardArrays, boxes: BoolArray, classes: int) -> FloatArray:
    """Return the class probabilities of some boxes; a shard without boxes may not know the number of classes."""
    probs = arrays.class_probs[boxes]
    return probs if len(probs) else np.zeros((0, classes), dtype=np.float32)
