"""A unit of an experiment, one strategy with one seed, as a process: started here or from an rq job, it is the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

from backend.simulate import records
from backend.subprocesses import spawn

LOG_FILE, ERROR_FILE = "log.txt", "error.txt"
# For numpy, which reads it as it is imported: threads that spin wait for each other longer than the work takes.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def start(folder: Path, strategy: str, seed: int, environ: Mapping[str, str] = os.environ) -> Popen[bytes]:
    """Start a unit in a process of its own, which ends with the calling thread; what it says goes to its log."""
    unit = records.unit_folder(folder, strategy, seed)
    unit.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "backend.cli", "simulate-unit", str(folder), strategy, str(seed)]
    with (unit / LOG_FILE).open("wb") as log_file:
        return spawn(command, {**environ, **_ONE_THREAD}, log_file)


def reason_of(folder: Path, strategy: str, seed: int, status: int) -> str:
    """Return why a unit's process ended: the last thing it said."""
    path = records.unit_folder(folder, strategy, seed) / LOG_FILE
    said = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1].removeprefix("error: ") if said else f"its process ended with status {status}"


def run_queued(folder: Path, strategy: str, seed: int) -> None:
    """Run a unit from an rq job; if it fails, leave the reason for the command that waits for it."""
    error = records.unit_folder(folder, strategy, seed) / ERROR_FILE
    error.unlink(missing_ok=True)
    process = start(folder, strategy, seed)
    if process.wait():
        error.write_text(reason_of(folder, strategy, seed, process.returncode), encoding="utf-8")
