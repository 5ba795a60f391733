"""Shards that were read lately, kept in memory for look-ups of single tasks, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from backend.store.shard_codec import ShardArrays

MOST_BYTES = 64_000_000  # a shard of boxes has 0.5 MB, one of masks some MB; the front of a queue lies in 24 shards

Key = tuple[str, str]  # path and signature of the file, so that a rewritten shard is another one


class OpenedShards:
    """The shards that were used last; one object may serve many threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._shards: OrderedDict[Key, ShardArrays] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, read: Callable[[], ShardArrays]) -> ShardArrays:
        """Return a shard, which `read` reads if it is not in memory. Raises as `read`."""
        with self._lock:
            shard = self._shards.get(key)
            if shard is not None:
                self._shards.move_to_end(key)
                return shard
        shard = read()
        with self._lock:
            if key not in self._shards:
                self._shards[key] = shard
                self._bytes += shard.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._shards.popitem(last=False)
                self._bytes -= oldest.nbytes
        return shard
