"""Steps of projects that are deleted in Label Studio, or were never set up: one line of log, and no file is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import NotFoundError
from backend.loop import demands
from backend.loop.context import Context
from backend.queue import presence
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import CONFIG, cycle_of, open_context

NAMES = (
    "check",
    "retrain",
    "start_scoring",
    "rank_and_push",
    "score_new",
    "review_labels",
    "delete_old",
    "configure",
    "measure_effort",
)
MORE = {"retrain": (1,), "rank_and_push": (1,), "review_labels": (1,)}


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Context]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        yield context


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The formatted lines that the backend logs; they would contain a traceback."""
    formatted: list[str] = []

    class LineHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            formatted.append(self.format(record))

    handler, logger = LineHandler(), logging.getLogger("backend")
    caplog.set_level(logging.INFO, "backend")
    logger.addHandler(handler)
    yield formatted
    logger.removeHandler(handler)


@pytest.mark.label_studio
def test_a_reconcile_writes_the_time_that_ready_shows(studio: Context) -> None:
    assert presence.last_reconcile(studio.redis) == ""
    cycle_of(studio).reconcile()
    assert presence.last_reconcile(studio.redis).endswith("+00:00")


@pytest.mark.label_studio
@pytest.mark.parametrize("name", NAMES)
def test_a_job_of_a_deleted_project_is_one_line(studio: Context, lines: list[str], name: str) -> None:
    client = studio.label_studio
    project = client.projects.create("gone", CONFIG)
    record = ProjectRecord(project, CONFIG, "", "", "", "")
    studio.store.save_project(record)
    client.http.send("DELETE", f"/api/projects/{project}/")
    for _ in range(2):
        getattr(cycle_of(studio), name)(project, *MORE.get(name, ()))
    assert len(lines) <= 2
    assert not any("\n" in line for line in lines)
    cycle_of(studio).reconcile()
    assert studio.store.project(project) is None
    assert project not in studio.store.project_ids()
    assert [line for line in lines if "is gone from Label Studio: put aside" in line] == [
        f"project {project} is gone from Label Studio: put aside, see docs/troubleshooting.md"
    ]
    studio.store.save_project(record)  # as the next /setup does
    assert studio.store.project_ids() == (project,)


@pytest.mark.label_studio
@pytest.mark.parametrize("name", NAMES)
def test_a_job_of_a_project_that_was_never_set_up_is_one_line(studio: Context, lines: list[str], name: str) -> None:
    """A webhook may come from a project of another backend, or from one that is put aside."""
    getattr(cycle_of(studio), name)(999_999, *MORE.get(name, ()))
    assert len(lines) <= 1
    assert not any("\n" in line for line in lines)


@pytest.mark.label_studio
def test_a_project_that_exists_is_not_put_aside(studio: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction of it was deleted meanwhile. That is an error, and the job is tried again."""
    project = studio.label_studio.projects.create("there", CONFIG)
    studio.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))

    def missing(*_: object) -> None:
        raise NotFoundError("no prediction 5 in Label Studio")

    monkeypatch.setattr(demands, "check", missing)
    with pytest.raises(NotFoundError, match="no prediction 5"):
        cycle_of(studio).check(project)
    assert studio.store.project_ids() == (project,)
