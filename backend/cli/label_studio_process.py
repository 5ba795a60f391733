"""A Label Studio in an environment of its own, as a child process: started, awaited, logged in to, and stopped.

It listens on the loopback only, and keeps its data in one directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from backend.errors import BackendError
from backend.subprocesses import free_port, running, wait_ready

LABEL_STUDIO_BIN = "LABEL_STUDIO_BIN"  # the environment variable with the path of label-studio
LABEL_STUDIO_START_S = 300.0  # a fresh database takes 130 migrations, on a slow disk too

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
LABEL_STUDIO_ENV = {
    # It needs both of these to accept backends and webhooks on private addresses; ours is on this machine.
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


def label_studio_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of label-studio: LABEL_STUDIO_BIN, else that in `.venv-ls` beside this package."""
    default = Path(__file__).resolve().parents[2] / ".venv-ls" / "bin" / "label-studio"
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

    `port` 0 means any free port. `environ` adds variables, for example those of another database. In a fresh data
    directory the user is created; otherwise the password must be theirs. Raises BackendError if the binary is missing,
    or if Label Studio ends, does not get ready, or refuses the user.
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
    # The login goes through the environment, because every user of the machine can read arguments.
    login = {"LABEL_STUDIO_USERNAME": email, "LABEL_STUDIO_PASSWORD": password}
    child_environ = _clean_environ() | LABEL_STUDIO_ENV | login | dict(environ)
    with running(command, child_environ, data_dir / "label-studio.log") as child:
        with httpx.Client(base_url=url, timeout=2, trust_env=False) as probe:
            wait_ready(child, lambda: probe.get("/health").is_success, "Label Studio", LABEL_STUDIO_START_S)
        key = kept_token(data_dir / "api-key", url, email, password)
        yield LabelStudioProcess(url=url, pid=child.process.pid, email=email, api_key=key)


def personal_access_token(url: str, email: str, password: str) -> str:
    """Log in to Label Studio like a user, and return a new personal access token; the user's older token is revoked.

    LS allows one token per user and shows it only once. Raises BackendError if the login is refused.
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
    """Return the token in the file `path` if it is still valid, else a new one; only the owner can read the file."""
    if path.is_file():
        key = path.read_text(encoding="ascii")
        if httpx.post(f"{url}/api/token/refresh/", json={"refresh": key}, timeout=30, trust_env=False).is_success:
            return key
    key = personal_access_token(url, email, password)
    path.touch(mode=0o600)
    path.write_text(key, encoding="ascii")
    return key


def _clean_environ() -> dict[str, str]:
    """Return our environment without variables that would change Label Studio's Python or Django."""
    dropped = ("PYTHON", "DJANGO", "VIRTUAL_ENV", "LABEL_STUDIO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
