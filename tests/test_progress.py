from __future__ import annotations

import threading

import pytest
from redis import Redis

from backend import progress as module
from backend.errors import BusyError
from backend.progress import MAX_FAILURES, Counts, Progress, ScoringRun, TrainingProgress


@pytest.fixture
def progress(redis: Redis) -> Progress:
    return Progress(redis)


# ── locks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_holds_the_lock_of_a_project_and_a_purpose(progress: Progress) -> None:
    with progress.lock(7, "training"):
        with pytest.raises(BusyError, match="training of project 7 is already running"), progress.lock(7, "training"):
            pass
        with progress.lock(8, "training"), progress.lock(7, "push"):
            pass
    with progress.lock(7, "training"):
        pass


def test_of_many_at_once_one_gets_it(progress: Progress) -> None:
    start, done, got, refused = threading.Barrier(8), threading.Event(), list[int](), list[int]()

    def work() -> None:
        start.wait()
        try:
            with progress.lock(7, "training") as fence:
                got.append(fence.token)
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
    assert (len(got), len(refused)) == (1, 7)


def test_the_lock_is_freed_when_the_work_fails(progress: Progress) -> None:
    with pytest.raises(ZeroDivisionError), progress.lock(7, "training"):
        raise ZeroDivisionError
    with progress.lock(7, "training"):
        pass


def test_a_stalled_holder_must_not_go_on(progress: Progress, redis: Redis) -> None:
    with progress.lock(7, "training") as stalled:
        stalled.check()
        redis.delete("lock:training:7")  # what its expiry does
        with pytest.raises(BusyError, match="took over"):
            stalled.check()
        with progress.lock(7, "training") as successor:
            assert successor.token > stalled.token
            with pytest.raises(BusyError, match="took over"):
                stalled.check()
            assert not stalled.renew()
            stalled.release()
            successor.check()


def test_a_held_lock_is_renewed(progress: Progress, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TTL_MS", 1500)
    with progress.lock(7, "training") as fence:
        assert 0 < redis.pttl("lock:training:7") <= 1500
        threading.Event().wait(3)  # twice its life
        fence.check()
    assert not redis.exists("lock:training:7")


# ── hints ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hint_is_claimed_once_until_its_job_begins(progress: Progress, redis: Redis) -> None:
    assert not progress.waits("check:7")
    assert [progress.claim("check:7"), progress.claim("check:7"), progress.claim("check:8")] == [True, False, True]
    assert progress.waits("check:7")
    assert redis.ttl("pending:check:7") > 0  # a lost job does not block its kind for ever
    progress.unclaim("check:7")
    progress.unclaim("check:7")
    assert not progress.waits("check:7")
    assert progress.claim("check:7")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_progress_comes_back(progress: Progress) -> None:
    assert progress.training(7) == TrainingProgress("idle")
    running = TrainingProgress("running", "train", 0.5, 12.5, epoch=3, epochs=6, losses={"box_loss": 1.5})
    with progress.lock(7, "training"):
        progress.set_training(7, running)
        assert progress.training(7) == running
    assert progress.training(8) == TrainingProgress("idle")


def test_a_training_whose_worker_died_is_shown_as_failed(progress: Progress) -> None:
    with progress.lock(7, "training"):
        progress.set_training(7, TrainingProgress("running", "train", 0.5))
    stale = progress.training(7)
    assert (stale.state, stale.progress) == ("failed", 0.0)
    assert "died" in stale.error
    for state in ("queued", "failed", "idle"):
        progress.set_training(7, TrainingProgress(state))
        assert progress.training(7).state == state


# ── scoring ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_shard_is_noticed_whatever_the_order(progress: Progress) -> None:
    run = progress.start_scoring(7, 2, shards=3, total=600)
    assert progress.scoring(7) == ScoringRun(2, 3, 0, 600, run)
    assert not progress.shard_done(7, run, 2, 88)
    assert not progress.shard_done(7, run, 0, 256)
    assert not progress.shard_done(7, run, 0, 256)  # a job may run twice
    assert progress.scoring(7) == ScoringRun(2, 3, 344, 600, run)
    assert progress.shard_done(7, run, 1, 256)
    assert progress.shard_done(7, run, 1, 256)  # also when the one that would have ranked died
    progress.end_scoring(7, run)
    assert progress.scoring(7) is None


@pytest.mark.parametrize("version", [1, 2])
def test_shards_of_an_older_run_are_moot(progress: Progress, version: int) -> None:
    """Also of the same version: its pool is scored again when a label config asks for something else."""
    assert not progress.shard_done(7, 1, 0, 10)
    first = progress.start_scoring(7, 1, shards=2, total=20)
    progress.shard_done(7, first, 0, 10)
    second = progress.start_scoring(7, version, shards=1, total=20)
    assert not progress.shard_done(7, first, 1, 10)
    assert progress.scoring(7) == ScoringRun(version, 1, 0, 20, second)
    assert progress.shard_done(7, second, 0, 20)
    progress.end_scoring(7, first)
    assert not progress.renew_scoring(7, first)
    assert progress.scoring(7) == ScoringRun(version, 1, 20, 20, second)


def test_a_shard_that_is_done_as_another_run_begins_counts_for_its_own(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, looked = progress.start_scoring(7, 1, shards=2, total=20), Progress.scoring

    def overtaken(self: Progress, project_id: int) -> ScoringRun | None:
        found = looked(self, project_id)
        progress.start_scoring(7, 1, shards=2, total=20)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "scoring", overtaken)
        assert not progress.shard_done(7, first, 0, 10)
    assert progress.scoring(7) == ScoringRun(1, 2, 0, 20, first + 1)
    assert not progress.shard_done(7, first + 1, 1, 10)


def test_a_run_that_nobody_works_on_ends(progress: Progress, redis: Redis) -> None:
    run = progress.start_scoring(7, 1, shards=2, total=20)
    assert 0 < redis.ttl("scoring:7") <= module.SCORING_TTL_S
    redis.expire("scoring:7", 5)
    progress.shard_done(7, run, 0, 10)
    assert redis.ttl("scoring:7") > 5
    redis.expire("scoring:7", 5)
    assert progress.renew_scoring(7, run)
    assert redis.ttl("scoring:7") > 5


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_come_back(progress: Progress) -> None:
    assert progress.counts(7) is None
    progress.set_counts(7, Counts(100, 40, 3))
    assert progress.counts(7) == Counts(100, 40, 3)
    assert progress.counts(8) is None


def test_failures_are_kept_replaced_and_cleared(progress: Progress) -> None:
    progress.note_failures(7, [], {})
    progress.note_failures(7, [], {1: "gone", 2: "bröken"})
    progress.note_failures(7, [], {2: "text"})
    assert progress.failures(7) == {1: "gone", 2: "text"}
    assert progress.failures(8) == {}
    progress.note_failures(7, [1, 5], {})
    assert progress.failures(7) == {2: "text"}


def test_failures_are_bounded(progress: Progress) -> None:
    progress.note_failures(7, [], dict.fromkeys(range(MAX_FAILURES + 10), "gone"))
    assert len(progress.failures(7)) == MAX_FAILURES
    progress.note_failures(7, [], {MAX_FAILURES + 50: "new"})
    assert len(progress.failures(7)) == MAX_FAILURES


def test_memos(progress: Progress) -> None:
    assert progress.recall(7, "tasks") == ""
    progress.remember(7, "tasks", "5 ä")
    assert progress.recall(7, "tasks") == "5 ä"
    assert progress.recall(8, "tasks") == ""
