"""Shards in memory: read once while they are used, and no more bytes than allowed."""

from __future__ import annotations

import io

import numpy as np
import pytest

from backend.errors import BusyError
from backend.store import shard_codec
from backend.store.opened_shards import OpenedShards
from backend.store.shard_codec import PoolShard, ShardArrays


def shard(tasks: int = 4) -> ShardArrays:
    data = shard_codec.encode(PoolShard(0, np.arange(tasks), (None,) * tasks))
    return shard_codec.read(io.BytesIO(data), "a shard")


def fail() -> ShardArrays:
    raise BusyError("pool changed while it was read")


def test_a_shard_is_read_once_and_its_next_version_anew() -> None:
    opened, first, second = OpenedShards(), shard(), shard()
    assert opened.get(("a", "1"), lambda: first) is first
    assert opened.get(("a", "1"), fail) is first
    assert opened.get(("a", "2"), lambda: second) is second
    with pytest.raises(BusyError):
        opened.get(("b", "1"), fail)


def test_those_that_were_not_used_for_longest_make_room() -> None:
    opened, shards = OpenedShards(2 * shard().nbytes), {name: shard() for name in "abc"}
    for name in "abac":
        opened.get((name, ""), lambda name=name: shards[name])  # type: ignore[misc]
    assert opened.get(("a", ""), fail) is shards["a"]
    assert opened.get(("c", ""), fail) is shards["c"]
    with pytest.raises(BusyError):
        opened.get(("b", ""), fail)


def test_a_shard_that_is_larger_than_all_room_is_not_kept() -> None:
    opened = OpenedShards(1)
    opened.get(("a", ""), shard)
    with pytest.raises(BusyError):
        opened.get(("a", ""), fail)
