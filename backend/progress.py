"""What redis carries beside the jobs: locks, progress, counts and failed tasks. Losing it loses nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from backend.errors import BusyError

log = logging.getLogger(__name__)

LOCK_TTL_MS = 60_000
SCORING_TTL_S = 1800  # a run without a finished shard for this long is dead; the reconcile starts it anew
MAX_FAILURES = 1000  # per project, the first are kept
_RENEW = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end"
)
_IS_RUN = "if redis.call('hget', KEYS[1], 'run') == ARGV[1] then "
_RENEW_RUN = (
    f"{_IS_RUN} redis.call('expire', KEYS[2], ARGV[2]) return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end"
)
_END_RUN = f"{_IS_RUN} return redis.call('del', KEYS[1], KEYS[2]) else return 0 end"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


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
    run: int  # of the project, counted from 1: a version's pool may be scored again


class Fence:
    """A held lock with its fencing token; `check` refuses to go on once the lock has passed to another."""

    def __init__(self, redis: Redis, key: str, token: int) -> None:
        self._redis = redis
        self._key = key
        self.token = token

    def check(self) -> None:
        """Raise BusyError if the lock is no longer ours (it expired while we were stalled)."""
        if self._redis.get(self._key) != str(self.token).encode():
            raise BusyError(
                "another training took over this project",
                where=self._key,
                fix="nothing to do: the other training publishes its own version",
            )

    def renew(self) -> bool:
        return bool(self._redis.eval(_RENEW, 1, self._key, str(self.token), LOCK_TTL_MS))

    def release(self) -> None:
        self._redis.eval(_RELEASE, 1, self._key, str(self.token))


class Progress:
    """The state of running work, by project."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @contextmanager
    def lock(self, project_id: int, purpose: str) -> Iterator[Fence]:
        """Hold the project's lock for `purpose`, renewed in the background; BusyError if another holds it."""
        key = f"lock:{purpose}:{project_id}"
        token = int(self._redis.incr(f"fence:{purpose}:{project_id}"))
        if not self._redis.set(key, str(token), nx=True, px=LOCK_TTL_MS):
            raise BusyError(f"a {purpose} of project {project_id} is already running", where=key)
        fence = Fence(self._redis, key, token)
        stop = threading.Event()
        keeper = threading.Thread(target=_keep, args=(fence, stop), daemon=True)
        keeper.start()
        try:
            yield fence
        finally:
            stop.set()
            keeper.join()
            fence.release()

    def claim(self, hint: str) -> bool:
        """Return True if no job for `hint` waits yet: many hints become one job."""
        return bool(self._redis.set(f"pending:{hint}", "1", nx=True, ex=3600))

    def unclaim(self, hint: str) -> None:
        """Let later hints enqueue again; a job calls this first, before it reads anything."""
        self._redis.delete(f"pending:{hint}")

    def waits(self, hint: str) -> bool:
        return bool(self._redis.exists(f"pending:{hint}"))

    def set_training(self, project_id: int, progress: TrainingProgress) -> None:
        self._redis.set(f"training:{project_id}", json.dumps(asdict(progress)))

    def training(self, project_id: int) -> TrainingProgress:
        raw = self._redis.get(f"training:{project_id}")
        if raw is None:
            return TrainingProgress(state="idle")
        progress = TrainingProgress(**json.loads(raw))
        stale = progress.state == "running" and not self._redis.exists(f"lock:training:{project_id}")
        return (
            TrainingProgress(state="failed", error="the worker died; retried at the next check") if stale else progress
        )

    def set_counts(self, project_id: int, counts: Counts) -> None:
        self._redis.set(f"counts:{project_id}", json.dumps(asdict(counts)))

    def counts(self, project_id: int) -> Counts | None:
        raw = self._redis.get(f"counts:{project_id}")
        return None if raw is None else Counts(**json.loads(raw))

    def start_scoring(self, project_id: int, number: int, shards: int, total: int) -> int:
        """Begin to count the shards of a version's pool, and return the number of this run."""
        key = f"scoring:{project_id}"
        run = int(self._redis.incr(f"{key}:runs"))
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
        try:
            mended = [str(task_id) for task_id in task_ids if task_id not in reasons]
            if mended:
                self._redis.hdel(key, *mended)
            room = max(MAX_FAILURES - int(self._redis.hlen(key)), 0)
            for task_id, reason in list(reasons.items())[:room]:
                self._redis.hset(key, str(task_id), reason)
        except RedisError as error:
            log.warning("project %d: failures are not noted: redis does not answer: %s", project_id, error)

    def failures(self, project_id: int) -> dict[int, str]:
        return {int(key): _text(value) for key, value in self._redis.hgetall(f"failures:{project_id}").items()}

    def remember(self, project_id: int, name: str, value: str) -> None:
        self._redis.set(f"memo:{name}:{project_id}", value)

    def recall(self, project_id: int, name: str) -> str:
        raw = self._redis.get(f"memo:{name}:{project_id}")
        return "" if raw is None else _text(raw)


def _done(project_id: int, run: int) -> str:
    return f"scoring:{project_id}:done:{run}"


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _keep(fence: Fence, stop: threading.Event) -> None:
    while not stop.wait(LOCK_TTL_MS / 6000):
        if not fence.renew():
            return
