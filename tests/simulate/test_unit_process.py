from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.simulate import unit_process
from tests.support import require


def test_a_unit_computes_with_one_thread(tmp_path: Path) -> None:
    require(Path("/proc/self/environ").exists(), "there is no /proc")
    process = unit_process.start(tmp_path, "random", 0, {**os.environ, "OPENBLAS_NUM_THREADS": "7"})
    try:
        environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    finally:
        process.kill()
        process.wait()
    assert b"OPENBLAS_NUM_THREADS=1" in environ


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Traceback ...\nerror: no such file [x]. Fix: y\n", "no such file [x]. Fix: y"),
        ("  \n", "its process ended with status 3"),
    ],
)
def test_the_last_line_of_output_is_the_reason(output: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "seed-0/random").mkdir(parents=True)
    (tmp_path / "seed-0/random" / unit_process.LOG_FILE).write_text(output)
    assert unit_process.reason_of(tmp_path, "random", 0, 3) == reason
