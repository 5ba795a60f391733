"""The process of a unit, one strategy with one seed; the same for a local run and for an rq job."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

from backend.simulate import records
from backend.subprocesses import spawn

LOG_FILE, ERROR_FILE = "log.txt", "error.txt"
# numpy reads this when it is imported. With more threads, waiting for each other takes longer than the work.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def start(folder: Path, strategy: str, seed: int, environ: Mapping[str, str] = os.environ) -> Popen[bytes]:
    """Start a unit in its own process, which ends with the calling thread; its output goes to its log."""
    unit = records.unit_folder(folder, strategy, seed)
    unit.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "backend.cli", "simulate-unit", str(folder), strategy, str(seed)]
    with (unit / LOG_FILE).open("wb") as log_file:
        return spawn(command, {**environ, **_ONE_THREAD}, log_file)


def reason_of(folder: Path, strategy: str, seed: int, status: int) -> str:
    """Return the reason why a unit's process ended: the last line of its log."""
    path = records.unit_folder(folder, strategy, seed) / LOG_FILE
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"its process ended with status {status}"


def run_queued(folder: Path, strategy: str, seed: int) -> None:
    """Run a unit from an rq job; if it fails, write the reason for the command that waits for it."""
    error = records.unit_folder(folder, strategy, seed) / ERROR_FILE
    error.unlink(missing_ok=True)
    process = start(folder, strategy, seed)
    if process.wait():
        error.write_text(reason_of(folder, strategy, seed, process.returncode), encoding="utf-8")
