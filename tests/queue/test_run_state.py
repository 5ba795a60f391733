from __future__ import annotations

import pytest
from redis import Redis

from backend.queue import run_state as module
from backend.queue.run_state import MAX_FAILURES, LabelCounts, Progress, ScoringRun, TrainingProgress


@pytest.fixture
def progress(redis: Redis) -> Progress:
    return Progress(redis)


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_progress_comes_back(progress: Progress, redis: Redis) -> None:
    assert progress.training(7) == TrainingProgress("idle")
    running = TrainingProgress("running", "train", 0.5, 12.5, epoch=3, epochs=6, losses={"box_loss": 1.5})
    redis.set("lock:training:7", "holder")
    progress.set_training(7, running)
    assert progress.training(7) == running
    assert progress.training(8) == TrainingProgress("idle")


def test_a_training_whose_worker_died_is_shown_as_failed(progress: Progress) -> None:
    progress.set_training(7, TrainingProgress("running", "train", 0.5))
    stale = progress.training(7)
    assert (stale.state, stale.progress) == ("failed", 0.0)
    assert "killed" in stale.error
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
    assert progress.shard_done(7, run, 1, 256)  # a second time, because the first job may have died before it ranked
    progress.end_scoring(7, run)
    assert progress.scoring(7) is None


@pytest.mark.parametrize("version", [1, 2])
def test_shards_of_an_older_run_are_moot(progress: Progress, version: int) -> None:
    """Also if both runs score the same version: a changed label config starts another run."""
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
    first, scoring = progress.start_scoring(7, 1, shards=2, total=20), Progress.scoring

    def overtaken(self: Progress, project_id: int) -> ScoringRun | None:
        current_run = scoring(self, project_id)
        progress.start_scoring(7, 1, shards=2, total=20)
        return current_run

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "scoring", overtaken)
        assert not progress.shard_done(7, first, 0, 10)
    assert (current := progress.scoring(7)) is not None
    assert (current.done, current.run != first) == (0, True)
    assert not progress.shard_done(7, current.run, 1, 10)


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
    progress.set_counts(7, LabelCounts(100, 40, 3))
    assert progress.counts(7) == LabelCounts(100, 40, 3)
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
