"""Locks during outages of a real redis: two holders never work at once, and a single holder is never stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from backend.errors import BusyError
from backend.loop import locks as module
from backend.loop.locks import Fence, Locks
from backend.queue import run_state
from backend.queue.run_state import connect
from backend.store.store import Store
from tests.outages import Outages, own_redis

pytestmark = pytest.mark.processes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "models"))


@pytest.fixture
def locks(redis: Redis, store: Store) -> Locks:
    return Locks(redis, store)


def test_a_lock_of_a_project_and_a_purpose_has_one_holder(locks: Locks) -> None:
    with locks.lock(7, "training"):
        with pytest.raises(BusyError, match="training of project 7 is already running"), locks.lock(7, "training"):
            pass
        with locks.lock(8, "training"), locks.lock(7, "push"):
            pass
    with locks.lock(7, "training"):
        pass


def test_of_many_simultaneous_callers_one_gets_the_lock(locks: Locks) -> None:
    start, done, tokens, refused = threading.Barrier(8), threading.Event(), list[int](), list[int]()

    def work() -> None:
        start.wait()
        try:
            with locks.lock(7, "training") as fence:
                tokens.append(fence.token)
                done.wait()
        except BusyError:
            refused.append(1)
        if len(refused) == 7:
            done.set()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(tokens), len(refused)) == (1, 7)


def test_the_lock_is_freed_when_the_work_fails(locks: Locks) -> None:
    with pytest.raises(ZeroDivisionError), locks.lock(7, "training"):
        raise ZeroDivisionError
    with locks.lock(7, "training"):
        pass


def test_a_lock_without_its_token_is_freed(locks: Locks, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's disk is full. Otherwise nobody would hold the lock, and nobody could take it."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store.tokens, "take", full)
        with pytest.raises(OSError, match="No space"), locks.lock(7, "training"):
            pass
    with locks.lock(7, "training"):
        pass


def test_a_holder_without_a_successor_goes_on(locks: Locks, redis: Redis) -> None:
    """Its lock expired while it stalled, or redis lost it. Nobody has written meanwhile, so it may go on."""
    with locks.lock(7, "training") as fence:
        redis.delete("lock:training:7")
        fence.check()
        with pytest.raises(BusyError, match="already running"), locks.lock(7, "training"):
            pass


@pytest.mark.parametrize("at_work", [True, False], ids=["at work", "done"])
def test_a_stalled_holder_must_not_go_on_after_another(locks: Locks, redis: Redis, at_work: bool) -> None:
    """It must not go on either if the other holder is done, and the lock is free."""
    with locks.lock(7, "training") as stalled:
        stalled.check()
        redis.delete("lock:training:7")  # as after its expiry
        with locks.lock(7, "training") as successor:
            assert successor.token > stalled.token
            if at_work:
                with pytest.raises(BusyError, match="another training took over project 7"):
                    stalled.check()
                stalled.release()
                successor.check()
        with pytest.raises(BusyError, match="took over"):
            stalled.check()
        with locks.lock(7, "training"):
            pass  # the stalled holder does not block others


def test_tokens_only_grow_also_after_redis_was_emptied(locks: Locks, redis: Redis) -> None:
    tokens = []
    for _ in range(5):
        with locks.lock(7, "training") as fence:
            tokens.append(fence.token)
        redis.flushall()
    assert tokens == sorted(set(tokens))


def test_a_held_lock_is_renewed(locks: Locks, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TTL_MS", 1500)
    with locks.lock(7, "training") as fence:
        assert 0 < redis.pttl("lock:training:7") <= 1500
        threading.Event().wait(3)  # twice its life
        fence.check()
    assert not redis.exists("lock:training:7")


# Outages


@pytest.fixture
def outages(tmp_path: Path) -> Iterator[Outages]:
    with own_redis(tmp_path / "redis") as outages:
        yield outages


def await_held(outages: Outages) -> None:
    """Wait until the holder has its lock in redis (again)."""
    deadline = time.monotonic() + 60
    with Redis.from_url(outages.url) as client:
        while not client.exists("lock:training:7"):
            assert time.monotonic() < deadline, "the lock was not taken again"
            time.sleep(0.05)


@pytest.mark.parametrize("empty", [False, True], ids=["with its data", "empty"])
def test_a_lock_outlives_a_redis_that_is_killed(
    outages: Outages, store: Store, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    """Nobody else gets it meanwhile. The holder renews it in the background, and has it after the outage."""
    monkeypatch.setattr(module, "LOCK_TTL_MS", 1500)
    locks = Locks(connect(outages.url), store)
    with locks.lock(7, "training") as fence:
        outages.kill()
        threading.Event().wait(2)  # longer than its life
        fence.check()
        outages.start(empty=empty)
        await_held(outages)
        fence.check()
        with pytest.raises(BusyError, match="already running"), locks.lock(7, "training"):
            pass
    with locks.lock(7, "training") as successor:
        assert successor.token > fence.token


@pytest.mark.parametrize("empty", [False, True], ids=["with its data", "empty"])
def test_the_first_to_take_the_lock_after_an_outage_stops_the_other(
    outages: Outages, store: Store, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    """A holder stalls for longer than its lock lives, for example by SIGSTOP or because the machine sleeps."""
    monkeypatch.setattr(module, "LOCK_TTL_MS", 500)
    locks = Locks(connect(outages.url), store)
    stalled = Fence(locks, 7, "training")  # nothing renews it
    stalled.take()
    outages.kill()
    threading.Event().wait(1)
    outages.start(empty=empty)
    with locks.lock(7, "training") as successor:
        assert successor.token > stalled.token
        successor.check()
        with pytest.raises(BusyError, match="took over"):
            stalled.check()
        successor.check()


def test_a_lock_outlives_a_redis_that_hangs(outages: Outages, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "ANSWER_S", 0.5)
    locks = Locks(connect(outages.url), store)
    with locks.lock(7, "training") as fence:
        with outages.stopped():
            fence.check()
        fence.check()
    with locks.lock(7, "training"):
        pass
