"""The state of a project between its rounds."""

from __future__ import annotations

import os
from pathlib import Path

from backend.evaluation.annotators import TaskAgreement
from backend.evaluation.effort import EffortLog
from backend.store.paths import effort_file
from backend.store.store import Store


def test_the_effort_log_is_read_again_only_after_a_change(tmp_path: Path) -> None:
    store, worker = Store(str(tmp_path)), Store(str(tmp_path))
    path = Path(store.files.where(effort_file(7)))
    assert store.state.effort(7) == EffortLog()
    for second, log in enumerate((EffortLog({1: "1 today"}), EffortLog({1: "2 today"}))):
        worker.state.save_effort(7, log)
        os.utime(path, (1000 + second, 1000 + second))  # old enough that a change would show in its time
        first = store.state.effort(7)
        assert first == log
        assert store.state.effort(7) is first
    assert store.state.effort(8) == EffortLog()
    store.state.save_effort(7, EffortLog({3: "3 today"}))
    assert store.state.effort(7) == EffortLog({3: "3 today"})


def test_agreements_are_those_of_the_log_whether_it_was_read_or_not(tmp_path: Path) -> None:
    store, worker = Store(str(tmp_path)), Store(str(tmp_path))
    assert store.state.agreements(7) == ()
    for pairs in (1, 2):
        log = EffortLog({1: "1 today"}, agreements=(TaskAgreement(1, "label", 2, pairs, 8),))
        worker.state.save_effort(7, log)
        os.utime(store.files.where(effort_file(7)), (1000 + pairs, 1000 + pairs))
        first = store.state.agreements(7)
        assert first == log.agreements
        assert store.state.agreements(7) is first
        assert store.state.effort(7) == log
        assert store.state.agreements(7) is store.state.effort(7).agreements
