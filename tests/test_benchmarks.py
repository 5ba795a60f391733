from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.curves import labels_to_target
from tests.benchmarks import __main__ as bench
from tests.benchmarks import proof, report, timing
from tests.benchmarks.report import Result

FAST = Result("predict", "throughput", 1.234567, 0.9, "x", details={"ours images/s": 12.34567})
SLOW = Result("latency", "p99 of /health", 250.0, 100.0, "ms", at_most=True)


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(0.9, False, True), (0.89, False, False), (0.9, True, True), (0.91, True, False), (math.nan, True, False)],
)
def test_a_promise_is_met_at_its_target(value: float, at_most: bool, met: bool) -> None:
    assert Result("x", "x", value, 0.9, "x", at_most).met is met


def test_the_table_says_what_was_missed() -> None:
    recorder = Console(width=200, record=True, file=io.StringIO())
    recorder.print(report.table([FAST, SLOW]))
    fast, slow = (line for line in recorder.export_text().splitlines() if "yes" in line or "NO" in line)
    assert "1.23 x" in fast
    assert "≥ 0.9 x" in fast
    assert "ours images/s 12.35" in fast
    assert "≤ 100 ms" in slow
    assert "NO" in slow


def test_the_file_holds_results_and_where_they_are_from(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.write([FAST, SLOW], path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert {"date", "software", "machine", "results"} == set(document)
    assert document["machine"]["cores"] >= 1
    assert [(one["benchmark"], one["value"], one["met"]) for one in document["results"]] == [
        ("predict", 1.235, True),
        ("latency", 250.0, False),
    ]


def test_no_results_make_an_empty_file(tmp_path: Path) -> None:
    report.write([], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["results"] == []


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write([Result("x", "x", math.nan, 1.0, "x")], tmp_path / "results.json")


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    seconds = timing.interleaved(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert [len(each) for each in seconds] == [2, 2]


def test_a_partial_run_keeps_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(bench, "BENCHMARKS", {"good": lambda _: [FAST], "bad": lambda _: [SLOW]})
    assert bench.main(["good"]) == 0
    assert not bench.RESULTS.exists()
    assert bench.main([]) == 1
    assert len(json.loads(bench.RESULTS.read_text())["results"]) == 2


def test_an_unknown_benchmark_is_answered_with_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["speed"])
    assert "predict_single" in capsys.readouterr().err


def test_the_page_of_results_is_that_of_the_committed_experiments() -> None:
    """`python -m tests.benchmarks.proof` writes it."""
    assert proof.PAGE.read_text(encoding="utf-8") == proof.page()


def test_every_experiment_is_complete_and_names_no_path() -> None:
    assert {path.stem for path in proof.FOLDER.glob("*.json")} == {one.name for one in proof.EXPERIMENTS}
    for experiment in proof.EXPERIMENTS:
        plan, rows = experiment.results.plan, experiment.results.rows
        assert len(rows) == len(plan.strategies) * plan.seeds * plan.rounds
        assert not Path(plan.data).is_absolute()


def test_the_share_of_labels_is_held_against_the_target(tmp_path: Path) -> None:
    wanted = [one for one in proof.EXPERIMENTS if one.target is not None]
    found = proof.run(tmp_path)
    assert [one.target for one in found] == [one.target for one in wanted]
    for one, result in zip(wanted, found, strict=True):
        curve, random = (proof.curve(one.results, name) for name in (one.default, proof.RANDOM))
        seeds = np.arange(one.results.plan.seeds)
        needed = labels_to_target(*curve.mean(seeds), float(random.quality[:, -1].mean()))
        assert result.value == pytest.approx(needed / random.labels[0, -1])


def test_the_committed_results_are_of_every_benchmark() -> None:
    document = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert {one["benchmark"] for one in document["results"]} == set(bench.BENCHMARKS)
