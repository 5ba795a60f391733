"""The state of Label Studio in the status: when it answered, the project's webhook and its sampling."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from backend.cli import tables
from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import project_setup, project_status, studio_state
from backend.loop.context import Context
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.web.status_schemas import project_out
from tests.support import CONFIG, cycle_of, open_context, sign_up

pytestmark = pytest.mark.label_studio

BACKEND = "http://127.0.0.1:9"
SAMPLING = "Uncertainty sampling"


@dataclass
class Studio:
    """A configured project with a webhook to a backend."""

    context: Context
    project: int
    hook: int

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def change(self, **fields: str) -> None:
        self.client.http.send("PATCH", f"/api/projects/{self.project}/", fields)

    def reconcile(self) -> studio_state.StudioState:
        cycle_of(self.context).reconcile()
        return project_status.status(self.context, self.project).label_studio

    def configure(self, *, set_sampling: bool = False) -> tuple[str, ...]:
        return project_setup.configure(self.context, Jobs(self.context.redis), self.project, set_sampling=set_sampling)


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Studio]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key, "backend_url": BACKEND}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("its status", CONFIG)
        hook = client.http.send("POST", "/api/webhooks/", {"project": project, "url": f"{BACKEND}/webhook"})["id"]
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", BACKEND, ""))
        studio = Studio(context, project, hook)
        studio.configure()
        yield studio


def test_before_the_first_reconcile_the_state_is_empty(studio: Studio) -> None:
    state = project_status.status(studio.context, studio.project).label_studio
    assert state == studio_state.StudioState()
    assert state.warnings == ()


def test_a_project_in_order_has_no_warnings(studio: Studio) -> None:
    state = studio.reconcile()
    assert (state.webhook, state.sampling, state.error) == ("on", SAMPLING, "")
    assert state.reached
    assert state.warnings == ()


def test_a_webhook_that_is_off_or_missing(studio: Studio) -> None:
    studio.client.http.send("PATCH", f"/api/webhooks/{studio.hook}/", {"is_active": False})
    state = studio.reconcile()
    assert (state.webhook, len(state.warnings)) == ("off", 1)
    assert "Settings > Webhooks" in state.warnings[0]
    studio.client.http.send("DELETE", f"/api/webhooks/{studio.hook}/")
    state = studio.reconcile()
    assert (state.webhook, len(state.warnings)) == ("missing", 1)
    assert "Settings > Model" in state.warnings[0]


def test_a_sampling_that_somebody_chose_stays_until_they_choose_again(studio: Studio) -> None:
    """Neither a reconcile nor a cleared model version sets ours again."""
    assert studio.client.projects.get(studio.project).sampling == SAMPLING
    studio.change(sampling="Sequential sampling")
    studio.change(model_version="")
    assert 'set sampling to "Uncertainty sampling"' not in studio.configure()
    state = studio.reconcile()
    assert state.sampling == "Sequential sampling"
    assert '"Sequential sampling"' in state.warnings[0]
    assert "connect" in state.warnings[0]
    assert 'set sampling to "Uncertainty sampling"' in studio.configure(set_sampling=True), "`connect` is a choice, too"
    assert studio.reconcile().warnings == ()


def test_the_status_shows_a_revoked_token_until_another_token_works(
    studio: Studio, label_studio: LabelStudioProcess
) -> None:
    before = studio.reconcile()
    login = {"email": "revoked@example.com", "password": "another-password"}
    sign_up(studio.client, **login)
    token = personal_access_token(label_studio.url, **login)
    personal_access_token(label_studio.url, **login)  # revokes the one before
    right = studio.context
    with LabelStudioClient(label_studio.url, token) as client:
        studio.context = replace(right, label_studio=client)
        state = studio.reconcile()
    assert state.reached == before.reached
    assert state.webhook == "on", "the last known state is still shown"
    assert "refuses the token" in state.warnings[0]
    assert "LABEL_STUDIO_API_KEY" in state.warnings[0]
    shown = project_out(project_status.status(studio.context, studio.project)).label_studio
    assert (shown.error, shown.warnings) == (state.error, list(state.warnings))
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(tables.status(project_status.status(studio.context, studio.project)))
    assert "refuses the token" in console.export_text()
    studio.context = right
    assert studio.reconcile().warnings == ()


def test_two_installations_on_one_project_warn_each_other(studio: Studio, settings: Settings, tmp_path: Path) -> None:
    """Their versions have the same names, so each would mistake the other's predictions for its own."""
    elsewhere = "http://127.0.0.1:10"
    studio.client.http.send("POST", "/api/webhooks/", {"project": studio.project, "url": f"{elsewhere}/webhook"})
    assert studio.reconcile().warnings == (), "a webhook of somebody else"
    keys = {"label_studio_url": studio.client.url, "label_studio_api_key": studio.context.settings.label_studio_api_key}
    mine, update = studio.context, {**keys, "model_dir": str(tmp_path / "other models"), "backend_url": elsewhere}
    with open_context(settings.model_copy(update=update)) as other:
        other.store.save_project(ProjectRecord(studio.project, CONFIG, "", "", elsewhere, ""))
        studio.context = other
        studio.configure()
        theirs = studio.reconcile()
        studio.context = mine
        ours = studio.reconcile()
    assert [len(ours.warnings), len(theirs.warnings)] == [1, 1]
    assert f"{elsewhere}/webhook" in ours.warnings[0]
    assert f"{BACKEND}/webhook" in theirs.warnings[0]
    assert "use the same version names" in ours.warnings[0]
