"""A Label Studio that validates predictions refuses a whole import for one of them; the others are imported anyway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import LabelStudioError, LabelStudioRefusedError
from backend.evaluation.label_quality import SUSPECT
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.labelstudio.client.filters import LABELED, condition, filters
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB, QUEUE_TAB
from backend.loop.context import Context
from backend.loop.scoring import push
from backend.loop.served_models import ServedModel
from backend.types import Json, Region
from tests.browser import signed_in
from tests.studio_database import LOGIN
from tests.support import CONFIG

pytestmark = pytest.mark.label_studio


@pytest.fixture(params=["label_studio", "validating_label_studio"])
def client(request: pytest.FixtureRequest) -> Iterator[LabelStudioClient]:
    process: LabelStudioProcess = request.getfixturevalue(request.param)
    with LabelStudioClient(process.url, process.api_key) as client:
        yield client


@pytest.fixture
def project(client: LabelStudioClient) -> int:
    return client.projects.create("validation", CONFIG)


def add_tasks(client: LabelStudioClient, project: int, count: int) -> list[int]:
    rows = [{"image": f"http://images.example/{n}.png"} for n in range(count)]
    client.http.send("POST", f"/api/projects/{project}/import", rows)
    return [task.id for task in client.tasks.unlabeled(project)]


def region(label: str) -> Region:
    value = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": [label]}
    return Region("r1", "rectanglelabels", "label", "image", value, 0.5, 100, 100)


def test_a_refused_prediction_affects_only_its_own_task(
    client: LabelStudioClient, project: int, context: Context
) -> None:
    ids = add_tasks(client, project, 40)
    bad = {ids[3], ids[20], ids[39]}
    rows = [PredictionRow(task, 0.5, (region("gone" if task in bad else "cat"),)) for task in ids]
    model = ServedModel(
        project, 1, "yolo11n-v1", ("cat", "dog"), None, 1.0, None, 64, "cpu", label_config.parse(CONFIG)[0], "label"
    )
    with_studio = replace(context, label_studio=client)
    assert push.write_predictions(with_studio, model, iter(rows), [], push.no_check) == len(ids)
    regions = {task: [len(prediction.result) for prediction in client.predictions.of_task(task)] for task in ids}
    assert regions == {task: [0 if task in bad else 1] for task in ids}
    failures = context.progress.failures(project)
    assert set(failures) == bad
    assert all("gone" in reason for reason in failures.values())


def test_deleted_tasks_and_refused_predictions_in_one_batch(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 6)
    client.http.send("DELETE", f"/api/tasks/{ids[2]}/")
    rows = [PredictionRow(task, 0.5, (region("gone" if task == ids[4] else "cat"),)) for task in ids]
    refused: dict[int, str] = {}
    assert client.prediction_import.run(project, "v1", rows, refused.__setitem__) == 5
    assert set(refused) == {ids[4]}


def test_if_most_are_refused_nothing_is_written(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 2)
    rows = [PredictionRow(task, 0.5, (region("gone"),)) for task in ids]
    with pytest.raises(LabelStudioError):
        client.prediction_import.run(project, "v1", rows, lambda task, reason: None)
    assert client.predictions.versions(project) == {}


def test_a_refused_change_of_one_prediction_leaves_it_without_regions(client: LabelStudioClient, project: int) -> None:
    """A Label Studio that does not validate accepts any prediction."""
    (task,) = add_tasks(client, project, 1)
    refused: dict[int, str] = {}
    client.predictions.create("v1", PredictionRow(task, 0.5, (region("cat"),)))
    (stored,) = client.predictions.of_task(task)
    client.predictions.update(stored.id, "v1", PredictionRow(task, 0.25, (region("gone"),)), refused.__setitem__)
    (stored,) = client.predictions.of_task(task)
    assert (stored.score, len(stored.result)) == (0.25, 1 - len(refused))
    if refused:
        assert "gone" in refused[task]
        with pytest.raises(LabelStudioRefusedError, match="gone"):
            client.predictions.update(stored.id, "v1", PredictionRow(task, 0.25, (region("gone"),)))


# ── the tab of possible label errors ────────────────────────────────────────────────────────────────────────────


def tab(client: LabelStudioClient, project: int) -> Json:
    views = client.http.get("/api/dm/views/", project=project)
    (view,) = (view for view in views if view["data"]["title"] == LABEL_ISSUES_TAB)
    data: Json = view["data"]
    return data | {"id": view["id"]}


def listed(client: LabelStudioClient, project: int) -> list[int]:
    answer = client.http.get("/api/tasks", view=tab(client, project)["id"], include="id")
    return [task["id"] for task in answer["tasks"]]


def old_tab(client: LabelStudioClient, project: int, *more: Json) -> None:
    """Make the tab as an earlier release did."""
    suspicious = condition("predictions_score", "greater", "Number", 1.25)
    data = {
        "title": LABEL_ISSUES_TAB,
        "ordering": ["-tasks:predictions_score"],
        "filters": filters(LABELED, suspicious, *more),
    }
    view = {"project": project, "data": {"type": "list", "target": "tasks", **data}}
    client.http.send("POST", "/api/dm/views/", view)


def test_the_tab_lists_the_annotations_with_issues_worst_first(client: LabelStudioClient, project: int) -> None:
    ids = add_tasks(client, project, 5)
    client.prediction_import.run(
        project, "v1", [PredictionRow(task, score) for task, score in zip(ids, (0.5, 0.9, 0.1, 0.7, 0.8), strict=True)]
    )
    client.projects.set_model_version(project, "v1")
    annotations = [client.annotations.create(task, []) for task in ids]
    assert client.tabs.ensure_label_issues(project, SUSPECT)
    assert listed(client, project) == [], "there are no issues before the first review"
    assert client.tabs.set_label_issues(project, annotations[:3])
    assert listed(client, project) == [ids[1], ids[0]], "the third is below .25, the others have no issue"
    assert not client.tabs.set_label_issues(project, annotations[:3])
    client.annotations.delete(annotations[1])
    assert listed(client, project) == [ids[0]]
    assert not client.tabs.ensure_label_issues(project, SUSPECT)
    assert client.tabs.set_label_issues(project, [])
    assert listed(client, project) == []


def test_a_tab_of_an_earlier_release_is_changed_and_keeps_what_people_added(
    client: LabelStudioClient, project: int
) -> None:
    ids = add_tasks(client, project, 1)
    mine = condition("id", "greater", "Number", 0)
    old_tab(client, project, mine)
    assert client.tabs.ensure_label_issues(project, SUSPECT)
    assert not client.tabs.ensure_label_issues(project, SUSPECT)
    items = tab(client, project)["filters"]["items"]
    assert mine in items
    assert condition("predictions_score", "greater", "Number", 0.25) in items
    client.prediction_import.run(project, "v1", [PredictionRow(ids[0], 0.5)])
    client.projects.set_model_version(project, "v1")
    client.tabs.set_label_issues(project, [client.annotations.create(ids[0], [])])
    assert listed(client, project) == ids


def test_a_tab_that_people_changed_is_theirs(client: LabelStudioClient, project: int) -> None:
    assert client.tabs.ensure_label_issues(project, SUSPECT)
    view = tab(client, project)
    changed = {"title": LABEL_ISSUES_TAB, "filters": filters(LABELED)}
    client.http.send("PATCH", f"/api/dm/views/{view['id']}/", {"project": project, "data": changed})
    assert not client.tabs.ensure_label_issues(project, SUSPECT)
    assert not client.tabs.set_label_issues(project, [1, 2])
    assert tab(client, project)["filters"]["items"] == [LABELED]


def test_the_tab_opens_in_a_browser_and_stays_as_it_is(client: LabelStudioClient, project: int, tmp_path: Path) -> None:
    """Label Studio's page shows the list of ids as a filter, and does not rewrite it."""
    ids = add_tasks(client, project, 4)
    client.prediction_import.run(
        project, "v1", [PredictionRow(task, score) for task, score in zip(ids, (0.5, 0.9, 0.8, 0.7), strict=True)]
    )
    client.projects.set_model_version(project, "v1")
    annotations = [client.annotations.create(task, []) for task in ids]
    client.tabs.ensure_queue(project)
    client.tabs.ensure_label_issues(project, SUSPECT)
    client.tabs.set_label_issues(project, annotations[:2])
    before = tab(client, project)
    with signed_in(client.url, LOGIN["email"], LOGIN["password"]) as page:
        page.goto(f"{client.url}/projects/{project}/data?tab={before['id']}")
        for title in (QUEUE_TAB, LABEL_ISSUES_TAB):
            cut = page.get_by_text(title, exact=True).first.evaluate("tab => tab.scrollWidth > tab.clientWidth")
            assert not cut, title
        page.locator("[class*=grid]").first.wait_for()
        page.screenshot(path=tmp_path / "grid.png")
        page.get_by_label("Switch to list view").click()
        cells = page.locator("[class*=table] >> text=/^[01]\\.\\d{3}$/")
        cells.first.wait_for()
        shown = [float(text) for text in cells.all_inner_texts()]
        page.get_by_text("Filters").first.click()
        page.get_by_text("Annotation IDs").first.wait_for()
        page.screenshot(path=tmp_path / "doubts.png")
    assert shown == [0.9, 0.5]
    after = tab(client, project)
    assert after["filters"]["items"] == before["filters"]["items"]
    assert listed(client, project) == [ids[1], ids[0]]
