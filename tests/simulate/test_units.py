"""Small end-to-end experiments from the command line: 20 images, one epoch from untrained weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from backend.errors import SettingError
from backend.model_versions import Metrics
from backend.sampling import ranking
from backend.settings import Settings
from backend.simulate import records, simulation_data, units
from backend.simulate.records import INITIAL, Project, Results, Round
from backend.simulate.runner import Order, make_plan
from backend.simulate.units import Unit
from backend.subprocesses import running
from tests.browser import chromium_page
from tests.forked import run_command
from tests.support import IMGSZ, ROOT, tiny_yolo

pytestmark = pytest.mark.torch

POOL, TEST, START, BATCH = 20, 10, 8, 3
STRATEGIES = ("class_entropy", "random")
OPTIONS = {"strategies": ",".join(STRATEGIES), "seeds": 1, "initial": START, "batch": BATCH, "rounds": 3, "steps": 1}


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs with a box each, of two classes in turn."""
    root = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    for split, count in (("train", POOL), ("val", TEST)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((IMGSZ, IMGSZ), Image.Resampling.BICUBIC).save(root / f"images/{split}/{number:02}.png")
            (root / f"labels/{split}/{number:02}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root / "data.yaml"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Without redis, and with base weights that find boxes after an epoch."""
    models = tmp_path_factory.mktemp("models")
    tiny_yolo(models / "tiny.pt")
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    learning = {"BASE_MODEL": "tiny.pt", "MODEL_DIR": str(models), "MIN_EPOCHS": "1", "DEVICE": "cpu"}
    return {**inherited, **learning, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def command(data: Path | str, out: Path, **options: object) -> list[str]:
    arguments = {"data": data, "out": out, "imgsz": IMGSZ, **OPTIONS, **options}
    return [
        "simulate",
        *(word for name, value in arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))),
    ]


def simulate(
    environ: Mapping[str, str], data: Path | str, out: Path, **options: object
) -> subprocess.CompletedProcess[str]:
    done = run_command(environ, command(data, out, **options))
    assert "Traceback" not in done.stderr
    return done


def table(out: Path) -> list[dict[str, object]]:
    """Return the rows without their times."""
    rows = json.loads((out / "results.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if not name.endswith("_s")} for row in rows]


@pytest.fixture(scope="module")
def out(environ: dict[str, str], data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment of three rounds."""
    folder = tmp_path_factory.mktemp("experiment") / "out"
    done = simulate(environ, data_yaml, folder)
    assert done.returncode == 0, done.stderr
    assert "seed 0  round 3" in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> Results:
    return records.load_results(out / "results.json")


def test_there_is_a_row_for_every_strategy_and_round(results: Results) -> None:
    units = [(row.strategy, row.seed, row.round, row.images) for row in results.rows]
    assert units == [(name, 0, number + 1, START + number * BATCH) for name in STRATEGIES for number in range(3)]
    for row in results.rows:
        assert len(row.picked) == (START if row.round == 1 else BATCH)
        assert row.boxes == row.images  # one box each
        assert 0 <= row.map50_95 <= row.map50 <= 1
        assert set(row.class_ap50) == {"cat", "dog"}
        assert row.train_s > 0


def test_no_image_is_picked_twice_and_all_begin_alike(results: Results) -> None:
    rows = {name: [row for row in results.rows if row.strategy == name] for name in STRATEGIES}
    for unit_rows in rows.values():
        picked = [image for row in unit_rows for image in row.picked]
        assert len(set(picked)) == len(picked) == START + 2 * BATCH
    first, second = ([row.model_dump(exclude={"strategy"}) for row in unit_rows] for unit_rows in rows.values())
    assert first[0] == second[0]
    assert rows["class_entropy"][1].picked != rows["random"][1].picked


def test_only_randomly_drawn_images_are_held_out(out: Path) -> None:
    rounds = records.load_rounds(records.unit_folder(out, "class_entropy", 0))
    assert [finished.round for finished in rounds] == [1, 2, 3]
    assert all(finished.published for finished in rounds)  # so that the strategy did rank
    assert all(pick.random for pick in rounds[0].picked)
    for finished in rounds[1:]:
        assert not all(pick.random for pick in finished.picked)
        assert finished.score_s > 0
    assert rounds[0].validation != rounds[0].metrics  # a strategy is told of other images than those reported


def test_a_training_goes_on_from_the_version_that_serves(
    environ: dict[str, str], data_yaml: Path, out: Path, tmp_path: Path
) -> None:
    simulate(environ, data_yaml, tmp_path / "anew", strategies="random", train_from="base")
    anew, continued = (
        records.load_rounds(records.unit_folder(folder, "random", 0)) for folder in (tmp_path / "anew", out)
    )
    assert [finished.started_from for finished in anew] == [0, 0, 0]
    assert [finished.started_from for finished in continued] == [0, *(finished.champion for finished in continued[:-1])]
    assert [finished.picked for finished in continued] == [finished.picked for finished in anew]
    assert [finished.metrics == restarted.metrics for finished, restarted in zip(continued, anew, strict=True)] == [
        True,
        False,
        False,
    ]


def test_no_training_continues_from_weights_that_learned_held_out_images(
    environ: dict[str, str], data_yaml: Path, tmp_path: Path
) -> None:
    """The first training has learned from both of its images, of which the second holds out."""
    options = {"strategies": "random", "train_from": "last", "initial": 2, "batch": 7, "explore_share": 1.0}
    simulate({**environ, "VAL_SHARE": "0.86"}, data_yaml, tmp_path, **options)
    rounds = records.load_rounds(records.unit_folder(tmp_path, "random", 0))
    assert [finished.champion for finished in rounds] == [1, 2, 3]
    assert [finished.held_out for finished in rounds] == [False, True, True]
    assert [finished.started_from for finished in rounds] == [0, 0, 2]


def test_results_name_no_path_of_this_machine(out: Path, data_yaml: Path) -> None:
    text = (out / "results.json").read_text()
    assert str(data_yaml.parent.parent) not in text
    assert str(out) not in text
    assert f"{data_yaml.parent.name}/data.yaml" in text


def test_a_second_run_does_nothing_again(environ: dict[str, str], data_yaml: Path, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("round-*.json")}
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert simulate(environ, data_yaml, out).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("round-*.json")} == before
    assert json.loads((out / "results.json").read_text())["rows"] == rows


def test_a_killed_experiment_goes_on_where_it_was(
    environ: dict[str, str], data_yaml: Path, out: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    second = records.unit_folder(folder, STRATEGIES[0], 0) / "round-002.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", *command(data_yaml, folder)], env=environ, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not second.is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("seed-*/*/round-*.json")}
    assert len(before) >= 3
    assert not (folder / "results.json").exists()
    assert simulate(environ, data_yaml, folder, jobs=2).returncode == 0  # at a time: the numbers stay the same
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert table(folder) == table(out)


def test_workers_give_the_same_table_bit_for_bit(
    environ: dict[str, str], data_yaml: Path, out: Path, tmp_path: Path, redis_url: str
) -> None:
    with_redis = {**environ, "REDIS_URL": redis_url}
    worker = [sys.executable, "-m", "backend.cli", "worker", "--queues", "train"]
    with running(worker, with_redis, tmp_path / "one.log"), running(worker, with_redis, tmp_path / "two.log"):
        done = simulate(with_redis, data_yaml, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out") == table(out)


def test_a_worker_says_why_a_unit_failed(
    environ: dict[str, str], data_yaml: Path, tmp_path: Path, redis_url: str
) -> None:
    with_redis = {**environ, "REDIS_URL": redis_url, "DEVICE": "7"}
    with running([sys.executable, "-m", "backend.cli", "worker", "--queues", "train"], with_redis, tmp_path / "log"):
        done = simulate(with_redis, data_yaml, tmp_path / "out")
    assert done.returncode == 1
    assert "initial, seed 0: DEVICE='7'" in done.stderr


def test_another_plan_in_the_same_folder_is_refused(environ: dict[str, str], data_yaml: Path, out: Path) -> None:
    before = (out / "plan.json").read_bytes()
    done = simulate(environ, data_yaml, out, steps=2)
    assert done.returncode == 1
    assert "this folder holds another experiment: TRAIN_STEPS was 1, now 2" in done.stderr
    assert "name another --out folder" in done.stderr
    assert (out / "plan.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategies": "no_such"}, "unknown strategy 'no_such'"),
        ({"strategies": " , "}, "no strategy"),
        ({"protocol": "bottom"}, "PROTOCOL='bottom'"),
        ({"batch": 7}, "the train split has 20 images, and the experiment labels 22"),
        ({"data": "nowhere.yaml"}, "no such file"),
        ({"device": "7"}, "DEVICE='7'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    environ: dict[str, str], data_yaml: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    done = simulate(environ, options.pop("data", data_yaml), tmp_path / "out", **options)  # type: ignore[arg-type]
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["seeds", "initial", "batch", "rounds", "steps", "imgsz", "explore_share", "jobs"])
def test_every_number_has_its_bounds(environ: dict[str, str], data_yaml: Path, tmp_path: Path, option: str) -> None:
    done = simulate(environ, data_yaml, tmp_path / "out", **{option: -1})
    assert done.returncode == 2
    assert f"--{option.replace('_', '-')}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_version_that_is_not_published_leaves_the_queue_as_it_is(out: Path, tmp_path: Path) -> None:
    plan = records.load_plan(out)
    records.save_plan(tmp_path, plan)
    data = simulation_data.read(Path(plan.data))
    ids = simulation_data.task_ids(data, 0)
    order = tuple(ids[ranking.shuffled(ids)].tolist())
    shared = records.load_rounds(records.unit_folder(out, INITIAL, 0))[0]
    assert tuple(pick.id for pick in shared.picked) == order[:START]
    nothing = Metrics(0, 0, {}, images=2, boxes=2, detections=0)
    refused = Round.model_validate(shared.model_dump() | {"published": False, "validation": nothing, "champion": 0})
    records.save_round(records.unit_folder(tmp_path, "class_entropy", 0), refused)
    queue = Unit(tmp_path, "class_entropy", 0).queue(2)
    assert queue.order == order[START:]
    assert queue.explored == set(order[START:])
    assert queue.score_s == 0


def test_a_version_that_cannot_rank_still_predicts_the_images(out: Path, tmp_path: Path) -> None:
    shutil.copytree(records.unit_folder(out, INITIAL, 0), records.unit_folder(tmp_path, INITIAL, 0))
    records.save_plan(tmp_path, records.load_plan(out))
    first = records.load_rounds(records.unit_folder(out, INITIAL, 0))[0]
    unit = records.unit_folder(tmp_path, "learning_loss", 0)
    records.save_round(unit, first)
    queue = Unit(tmp_path, "learning_loss", 0).queue(2)
    assert "labeled_losses of 10 images" in queue.unranked
    assert queue.order == first.order
    assert queue.losses.keys() == set(first.order)


def test_a_live_project_has_a_task_for_each_image(data_yaml: Path, tmp_path: Path) -> None:
    project = Project(id=5, task_ids=(1,) * POOL)
    order = Order(str(data_yaml), STRATEGIES, 1, START, BATCH, 2, tmp_path / "out", 1, project)
    with pytest.raises(SettingError, match=f"1 tasks for {POOL} images"):
        make_plan(order, Settings(device="cpu"), Console(quiet=True))


def test_a_data_set_that_changed_since_is_refused(out: Path, tmp_path: Path) -> None:
    plan = records.load_plan(out)
    records.save_plan(tmp_path, plan.model_copy(update={"data_sha256": "0"}))
    with pytest.raises(Exception, match="the data set has changed"):
        units.run_unit(tmp_path, INITIAL, 0)


def test_the_report_opens_and_loads_nothing(out: Path) -> None:
    with chromium_page() as page:
        requested: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((out / "report.html").as_uri())
        text = page.inner_text("body")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        shown = page.locator(".picks i").count()
        backgrounds = page.evaluate("getComputedStyle(document.querySelector('.picks i')).backgroundImage")
        points = page.locator("svg circle").count()
    assert [url for url in requested if not url.startswith("data:")] == [(out / "report.html").as_uri()]
    assert complaints == []
    assert "Nothing was learned: the best mAP50 of all 6 trainings is 0.000." in text  # of one step each
    assert (
        points == (2 + 2) * 2 * 3
    )  # a chart over images, over labels and of both classes; two strategies, three rounds
    assert shown == 2 * (START + 2 * BATCH)
    assert backgrounds.startswith('url("data:image/jpeg')


def test_a_ranked_first_batch_has_a_random_share_and_needs_no_training(
    environ: dict[str, str], data_yaml: Path, tmp_path: Path
) -> None:
    order = Order(str(data_yaml), ("random", "typiclust+random"), 1, START, BATCH, 1, tmp_path, 1)
    learning = {"base_model": "tiny.pt", "model_dir": environ["MODEL_DIR"], "imgsz": IMGSZ, "explore_share": 0.25}
    records.save_plan(tmp_path, make_plan(order, Settings(device="cpu", **learning), Console(quiet=True)))
    chance, ranked = (Unit(tmp_path, name, 0).queue(1) for name in (INITIAL, "initial-typiclust"))
    assert chance.explored == set(chance.order) == set(ranked.order)
    assert len(ranked.explored & set(ranked.order[:START])) == 0.25 * START
    assert ranked.order[:START] != chance.order[:START]
    assert Unit(tmp_path, "initial-typiclust", 0).queue(1).order == ranked.order


@pytest.mark.parametrize(
    ("strategies", "reason"),
    [
        (("probcover+random",), r"a first batch by probcover needs pretrained base weights"),
        (("entropy+random",), "unknown first batch 'entropy'"),
        (("typiclust+no_such",), "unknown strategy 'no_such'"),
    ],
)
def test_a_first_batch_that_cannot_be_made_is_refused(
    data_yaml: Path, tmp_path: Path, strategies: tuple[str, ...], reason: str
) -> None:
    order = Order(str(data_yaml), strategies, 1, START, BATCH, 2, tmp_path / "out", 1)
    scratch = Settings(base_model="yolo11x.pt", model_dir=str(tmp_path), device="cpu")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "yolo11x.unavailable").touch()  # so that nothing is downloaded
    with pytest.raises(SettingError, match=reason):
        make_plan(order, scratch, Console(quiet=True))
