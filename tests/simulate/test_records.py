from __future__ import annotations

import math
from pathlib import Path

import pytest

from backend.errors import DataError, NotFoundError, SettingError
from backend.model_versions import Metrics
from backend.settings import Settings
from backend.simulate import records
from backend.simulate.records import Base, Pick, Plan, Project, Round

PLAN = Plan(
    data="/somewhere/blood/data.yaml",
    data_sha256="abc",
    classes=("cat", "dog"),
    pool=20,
    test=6,
    strategies=("entropy", "random"),
    seeds=2,
    rounds=3,
    initial=8,
    batch=3,
    base=Base(source="yolo11n.yaml"),
    settings=records.learning_settings(Settings(label_studio_api_key="a secret", basic_auth_pass="another secret")),
    software={"torch": "2"},
)


def finished(number: int) -> Round:
    return Round(
        round=number,
        images=5 + 3 * number,
        boxes=9,
        picked=(Pick(id=7, image="a.png", random=True),),
        metrics=Metrics(0.1 + 0.2, 1 / 3, {"cat": 2 / 3, "dog": 0.0}, 6, 9, 12),
        validation=Metrics(0.25, 0.125, {"cat": 0.25}, 2, 3, 4),
        held_out=True,
        published=True,
        reason="published: the first version",
        champion=number,
        order=(3, 1, 2),
        explored=(1,),
        losses={3: 0.7},
        train_s=1.5,
        score_s=0.5,
        rank_s=0.25,
    )


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"batch": 4}, "batch was 3, now 4"),
        ({"initial": 9}, "initial was 8, now 9"),
        ({"data_sha256": "def"}, "data_sha256 was abc, now def"),
        ({"settings": PLAN.settings | {"train_from": "base"}}, "TRAIN_FROM was last, now base"),
        ({"task": "obb"}, "task was detect, now obb"),
        ({"software": {"torch": "3"}}, "software was {'torch': '2'}, now {'torch': '3'}"),
        ({"settings": PLAN.settings | {"train_steps": 7}}, "TRAIN_STEPS was 500, now 7"),
        ({"settings": PLAN.settings | {"device": "0"}}, "DEVICE was , now 0"),
        ({"project": Project(id=3, task_ids=(7,))}, "project was None, now id=3 task_ids=(7,)"),
        ({"base": Base(source="yolo11s.yaml")}, "trainings began with yolo11n.yaml, now with yolo11s.yaml"),
        ({"base": Base(source="yolo11n.pt", sha256="1")}, "trainings began with yolo11n.yaml, now with yolo11n.pt"),
    ],
)
def test_a_plan_that_does_not_compare_is_refused(change: dict[str, object], difference: str, tmp_path: Path) -> None:
    records.save_plan(tmp_path, PLAN)
    with pytest.raises(SettingError) as caught:
        records.save_plan(tmp_path, PLAN.model_copy(update=change))
    assert caught.value.what == f"this folder holds another experiment: {difference}"
    assert records.load_plan(tmp_path) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"strategies": ("margin", "random")},
        {"seeds": 5},
        {"rounds": 6},
        {"data": "/moved/data.yaml"},
        {"settings": {name: value for name, value in PLAN.settings.items() if name != "tolerance"}},  # an older version
    ],
)
def test_a_plan_may_grow(change: dict[str, object], tmp_path: Path) -> None:
    records.save_plan(tmp_path, PLAN)
    records.save_plan(tmp_path, PLAN.model_copy(update=change))
    assert records.load_plan(tmp_path) == PLAN.model_copy(update=change)


def test_a_plan_holds_no_secret_and_no_path(tmp_path: Path) -> None:
    records.save_plan(tmp_path, PLAN)
    assert "secret" not in (tmp_path / "plan.json").read_text()
    shown = PLAN.model_copy(update={"base": Base(source="/models/yolo11n.pt", sha256="1")}).without_paths()
    assert (shown.data, shown.base.source) == ("blood/data.yaml", "yolo11n.pt")
    assert PLAN.model_copy(update={"data": "/somewhere/pets"}).without_paths().data == "pets"


def test_each_seed_is_a_project_of_its_own() -> None:
    settings = PLAN.settings_for(4)
    assert (settings.seed, settings.retrain_every) == (4, 3)


def test_rounds_come_back_bit_for_bit(tmp_path: Path) -> None:
    unit = records.unit_folder(tmp_path, "entropy", 1)
    for number in (2, 1):
        records.save_round(unit, finished(number))
    assert records.load_rounds(unit) == (finished(1), finished(2))
    (row,) = records.rows_of(tmp_path, "entropy", 1, rounds=1)
    assert (row.map50, row.map50_95, row.class_ap50["cat"]) == (0.1 + 0.2, 1 / 3, 2 / 3)
    assert (row.strategy, row.seed, row.round, row.picked) == ("entropy", 1, 1, ("a.png",))
    assert math.fsum([row.train_s, row.score_s, row.rank_s]) == 2.25


def test_a_unit_that_has_not_begun_has_no_rounds(tmp_path: Path) -> None:
    assert records.load_rounds(records.unit_folder(tmp_path, "entropy", 0)) == ()


def test_a_folder_without_an_experiment_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no experiment here"):
        records.load_plan(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"round": "one"}'])
def test_a_damaged_round_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "round-001.json").write_bytes(content)
    with pytest.raises(DataError, match="not a file of an experiment") as caught:
        records.load_rounds(tmp_path)
    assert caught.value.where == str(tmp_path / "round-001.json")
