"""What redis holds beside jobs and locks: progress, counts and failed tasks. All of it can be computed again."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)

SCORING_TTL_S = 1800  # a run in which no shard ends for this long is dead; the reconcile starts another
FIRST_PAUSE_S, LAST_PAUSE_S = 30, 3600  # after a fault of the machine; the pause doubles with each fault
ANSWER_S = 5.0  # a redis that does not answer for this long is away; it is tried twice
PENDING = "pending"  # prefix of the key that holds the id of the job that waits for a hint
MAX_FAILURES = 1000  # per project; further failures are not stored
_PING_PAUSE_S = 0.5
_RUNS = 2**53  # JSON and Lua represent integers exactly up to here
_IS_RUN = "if redis.call('hget', KEYS[1], 'run') == ARGV[1] then "
_RENEW_RUN = (
    f"{_IS_RUN} redis.call('expire', KEYS[2], ARGV[2]) return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end"
)
_END_RUN = f"{_IS_RUN} return redis.call('del', KEYS[1], KEYS[2]) else return 0 end"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The state of a training, as GET /api/projects/{id} shows it."""

    state: str  # "idle" | "queued" | "running" | "failed"
    stage: str = ""  # "snapshot" | "images" | "train" | "evaluate" | "publish"
    progress: float = 0.0  # 0..1 over all stages
    eta_s: float | None = None
    error: str = ""
    epoch: int = 0
    epochs: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def details(self) -> str:
        """The epoch and the time left, in words; "" if neither is known.

        >>> TrainingProgress("running", "train", 0.5, eta_s=20.4, epoch=3, epochs=30).details
        'epoch 3 of 30, 20 s left'
        """
        epoch = f"epoch {self.epoch} of {self.epochs}" if self.epochs else ""
        left = "" if self.eta_s is None else f"{self.eta_s:.0f} s left"
        return ", ".join(filter(None, (epoch, left)))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the machine failed at a training or scoring, how often in a row, and the pause before the next try."""

    reason: str
    attempts: int
    forced: bool = False  # a person asked for the training, so it is tried again without new labels

    @property
    def pause_s(self) -> float:
        """The pause before the next try, in seconds."""
        return float(min(FIRST_PAUSE_S * 2 ** (self.attempts - 1), LAST_PAUSE_S))

    def __str__(self) -> str:
        times = f"{self.attempts} times in a row" if self.attempts > 1 else "once"
        return f"{self.reason} (failed {times}; tried again after {self.pause_s:.0f} s)"


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The number of tasks and labels of a project at the last check."""

    tasks: int
    labeled: int
    new: int  # new, changed or deleted since the last training's snapshot, among those that a training reads
    waiting: int = 0  # labeled tasks that wait for a ground truth

    @property
    def decided(self) -> int:
        """The number of labeled tasks that a training reads."""
        return self.labeled - self.waiting


@dataclass(frozen=True, slots=True)
class ScoringRun:
    """One scoring of a version's pool, and its progress."""

    number: int  # of the version
    shards: int
    done: int  # tasks
    total: int  # tasks
    run: int  # the id of this scoring: a version's pool may be scored again


def await_answer(redis: Redis, patience_s: float) -> None:
    """Return as soon as redis answers, after `patience_s` in any case."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(RedisError):
            redis.ping()
            return
        time.sleep(_PING_PAUSE_S)


class Progress:
    """The state of running work, by project."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def unclaim(self, hint: str) -> None:
        """Let later hints enqueue the job again; a job calls this before it reads anything."""
        self._redis.delete(f"{PENDING}:{hint}")

    def set_training(self, project_id: int, progress: TrainingProgress) -> None:
        """Write the state of a training for the status page; without redis the training goes on and is not shown."""
        with _optional(project_id, "the progress of the training is not shown"):
            self._redis.set(f"training:{project_id}", json.dumps(asdict(progress)))

    def training(self, project_id: int) -> TrainingProgress:
        """Return the state of a training; it shows the reason of a fault until a training succeeds."""
        raw = self._redis.get(f"training:{project_id}")
        progress = TrainingProgress(state="idle") if raw is None else TrainingProgress(**json.loads(raw))
        if progress.state == "running" and not self._redis.exists(f"lock:training:{project_id}"):
            progress = TrainingProgress(state="failed", error="the training was killed; the next check lets it rest")
        fault = self.fault(project_id, "training")
        if fault is None:
            return progress
        state = "failed" if progress.state == "idle" else progress.state
        return replace(progress, state=state, error=str(fault))

    def is_dead(self, project_id: int) -> bool:
        """Return whether the last training was killed: its state is "running", but no process holds its lock."""
        raw = self._redis.get(f"training:{project_id}")
        running = raw is not None and json.loads(raw)["state"] == "running"
        return running and not self._redis.exists(f"lock:training:{project_id}")

    def note_fault(self, project_id: int, work: str, reason: str, *, forced: bool = False) -> Fault:
        """Store that the machine failed at `work`, which is "training" or "scoring", and start the pause.

        The fault stays until `forget_fault`.
        """
        before = self.fault(project_id, work)
        fault = Fault(reason, before.attempts + 1 if before else 1, forced)
        self._redis.set(f"fault:{work}:{project_id}", json.dumps(asdict(fault)))
        self._redis.set(f"rests:{work}:{project_id}", "1", px=int(fault.pause_s * 1000))
        return fault

    def is_paused(self, project_id: int, work: str) -> bool:
        """Return whether the pause after a fault lasts, so that `work` must not be tried yet."""
        return bool(self._redis.exists(f"rests:{work}:{project_id}"))

    def fault(self, project_id: int, work: str) -> Fault | None:
        """Return the stored fault of `work`, None if the last try did not fail because of the machine."""
        raw = self._redis.get(f"fault:{work}:{project_id}")
        return None if raw is None else Fault(**json.loads(raw))

    def forget_fault(self, project_id: int, work: str) -> None:
        """Remove the fault of `work` once it has succeeded."""
        with _optional(project_id, "a fault that is over stays in the status"):
            self._redis.delete(f"fault:{work}:{project_id}")

    def set_counts(self, project_id: int, counts: LabelCounts) -> None:
        """Store the counts of the last check."""
        self._redis.set(f"counts:{project_id}", json.dumps(asdict(counts)))

    def counts(self, project_id: int) -> LabelCounts | None:
        """Return the counts of the last check, None if there was none."""
        raw = self._redis.get(f"counts:{project_id}")
        return None if raw is None else LabelCounts(**json.loads(raw))

    def start_scoring(self, project_id: int, number: int, shards: int, total: int) -> int:
        """Begin a scoring of a version's pool; return its id, which no other run has."""
        key, run = f"scoring:{project_id}", secrets.randbelow(_RUNS)  # a counter would repeat ids after redis is lost
        with self._redis.pipeline() as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping={"number": number, "shards": shards, "total": total, "run": run})
            pipe.expire(key, SCORING_TTL_S)
            pipe.execute()
        return run

    def shard_done(self, project_id: int, run: int, shard: int, tasks: int) -> bool:
        """Record a scored shard of a run; return True if all its shards are scored."""
        current = self.scoring(project_id)
        if current is None or current.run != run:
            return False  # another scoring has begun, so this shard is of no use
        done = _done(project_id, run)  # a key of this run alone, because another run may begin at this moment
        self._redis.hset(done, str(shard), tasks)
        self._redis.expire(done, SCORING_TTL_S)
        self.renew_scoring(project_id, run)
        return int(self._redis.hlen(done)) >= current.shards

    def renew_scoring(self, project_id: int, run: int) -> bool:
        """Extend the life of a run; return False if it has ended, or another run has begun."""
        keys = f"scoring:{project_id}", _done(project_id, run)
        return bool(self._redis.eval(_RENEW_RUN, len(keys), *keys, run, SCORING_TTL_S))

    def scoring(self, project_id: int) -> ScoringRun | None:
        """Return the current scoring of a project and its progress, None if there is none."""
        raw = self._redis.hgetall(f"scoring:{project_id}")
        if not raw:
            return None
        run = int(raw[b"run"])
        done = sum(int(tasks) for tasks in self._redis.hvals(_done(project_id, run)))
        return ScoringRun(int(raw[b"number"]), int(raw[b"shards"]), done, int(raw[b"total"]), run)

    def end_scoring(self, project_id: int, run: int) -> None:
        """Remove a run, unless another run has begun."""
        self._redis.eval(_END_RUN, 2, f"scoring:{project_id}", _done(project_id, run), run)

    def note_failures(self, project_id: int, task_ids: Iterable[int], reasons: Mapping[int, str]) -> None:
        """Store the reasons why tasks could not be used; GET /api/projects/{id} shows them.

        `task_ids` are all tasks that were processed, `reasons` has an entry for each that failed. Older reasons of the
        tasks that did not fail are removed. Without redis nothing is stored, and the caller goes on.
        """
        key = f"failures:{project_id}"
        with _optional(project_id, "failures are not noted"):
            succeeded = [str(task_id) for task_id in task_ids if task_id not in reasons]
            if succeeded:
                self._redis.hdel(key, *succeeded)
            room = max(MAX_FAILURES - int(self._redis.hlen(key)), 0)
            for task_id, reason in list(reasons.items())[:room]:
                self._redis.hset(key, str(task_id), reason)

    def failures(self, project_id: int) -> dict[int, str]:
        """Return the stored reasons by task id."""
        return {int(key): _text(value) for key, value in self._redis.hgetall(f"failures:{project_id}").items()}

    def remember(self, project_id: int, name: str, value: str, for_s: int | None = None) -> None:
        """Store a text under a name, for `for_s` seconds or without end."""
        self._redis.set(f"memo:{name}:{project_id}", value, ex=for_s)

    def recall(self, project_id: int, name: str) -> str:
        """Return the text that `remember` stored; "" if there is none."""
        raw = self._redis.get(f"memo:{name}:{project_id}")
        return "" if raw is None else _text(raw)


def connect(url: str) -> Redis:
    """Connect to redis with a short time limit: a call fails within seconds if redis hangs, after one more try."""
    return Redis.from_url(
        url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), retries=1)
    )


@contextmanager
def _optional(project_id: int, lost: str) -> Iterator[None]:
    """Go on if redis does not answer, and log one line that says what is lost."""
    try:
        yield
    except RedisError as error:
        log.warning("project %d: %s: redis does not answer: %s", project_id, lost, error)


def _done(project_id: int, run: int) -> str:
    return f"scoring:{project_id}:done:{run}"


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
