"""What the set-up writes into Label Studio: the title of the model, which its card shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import LabelStudioError
from backend.labelstudio.client.projects import Projects
from backend.loop import project_setup, served_models
from backend.queue.rq_queue import TRAIN
from backend.settings import Settings
from tests.queue_studio import Studio, open_studio
from tests.support import CONFIG, ImageSite, cycle_of, publish, serve

pytestmark = pytest.mark.label_studio


@pytest.fixture
def attached(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    """Yield a project whose model is attached under the title "mine"."""
    login = {"basic_auth_user": "studio", "basic_auth_pass": "secret"}
    with (
        open_studio(label_studio, settings.model_copy(update=login), tiny_weights, images) as studio,
        serve(studio.context) as server,
    ):
        url = str(server.base_url).rstrip("/")
        studio.client.projects.attach_backend(studio.project, url, "mine", *login.values())
        studio.settle()
        yield studio


def title(studio: Studio) -> str:
    (backend,) = studio.client.projects.backends(studio.project)
    assert backend.state == "Connected"
    return backend.title


def test_the_title_names_the_serving_version_and_its_quality(attached: Studio, tiny_weights: Path) -> None:
    project_setup.show_version(attached.context, attached.project)
    assert title(attached) == "mine · yolo11n-v1 · mAP50 0.50"
    publish(attached.context.store, attached.project, tiny_weights)
    cycle_of(attached.context).start_scoring(attached.project)
    attached.settle()
    assert title(attached) == "mine · yolo11n-v2 · mAP50 0.50"
    assert attached.client.projects.get(attached.project).model_version == "yolo11n-v2"


@pytest.mark.parametrize("shown", ["mine", "mine · yolo11n-v0", "mine · yolo11n-v1 · mAP50 0.50"])
def test_a_queue_that_goes_by_a_title_of_any_time_is_misdirected(attached: Studio, shown: str) -> None:
    """Label Studio copies the title to the project's model_version, and the title may have changed since."""
    project_setup.show_version(attached.context, attached.project)
    record = served_models.project_record(attached.context, attached.project)
    assert project_setup.is_misdirected(attached.context, record, shown)
    assert not project_setup.is_misdirected(attached.context, record, "a version of somebody else")


def test_a_title_that_cannot_be_written_stays(
    attached: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise LabelStudioError("Label Studio answers 400")

    monkeypatch.setattr(Projects, "change_backend", refused)
    before = title(attached)
    monkeypatch.setattr(project_setup, "name_of", lambda *_: "yolo11n-v9")
    project_setup.show_version(attached.context, attached.project)
    assert "the title of its model stays: Label Studio answers 400" in caplog.text
    assert title(attached) == before


def test_start_training_in_label_studio_without_labels_queues_nothing_and_says_why(attached: Studio) -> None:
    (backend,) = attached.client.projects.backends(attached.project)
    attached.client.http.send("POST", f"/api/ml/{backend.id}/train", {})
    training = attached.context.progress.training(attached.project)
    assert training.state == "failed"
    assert training.error.startswith("nothing to learn yet: 0 tasks are labeled, and a training needs 2")
    assert attached.queued(TRAIN) == []
    for task in list(attached.client.tasks.unlabeled(attached.project))[:2]:
        attached.client.annotations.create(task.id, [])
    attached.client.http.send("POST", f"/api/ml/{backend.id}/train", {})
    assert attached.queued(TRAIN) == ["retrain"]


def test_connect_switches_interactive_preannotations_on_for_smart_tools(attached: Studio) -> None:
    """Label Studio asks a backend while somebody labels only if its switch is on."""

    def connect() -> tuple[str, ...]:
        return project_setup.connect(
            attached.context, attached.project, attached.client.projects.backends(attached.project)[0].url
        )

    def is_on() -> bool:
        (backend,) = attached.client.projects.backends(attached.project)
        return backend.is_interactive

    connect()
    assert not is_on()
    smart = CONFIG.replace("<RectangleLabels", '<RectangleLabels smart="true"')
    attached.client.http.send("PATCH", f"/api/projects/{attached.project}/", {"label_config": smart})
    assert any("interactive preannotations" in line for line in connect())
    assert is_on()
    project_setup.show_version(attached.context, attached.project)  # another change leaves the switch as it is
    assert is_on()
    assert not any("interactive preannotations" in line for line in connect())
