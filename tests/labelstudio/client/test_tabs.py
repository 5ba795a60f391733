"""Tabs of a selection of tasks in a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import NotFoundError, RequestError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.labelstudio.client.tabs import MOST_RUNS
from tests.support import CONFIG

pytestmark = pytest.mark.label_studio


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioProcess) -> Iterator[LabelStudioClient]:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        yield client


def test_a_tab_lists_exactly_the_selected_tasks(client: LabelStudioClient) -> None:
    project = client.projects.create("selections", CONFIG)
    images = [{"image": f"http://images.example/{n}.png"} for n in range(12)]
    client.http.send("POST", f"/api/projects/{project}/import", images)
    ids = [task.id for task in client.tasks.unlabeled(project)]
    chosen = [ids[0], *ids[3:6], ids[8], ids[8]]
    tab = client.tabs.add_selection(project, "Night & fog <b>", chosen)
    page = client.http.get("/api/tasks", project=project, view=tab, page_size=50)
    assert sorted(task["id"] for task in page["tasks"]) == sorted(set(chosen))
    titles = [view["data"]["title"] for view in client.http.get("/api/dm/views/", project=project)]
    assert titles == ["Default", "Night & fog <b>"]


def test_too_many_separate_tasks_are_refused_before_anything_is_written(client: LabelStudioClient) -> None:
    project = client.projects.create("many", CONFIG)
    with pytest.raises(RequestError, match=f"{MOST_RUNS + 1} separate tasks"):
        client.tabs.add_selection(project, "many", range(0, 2 * MOST_RUNS + 2, 2))
    assert client.http.get("/api/dm/views/", project=project) == []


def test_a_project_that_is_gone(client: LabelStudioClient) -> None:
    with pytest.raises(NotFoundError):
        client.tabs.add_selection(10**9, "gone", [1])
