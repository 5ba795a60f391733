from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.acquisition.duplicates import twins
from backend.datasets import synthetic
from backend.evaluation.bootstrap import Measured
from backend.evaluation.promotion import Contest, judge
from backend.model_versions import Metrics
from backend.simulate import simulation_data
from backend.simulate.curves import labels_to_target
from tests.benchmarks import __main__ as bench
from tests.benchmarks import near_copies, picks, promotion_rules, proof, report, timing
from tests.benchmarks.experiments import DEFAULT, EXPERIMENTS, Experiment, copy_initial, distinct
from tests.benchmarks.lines import COMMITTED, Line, Table, load
from tests.benchmarks.report import Result
from tests.evaluation.test_bootstrap import matches

pytestmark = pytest.mark.processes

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
    assert [(result["benchmark"], result["value"], result["met"]) for result in document["results"]] == [
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
    assert [len(rounds) for rounds in seconds] == [2, 2]


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


def test_every_committed_experiment_is_known_and_complete() -> None:
    experiments = {experiment.name: experiment for experiment in proof.SECTIONS}
    assert len(experiments) == len(proof.SECTIONS)
    for path in COMMITTED.glob("*.json"):
        table = load(path.stem)
        names = [line.name for line in table.lines]
        assert experiments[path.stem].control in names
        assert len(set(names)) == len(names)
        assert {len(line.images) for line in table.lines} == {len(table.lines[0].images)}  # seeds


def test_the_distinct_scenes_are_the_repeated_ones_each_once(tmp_path: Path) -> None:
    data = synthetic.generate(tmp_path, pool=20, test=1, seed=0, copies=5, foreign=0.05)
    distinct_data = simulation_data.read(distinct(data))
    assert [distinct_data.name(image) for image in range(len(distinct_data.pool))] == [
        f"images/pool/{place:05d}.jpg" for place in (0, 5, 10, 15)
    ]


def test_scenes_and_strangers_among_picks_are_counted() -> None:
    names = [f"images/pool/{place:05d}.jpg" for place in (0, 4, 5, 18, 19)]  # of 20 the last does not belong
    assert picks.count(names, 20) == (3, 1)
    assert picks.count([], 20) == (0, 0)


def test_an_experiment_has_a_line_for_every_strategy_and_arm() -> None:
    for experiment in EXPERIMENTS:
        if (COMMITTED / f"{experiment.name}.json").is_file():
            wanted = [arm.name or strategy for arm in experiment.arms for strategy in arm.strategies]
            assert [line.name for line in load(experiment.name).lines] == wanted


def test_the_share_of_labels_is_held_against_the_target(tmp_path: Path) -> None:
    wanted = [entry for entry in proof.committed() if entry.target is not None]
    results = [entry for entry in proof.run(tmp_path) if entry.unit == "x"]
    assert [entry.target for entry in results] == [entry.target for entry in wanted]
    for entry, result in zip(wanted, results, strict=True):
        table = load(entry.name)
        curve, random = (table.line(name).curve for name in (entry.judged, entry.control))
        seeds = np.arange(len(random.labels))
        needed = labels_to_target(*curve.mean(seeds), float(random.quality[:, -1].mean()))
        expected = needed / random.labels[0, -1]
        assert result.value == pytest.approx(expected if math.isfinite(expected) else 9.99)


@pytest.mark.parametrize(
    ("ours", "worst"),
    [
        ([[0.4, 0.5], [0.4, 0.5]], 0.0),  # no worse
        ([[0.3, 0.5], [0.4, 0.5]], 0.0),  # worse by chance: one seed is not
        ([[0.3, 0.5], [0.3, 0.6]], 0.1),  # worse with both seeds, in the first round
    ],
)
def test_behind_is_what_no_seed_makes_up_for(ours: list[list[float]], worst: float) -> None:
    images = ((1.0, 2.0), (1.0, 2.0))
    lines = [
        Line(name=DEFAULT, images=images, quality=tuple(map(tuple, ours))),
        Line(name="random", images=images, quality=((0.4, 0.5), (0.4, 0.5))),
    ]
    table = Table(lines=tuple(lines), facts="", date=datetime.now(UTC), machine="", software={})
    assert proof.behind(Experiment("x", "?", ()), table) == pytest.approx(worst)


def test_a_shared_first_training_is_taken_over_once_it_is_finished(tmp_path: Path) -> None:
    half, done = tmp_path / "a" / "seed-0" / "initial", tmp_path / "a" / "seed-1" / "initial"
    for unit in (half, done):
        unit.mkdir(parents=True)
        (unit / "weights-001.pt").write_bytes(b"w")
        (unit / "progress.txt").write_text("1")
    (done / "round-001.json").write_text("{}")
    copy_initial(tmp_path / "a", tmp_path / "b", seeds=3)
    assert [path.name for path in sorted((tmp_path / "b").iterdir())] == ["seed-1"]
    assert (tmp_path / "b" / "seed-1" / "initial" / "weights-001.pt").read_bytes() == b"w"


def test_the_committed_results_are_of_every_benchmark() -> None:
    document = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert {result["benchmark"] for result in document["results"]} == set(bench.BENCHMARKS)


@pytest.mark.parametrize("right", [0.2, 0.55, 0.6, 0.65, 0.9])
def test_the_rule_of_all_labels_is_productions(right: float) -> None:
    """The rule of the experiments and `evaluation.promotion.judge` of live projects decide alike."""
    rng, rows = np.random.default_rng(0), np.arange(8)
    champion, challenger = matches(rng, 8, 0.6), matches(rng, 8, right)
    now = promotion_rules.Round(rows[:0], rows, (rows[:0], rows[:0]), {})
    decided = promotion_rules.labels(now, promotion_rules.Challenger(challenger, ()), champion)
    ours, theirs = (
        Measured(Metrics(promotion_rules.quality(model, rows), 0.1, {}, 8, 16, 24, held_out=False), model)
        for model in (challenger, champion)
    )
    published, reason = judge(
        ours, theirs, finite=True, tolerance=promotion_rules.TOLERANCE, on_labels=Contest(ours, theirs)
    )
    assert "all 8 labeled images" in reason
    assert decided == published


def test_the_clusters_of_generated_near_copies_are_their_groups() -> None:
    pool, looks = near_copies.generated(0)
    leaders = twins(pool.columns["thumbnails"], np.random.default_rng(0))
    assert np.array_equal(looks[leaders], looks)
    assert len(set(leaders.tolist())) == near_copies.GROUPS + near_copies.SINGLES
