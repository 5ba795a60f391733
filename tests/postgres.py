"""A PostgreSQL cluster of a test's own, reached by a Unix socket only; it ends with the test, however that ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.subprocesses import running, wait_ready
from tests.support import require_program

_USER = "postgres"  # the package makes this user; the server refuses to run as root
_START_S = 300.0


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Run an empty cluster; yield the environment variables that make Label Studio use it."""
    binaries = require_program("initdb").resolve().parent  # not on PATH
    # Not under pytest's folder: that one is closed to other users, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if root := os.geteuid() == 0:
        shutil.chown(folder, _USER)
    data = folder / "data"
    create: list[str | Path] = [
        binaries / "initdb",
        "--pgdata",
        data,
        "--username",
        _USER,
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
    ]
    subprocess.run(create, user=_USER if root else None, check=True, capture_output=True, cwd=folder)
    # A changed user loses the signal that ends a child with its parent, so that setpriv asks for it again.
    as_user = ["setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups", "--pdeathsig", "INT"] if root else []
    serve = [str(binaries / "postgres"), "-D", str(data), "-c", "listen_addresses=", "-k", str(folder)]
    try:
        with running([*as_user, *serve], os.environ, folder / "postgres.log") as child:
            asks: list[str | Path] = [binaries / "pg_isready", "--quiet", "--host", folder]
            wait_ready(child, lambda: subprocess.run(asks).returncode == 0, "PostgreSQL", _START_S)
            yield {
                "DJANGO_DB": "default",
                "POSTGRE_NAME": "postgres",
                "POSTGRE_USER": _USER,
                "POSTGRE_HOST": str(folder),
                "POSTGRE_PORT": "5432",  # the name of the socket's file
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
