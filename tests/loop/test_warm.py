"""The models of recently used projects are loaded when the server starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.loop import served_models, serving, warm
from backend.loop.context import Context
from backend.loop.warm import Warmth, recent_projects
from backend.storage import file_sha256
from backend.store.store import ProjectRecord
from backend.yolo import approved_weights
from backend.yolo.predictors import Predictors
from tests.support import CONFIG, publish

RECORD = ProjectRecord(7, CONFIG, "", "", "", "")


def load(context: Context) -> str:
    warmth = Warmth(context)
    assert warmth.state == "not loaded"
    warmth.start().join()
    return warmth.state


def test_the_served_model_is_in_memory_before_the_first_request(context: Context, tiny_weights: Path) -> None:
    context.store.save_project(RECORD)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    (model,) = served_models.models_for(context, RECORD, accepted=False)
    assert model.weights is not None
    assert load(context) == "loaded"
    assert len(context.predictors) == 1
    context.predictors.get(model.weights, model.imgsz, model.device)
    assert len(context.predictors) == 1


def test_without_projects_nothing_is_loaded(context: Context) -> None:
    assert load(context) == "loaded"
    assert len(context.predictors) == 0


def test_the_state_names_a_model_that_cannot_be_loaded_and_the_others_are_loaded(
    context: Context, tiny_weights: Path
) -> None:
    for project_id in (7, 8):
        context.store.save_project(replace(RECORD, project_id=project_id))
        context.store.activate(project_id, publish(context.store, project_id, tiny_weights).number)
    version = context.store.serving(8)
    assert version is not None
    context.store.weights(version, "label").write_bytes(b"damaged")
    state = load(context)
    assert state.startswith("not loaded: project 8: weights of yolo11n-v1 are damaged")
    assert "project 7" not in state


@pytest.mark.parametrize(("attribute", "loads"), [("", False), ('smart="true"', True)])
def test_approved_sam_weights_are_loaded_for_projects_with_smart_tools(
    context: Context, monkeypatch: pytest.MonkeyPatch, attribute: str, loads: bool
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(Predictors, "sam", lambda _, weights, device: asked.append(weights))
    weights = context.work_dir / "sam2_t.pt"
    weights.write_bytes(b"weights")
    listing = approved_weights.entry(weights.name, file_sha256(weights))
    (context.work_dir / approved_weights.LISTING).write_text(listing)
    schema = CONFIG.replace("<RectangleLabels", f"<RectangleLabels {attribute}")
    context.store.save_project(replace(RECORD, label_config=schema))
    assert load(context) == "loaded"
    assert asked == ([weights] if loads else [])


def test_the_projects_trained_last_come_first(
    context: Context, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project_id, year in ((1, 2026), (2, 2024), (3, 2025), (4, 0), (5, 0)):
        context.store.save_project(replace(RECORD, project_id=project_id))
        if year:
            monkeypatch.setattr("tests.support.datetime", _Clock(year))
            publish(context.store, project_id, tiny_weights)
    assert recent_projects(context) == (1, 3, 2)
    monkeypatch.setattr(warm, "PROJECTS", 5)
    assert recent_projects(context) == (1, 3, 2, 5, 4)


def test_a_project_with_a_request_comes_before_projects_trained_earlier(context: Context, tiny_weights: Path) -> None:
    for project_id in (1, 2, 3, 4):
        context.store.save_project(replace(RECORD, project_id=project_id))
        publish(context.store, project_id, tiny_weights)
    assert recent_projects(context) == (4, 3, 2)
    serving.predict(context, 1, CONFIG, [])
    assert recent_projects(context) == (1, 4, 3)


def test_a_request_of_an_unknown_project_is_not_recorded(context: Context) -> None:
    serving.predict(context, 9, CONFIG, [])
    assert not (context.work_dir / "asked").exists()


class _Clock:
    """Replaces the clock that `publish` reads its date from."""

    def __init__(self, year: int) -> None:
        self._year = year

    def __call__(self, *_: int, **__: object) -> datetime:
        return datetime(self._year, 1, 1, tzinfo=UTC)
