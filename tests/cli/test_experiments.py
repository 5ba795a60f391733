"""`simulate --project` on the labels of a real project, with real trainings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import cli
from tests.cli.conftest import LabeledProject

SMALL = ("--strategies", "random", "--seeds", "1", "--initial", "2", "--batch", "1", "--rounds", "2", "--imgsz", "64")


@pytest.mark.label_studio
@pytest.mark.torch
def test_an_experiment_on_the_labels_of_a_project(labeled: LabeledProject, tmp_path: Path) -> None:
    out = tmp_path / "experiment"
    worker = [sys.executable, "-m", "backend.cli", "worker", "--queues", "train"]
    with subprocess.Popen(worker, env=labeled.environ) as process:
        try:
            done = cli(labeled.environ, "simulate", "--project", str(labeled.project), "--out", str(out), *SMALL)
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    assert "a fifth of all is measured on" in done.stdout
    results = json.loads((out / "results.json").read_text())
    assert (results["plan"]["pool"], results["plan"]["test"]) == (5, 1)
    assert results["plan"]["classes"] == ["cat", "dog"]
    assert len(results["rows"]) == 2
    assert (out / "report.html").is_file()


@pytest.mark.redis
@pytest.mark.parametrize("arguments", [(), ("--data", "scenes", "--project", "7")])
def test_the_data_are_a_data_set_or_a_project(
    environ: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = cli(environ, "simulate", "--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert "either --data or --project" in done.stderr
