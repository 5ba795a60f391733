"""What redis carries beside jobs and locks: progress, counts and failed tasks. Losing it loses nothing."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)

SCORING_TTL_S = 1800  # a run without a finished shard for this long is dead; the reconcile starts it anew
FIRST_PAUSE_S, LAST_PAUSE_S = 30, 3600  # after a fault of the machine, doubled each time
ANSWER_S = 5.0  # a redis that is silent for this long is away; twice this with the second try
PENDING = "pending"  # of a hint: which job waits for it
MAX_FAILURES = 1000  # per project, the first are kept
_RUNS = 2**53  # JSON and Lua keep whole numbers up to here
_IS_RUN = "if redis.call('hget', KEYS[1], 'run') == ARGV[1] then "
_RENEW_RUN = (
    f"{_IS_RUN} redis.call('expire', KEYS[2], ARGV[2]) return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end"
)
_END_RUN = f"{_IS_RUN} return redis.call('del', KEYS[1], KEYS[2]) else return 0 end"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a training stands: shown by GET /api/projects/{id}."""

    state: str  # "idle" | "queued" | "running" | "failed"
    stage: str = ""  # "snapshot" | "images" | "train" | "evaluate" | "publish"
    progress: float = 0.0  # 0..1 over all stages
    eta_s: float | None = None
    error: str = ""
    epoch: int = 0
    epochs: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the machine failed at a work, how often in a row, and how long it rests before the next try."""

    reason: str
    attempts: int
    forced: bool = False  # somebody asked for the training: nobody asks again

    @property
    def pause_s(self) -> float:
        return float(min(FIRST_PAUSE_S * 2 ** (self.attempts - 1), LAST_PAUSE_S))

    def __str__(self) -> str:
        times = f"{self.attempts} times in a row" if self.attempts > 1 else "once"
        return f"{self.reason} (failed {times}; tried again after {self.pause_s:.0f} s)"


@dataclass(frozen=True, slots=True)
class Counts:
    """A project's labels as the last check saw them."""

    tasks: int
    labeled: int
    new: int  # new, changed or deleted since the last training's snapshot


@dataclass(frozen=True, slots=True)
class ScoringRun:
    """One scoring of a pool: which version, how many tasks are done of how many."""

    number: int
    shards: int
    done: int
    total: int
    run: int  # its name: a version's pool may be scored again


class Progress:
    """The state of running work, by project."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def unclaim(self, hint: str) -> None:
        """Let later hints enqueue again; a job calls this first, before it reads anything."""
        self._redis.delete(f"{PENDING}:{hint}")

    def set_training(self, project_id: int, progress: TrainingProgress) -> None:
        """Show where a training stands; a redis that is away costs what is shown, not the training."""
        with _optional(project_id, "the progress of the training is not shown"):
            self._redis.set(f"training:{project_id}", json.dumps(asdict(progress)))

    def training(self, project_id: int) -> TrainingProgress:
        """Return where a training stands; the reason of a fault stays in it until a training succeeds."""
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
        """Return whether a training was at work, and nobody is any more who could tell how it ended."""
        raw = self._redis.get(f"training:{project_id}")
        running = raw is not None and json.loads(raw)["state"] == "running"
        return running and not self._redis.exists(f"lock:training:{project_id}")

    def note_fault(self, project_id: int, work: str, reason: str, *, forced: bool = False) -> Fault:
        """Keep that the machine failed at "training" or "scoring", until `forget_fault`; the work rests for a while."""
        before = self.fault(project_id, work)
        fault = Fault(reason, before.attempts + 1 if before else 1, forced)
        self._redis.set(f"fault:{work}:{project_id}", json.dumps(asdict(fault)))
        self._redis.set(f"rests:{work}:{project_id}", "1", px=int(fault.pause_s * 1000))
        return fault

    def rests(self, project_id: int, work: str) -> bool:
        """Return whether it is too early to try a work again at which the machine failed."""
        return bool(self._redis.exists(f"rests:{work}:{project_id}"))

    def fault(self, project_id: int, work: str) -> Fault | None:
        raw = self._redis.get(f"fault:{work}:{project_id}")
        return None if raw is None else Fault(**json.loads(raw))

    def forget_fault(self, project_id: int, work: str) -> None:
        with _optional(project_id, "a fault that is over stays in the status"):
            self._redis.delete(f"fault:{work}:{project_id}")

    def set_counts(self, project_id: int, counts: Counts) -> None:
        self._redis.set(f"counts:{project_id}", json.dumps(asdict(counts)))

    def counts(self, project_id: int) -> Counts | None:
        raw = self._redis.get(f"counts:{project_id}")
        return None if raw is None else Counts(**json.loads(raw))

    def start_scoring(self, project_id: int, number: int, shards: int, total: int) -> int:
        """Begin to count the shards of a version's pool, and return the name of this run: no two have the same."""
        key, run = f"scoring:{project_id}", secrets.randbelow(_RUNS)  # a counter would begin anew in an empty redis
        with self._redis.pipeline() as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping={"number": number, "shards": shards, "total": total, "run": run})
            pipe.expire(key, SCORING_TTL_S)
            pipe.execute()
        return run

    def shard_done(self, project_id: int, run: int, shard: int, tasks: int) -> bool:
        """Record a scored shard of a run; return True if all of them are in."""
        current = self.scoring(project_id)
        if current is None or current.run != run:
            return False  # another scoring has begun: this shard's work is moot
        done = _done(project_id, run)  # of this run alone: another may begin in this moment
        self._redis.hset(done, str(shard), tasks)
        self._redis.expire(done, SCORING_TTL_S)
        self.renew_scoring(project_id, run)
        return int(self._redis.hlen(done)) >= current.shards

    def renew_scoring(self, project_id: int, run: int) -> bool:
        """Let a run live on; False if it has ended, or another one has begun."""
        keys = f"scoring:{project_id}", _done(project_id, run)
        return bool(self._redis.eval(_RENEW_RUN, len(keys), *keys, run, SCORING_TTL_S))

    def scoring(self, project_id: int) -> ScoringRun | None:
        raw = self._redis.hgetall(f"scoring:{project_id}")
        if not raw:
            return None
        run = int(raw[b"run"])
        done = sum(int(tasks) for tasks in self._redis.hvals(_done(project_id, run)))
        return ScoringRun(int(raw[b"number"]), int(raw[b"shards"]), done, int(raw[b"total"]), run)

    def end_scoring(self, project_id: int, run: int) -> None:
        """Forget a run, unless another one has begun."""
        self._redis.eval(_END_RUN, 2, f"scoring:{project_id}", _done(project_id, run), run)

    def note_failures(self, project_id: int, task_ids: Iterable[int], reasons: Mapping[int, str]) -> None:
        """Keep why some of the tasks just looked at could not be used; shown by GET /api/projects/{id}.

        What was kept of the others is forgotten. A redis that does not answer costs these notes, not the work itself.
        """
        key = f"failures:{project_id}"
        with _optional(project_id, "failures are not noted"):
            mended = [str(task_id) for task_id in task_ids if task_id not in reasons]
            if mended:
                self._redis.hdel(key, *mended)
            room = max(MAX_FAILURES - int(self._redis.hlen(key)), 0)
            for task_id, reason in list(reasons.items())[:room]:
                self._redis.hset(key, str(task_id), reason)

    def failures(self, project_id: int) -> dict[int, str]:
        return {int(key): _text(value) for key, value in self._redis.hgetall(f"failures:{project_id}").items()}

    def remember(self, project_id: int, name: str, value: str, for_s: int | None = None) -> None:
        self._redis.set(f"memo:{name}:{project_id}", value, ex=for_s)

    def recall(self, project_id: int, name: str) -> str:
        raw = self._redis.get(f"memo:{name}:{project_id}")
        return "" if raw is None else _text(raw)


def connect(url: str) -> Redis:
    """Open redis so that one that hangs, or was started again, costs seconds: an error, or one more try."""
    return Redis.from_url(
        url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), retries=1)
    )


@contextmanager
def _optional(project_id: int, lost: str) -> Iterator[None]:
    """Go on without redis, with one line of log that says what is lost by it."""
    try:
        yield
    except RedisError as error:
        log.warning("project %d: %s: redis does not answer: %s", project_id, lost, error)


def _done(project_id: int, run: int) -> str:
    return f"scoring:{project_id}:done:{run}"


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
