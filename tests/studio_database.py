"""The data of a Label Studio right after its first start, made once and copied by the tests: migrations take long.

`python -m tests.studio_database` makes it before the tests begin, while `make test` waits for mypy.
"""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import TypedDict

from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from tests.support import ROOT

FOLDER = ROOT / ".cache" / "label-studio"


class Login(TypedDict):
    """The login of a Label Studio user."""

    email: str
    password: str


LOGIN = Login(email="admin@example.com", password="a-test-password")


def fresh_label_studio(binary: Path) -> Path:
    """Return the data directory after the first start of this Label Studio, whose one user is LOGIN."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    data_dir = FOLDER / f"{binary.stat().st_ino}-{binary.stat().st_mtime_ns}"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes that share the tests need it at the same time
        if not data_dir.is_dir():
            unfinished = Path(tempfile.mkdtemp(dir=FOLDER))
            with start_label_studio(binary, unfinished, **LOGIN):
                pass
            unfinished.rename(data_dir)
    return data_dir


if __name__ == "__main__":
    fresh_label_studio(label_studio_binary())
