"""A PostgreSQL cluster of a test's own, reached by a Unix socket only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import require_program

_USER = "postgres"  # the package makes this user; the server refuses to run as root


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Run an empty cluster; gives the variables that make Label Studio use it."""
    binaries = require_program("initdb").resolve().parent  # not on PATH
    # Not under pytest's folder: that one is closed to other users, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    root = os.geteuid() == 0
    if root:
        shutil.chown(folder, _USER)
    data, options = folder / "data", f"-c listen_addresses='' -c unix_socket_directories='{folder}'"

    def call(program: str, *arguments: str | Path) -> None:
        command = [str(binaries / program), *map(str, arguments)]
        subprocess.run(command, user=_USER if root else None, check=True, capture_output=True, cwd=folder)

    try:
        call("initdb", "--pgdata", data, "--username", _USER, "--auth", "trust", "--encoding", "UTF8")
        log = folder / "postgres.log"
        call("pg_ctl", "start", "--wait", "--timeout", "120", "--pgdata", data, "--log", log, "--options", options)
        try:
            yield {
                "DJANGO_DB": "default",
                "POSTGRE_NAME": "postgres",
                "POSTGRE_USER": _USER,
                "POSTGRE_HOST": str(folder),
                "POSTGRE_PORT": "5432",  # the name of the socket's file
            }
        finally:
            call("pg_ctl", "stop", "--wait", "--mode", "fast", "--pgdata", data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
