"""Memory that a process may take: decoders run in processes of their own, for a file's header need not be true."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from backend.errors import MachineError

LEAST_BYTES = 128_000_000  # of any decoder: the stacks of its threads, and what libraries load at their first use


def environ() -> dict[str, str]:
    """Return an environment in which libraries reserve no memory that they do not need."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | threads | {"MALLOC_ARENA_MAX": "1"}


def limit(max_bytes: int) -> None:
    """Let this process take at most `max_bytes` more than it has; what asks for more is refused by the system."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def check_end(status: int) -> None:
    """Raise MachineError where the system killed a decoder: that is what it does when it runs out of memory."""
    if status == -signal.SIGKILL:
        fix = "give the machine more memory, or lower MAX_MEGAPIXELS"
        raise MachineError("the system killed the process that decodes a file", fix=fix)
