"""Locks of projects: a lease in redis allows one holder at a time, a token in the store stops a holder that is late.

docs/locks.md explains the design.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from backend.errors import BusyError, MachineError
from backend.store.store import Store

log = logging.getLogger(__name__)

LOCK_TTL_MS = 60_000
_HOLD = (  # renew our lock, or take it again if redis came back empty; never take the lock of another holder
    "local holder = redis.call('get', KEYS[1]) "
    "if holder and holder ~= ARGV[1] then return 0 end "
    "redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1"
)
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


class Fence:
    """A held lock; `check` raises BusyError once another holder may have worked on the project."""

    def __init__(self, locks: Locks, project_id: int, purpose: str) -> None:
        self._redis, self._store = locks.redis, locks.store
        self._project_id, self._purpose = project_id, purpose
        self._key = f"lock:{purpose}:{project_id}"
        self._holder = secrets.token_hex(16)  # unique, also after a restart of redis
        self.token = 0

    def take(self) -> None:
        """Take the lock, and a token higher than all before; raises BusyError if another process holds the lock."""
        if not self._lease():
            raise BusyError(f"a {self._purpose} of project {self._project_id} is already running", where=self._key)
        try:
            self.token = self._store.tokens.take(self._project_id, self._purpose)
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Raise BusyError if another process has held the lock since.

        The token in the store decides: a later holder has a higher token. So this works while redis is away, and
        without redis no other process can take the lock.
        """
        if not self.hold():
            raise BusyError(
                f"another {self._purpose} took over project {self._project_id}",
                where=self._key,
                fix="nothing to do: the other one does the work",
            )

    def hold(self) -> bool:
        """Renew the lock, or take it again if redis lost it; return False if another process has held it since."""
        try:
            held = self._lease()
        except RedisError:
            held = True  # unknown without redis; the token decides
        if held and self._store.tokens.newest(self._project_id, self._purpose) != self.token:
            self.release()  # it was free, but another process has held it meanwhile
            return False
        return held

    def _lease(self) -> bool:
        """Take or renew the lock in redis, and return whether we hold it; safe to repeat after a lost answer."""
        return bool(self._redis.eval(_HOLD, 1, self._key, self._holder, LOCK_TTL_MS))

    def release(self) -> None:
        """Release the lock; without redis it expires."""
        with suppress(RedisError):
            self._redis.eval(_RELEASE, 1, self._key, self._holder)


class Locks:
    """The locks of all projects: each project has one for "training" and one for "push"."""

    def __init__(self, redis: Redis, store: Store) -> None:
        self.redis = redis
        self.store = store

    @contextmanager
    def lock(self, project_id: int, purpose: str) -> Iterator[Fence]:
        """Hold the project's lock for `purpose`, and renew it in the background.

        Raises BusyError if another process holds it.
        """
        fence = Fence(self, project_id, purpose)
        fence.take()
        stop = threading.Event()
        keeper = threading.Thread(target=_keep, args=(fence, stop), daemon=True)
        keeper.start()
        try:
            yield fence
        finally:
            stop.set()
            keeper.join()
            fence.release()


def _keep(fence: Fence, stop: threading.Event) -> None:
    """Renew a lock until it is released or lost; an error of the store is raised by the next `check`."""
    while not stop.wait(LOCK_TTL_MS / 6000):
        with suppress(MachineError, OSError):
            if not fence.hold():
                return
