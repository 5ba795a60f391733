"""Commands as processes of their own that begin with everything imported: imports cost most of a short command's time.

A server without threads imports the modules once and forks a process per command, so each command has an environment,
input, output and exit status of its own, as when a shell starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_S = 600
_FORKS = multiprocessing.get_context("forkserver")
# Not ultralytics: it reads its environment at import.
_FORKS.set_forkserver_preload(["backend.cli.app", "backend.worker.jobs", "backend.cli.doctor", "torch", "tests.forked"])
_STREAMS = ("stdin", "stdout", "stderr")  # in the order of their file descriptors


def run_command(
    environ: Mapping[str, str], arguments: Sequence[str], answer: str = "", timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run `yolo-backend` with `arguments`; `answer` is its input. Raises TimeoutExpired after `timeout_s`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stdin").write_text(answer)
        process = _FORKS.Process(target=_run, args=(tuple(arguments), dict(environ), folder))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        output, complaints = ((folder / stream).read_text() for stream in _STREAMS[1:])
        return subprocess.CompletedProcess(list(arguments), process.exitcode, output, complaints)


def _run(arguments: tuple[str, ...], environ: dict[str, str], folder: Path) -> None:
    """Take the command's environment and streams, and run it as `python -m backend.cli` does."""
    os.environ.clear()
    os.environ.update(environ)
    for descriptor, stream in enumerate(_STREAMS):
        mode = "r" if stream == "stdin" else "w"
        with (folder / stream).open(mode) as file:
            os.dup2(file.fileno(), descriptor)
        setattr(sys, stream, open(descriptor, mode, closefd=False))  # noqa: SIM115 stays open until the process ends
    sys.argv = ["yolo-backend", *arguments]
    from backend.cli.app import main

    main()
