"""Limits on the memory of decoders, which run in processes of their own because a file's header may be wrong."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from backend.errors import MachineError

LEAST_BYTES = 128_000_000  # any decoder needs this for the stacks of its threads, and for libraries it loads later


def environ() -> dict[str, str]:
    """Return environment variables with which libraries reserve no memory that they do not use."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | threads | {"MALLOC_ARENA_MAX": "1"}


def limit(max_bytes: int) -> None:
    """Let this process take at most `max_bytes` more memory than it has now; the system refuses any more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def check_end(status: int) -> None:
    """Raise MachineError if the system killed the decoder with this exit status, as it does without free memory."""
    if status == -signal.SIGKILL:
        fix = "give the machine more memory, or lower MAX_MEGAPIXELS"
        raise MachineError("the system killed the process that decodes a file", fix=fix)
