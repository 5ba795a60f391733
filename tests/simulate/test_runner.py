"""The progress of a running experiment: finished rounds, their time, and the expected remaining time."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from backend.simulate import records, runner
from backend.simulate.history import PROGRESS_FILE
from backend.simulate.records import INITIAL
from tests.simulate.test_records import PLAN, finished


def test_rounds_are_counted_with_the_time_that_is_left(tmp_path: Path) -> None:
    """Two seeds of two strategies with three rounds each; the first round is shared, so there are 10 in all."""
    shown = Console(file=io.StringIO(), force_terminal=True, width=120, record=True)
    records.save_plan(tmp_path, PLAN)
    done(tmp_path, INITIAL, 1, 1.0)
    with runner.progress_bar(shown, tmp_path, PLAN) as show:
        done(tmp_path, "entropy", 1, 1.0)
        done(tmp_path, "entropy", 2, 2.5)  # half of the third as well
        show()
        show()
    text = shown.export_text()
    assert re.search(r" 2/10 +25% +\d:\d\d:\d\d +\d:\d\d:\d\d", text)  # since the start, and to the end
    assert "entropy              seed 0  round 2     11 images      9 boxes  mAP50 not judged yet" in text
    assert "round 1" not in text  # it was finished before, or is the same for all strategies


def done(folder: Path, strategy: str, number: int, progress: float) -> None:
    unit = records.unit_folder(folder, strategy, 0)
    records.save_round(unit, finished(number))
    (unit / PROGRESS_FILE).write_text(str(progress))
