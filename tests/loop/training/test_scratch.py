"""The files of a killed training are removed when a worker starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.loop.training import scratch
from tests.support import ROOT

pytestmark = pytest.mark.processes

TRAINING = """
import pathlib, sys, time
from backend.loop.training import scratch
with scratch.folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "images").mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_gone_after_its_block(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as folder:
        (folder / "weights.pt").touch()
        scratch.clear(tmp_path)
        assert (folder / "weights.pt").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_folder_of_a_killed_training_is_removed_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path)]
    trainings = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    try:
        killed, running = (Path(training.stdout.readline().strip()) for training in trainings if training.stdout)
        trainings[0].kill()
        trainings[0].wait()
        assert killed.exists()
        scratch.clear(tmp_path)
        assert (killed.exists(), running.exists()) == (False, True)
    finally:
        for training in trainings:
            training.kill()
            training.communicate()


def test_a_worker_clears_at_its_start(tmp_path: Path) -> None:
    """The worker ends at once, because there is no redis. A folder of an earlier release has no lock."""
    left = tmp_path / "scratch/training-old"
    left.mkdir(parents=True)
    starting, forgotten = (tmp_path / "scratch" / f"starting-{name}" for name in ("now", "forgotten"))
    starting.mkdir()
    forgotten.mkdir()
    os.utime(forgotten, (time.time() - 7200,) * 2)
    environ = os.environ | {"MODEL_DIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "backend.cli", "worker", "--queues", "train"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert [left.exists(), starting.exists(), forgotten.exists()] == [False, True, False]
