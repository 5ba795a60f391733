"""The demo's folder: its lock, because one demo runs in it at a time, and the record to open the demo again."""

from __future__ import annotations

import fcntl
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.errors import BackendError, BusyError
from backend.subprocesses import free_port

_LOCK, _RECORD = "demo.lock", "demo.json"
_MADE = ("label-studio", "models", "scenes", "demo.log", "server.log", "worker.log")  # we remove nothing else


class DemoRecord(BaseModel):
    """The ports, data and project of a demo, kept from one start to the next."""

    model_config = ConfigDict(frozen=True)

    label_studio_port: int
    backend_port: int
    data: str = ""  # its data.yaml
    project_id: int = 0  # 0: the demo ended before its project had a queue

    @property
    def label_studio_url(self) -> str:
        """The address of the demo's Label Studio."""
        return f"http://127.0.0.1:{self.label_studio_port}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock until the block ends.

    Raises BusyError while another demo runs in it, BackendError for a folder with other files.
    """
    if folder.exists() and not (folder.is_dir() and (_is_empty(folder) or (folder / _LOCK).exists())):
        raise BackendError(f"{folder} is not a demo's folder", where="--folder", fix="name an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = read(folder)
            running = f"; its Label Studio is at {record.label_studio_url}" if record else ""
            raise BusyError(
                f"a demo is running in this folder{running}",
                where=str(folder.resolve()),
                fix="end it with Ctrl-C, or start another one with --folder",
            ) from None
        yield


def read(folder: Path) -> DemoRecord | None:
    """Return the record of the last demo in a folder, None if there is no readable one."""
    try:
        return DemoRecord.model_validate_json((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write(folder: Path, record: DemoRecord) -> None:
    """Write the record for the next start."""
    (folder / _RECORD).write_text(record.model_dump_json(), encoding="utf-8")


def renew(folder: Path) -> DemoRecord:
    """Remove the last demo from the folder; return a new record, with the same ports where they are free."""
    before = read(folder)
    for path in (folder / name for name in _MADE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    ports = (before.label_studio_port, before.backend_port) if before else (0, 0)
    label_studio_port, backend_port = (port if port and is_free(port) else free_port() for port in ports)
    record = DemoRecord(label_studio_port=label_studio_port, backend_port=backend_port)
    write(folder, record)
    return record


def reopen(folder: Path) -> DemoRecord:
    """Return the record of the demo in the folder. Raises BackendError if it has none, or a port is in use."""
    record = read(folder)
    if record is None or not record.project_id:
        raise BackendError(
            "there is no demo to open again", where=str(folder.resolve()), fix="start a new one, without --keep"
        )
    for port in (record.label_studio_port, record.backend_port):
        if not is_free(port):
            raise BackendError(
                f"port {port} of the demo is in use",
                where=str(folder.resolve()),
                fix="end the program that uses it; Label Studio knows the backend by this port",
            )
    return record


def is_free(port: int) -> bool:
    """Return whether no program listens on a port of this machine's loopback address."""
    with socket.socket() as listener:
        # Connections that ended a moment ago do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())
