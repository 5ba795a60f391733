"""Only a webhook to this backend's own address gets the secret; tested with a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.loop import project_setup
from backend.loop.context import Context
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from tests.support import CONFIG, open_context, serve

STRANGER = "http://127.0.0.1:9"  # nobody listens there
pytestmark = pytest.mark.label_studio


@pytest.fixture
def attached(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[tuple[Context, int, str]]:
    """A project with this backend attached; then a caller of /setup named a stranger's address."""
    connection = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=connection)) as context, serve(context) as client:
        project = context.label_studio.projects.create("secret", CONFIG)
        url = str(client.base_url).rstrip("/")
        context.label_studio.projects.attach_backend(project, url, "yolo")
        hook = {"project": project, "url": f"{STRANGER}/webhook", "send_for_all_actions": True}
        context.label_studio.http.send("POST", "/api/webhooks/", hook)
        body = {"project": f"{project}.1", "schema": CONFIG, "hostname": "", "extra_params": None}
        httpx.post(
            f"{url}/setup", json=body, headers={"host": STRANGER.removeprefix("http://")}, timeout=60
        ).raise_for_status()
        yield context, project, url


def headers(context: Context, project: int) -> dict[str, str | None]:
    """Return the secret of each webhook of a project, by its address."""
    hooks = context.label_studio.http.get("/api/webhooks/", project=project)
    return {hook["url"]: (hook["headers"] or {}).get(WEBHOOK_HEADER) for hook in hooks}


def test_an_address_that_only_a_caller_of_setup_named_gets_no_secret(attached: tuple[Context, int, str]) -> None:
    context, project, url = attached
    record = context.store.project(project)
    assert record is not None
    assert record.backend_url == STRANGER
    done = project_setup.configure(context, Jobs(context.redis), project)
    assert any("is not the address of this backend" in line for line in done)
    assert headers(context, project)[f"{STRANGER}/webhook"] is None
    context.label_studio.projects.backends(project)  # Label Studio calls /setup with the address that it has
    project_setup.configure(context, Jobs(context.redis), project)
    assert headers(context, project) == {f"{STRANGER}/webhook": None, f"{url}/webhook": context.store.secret()}
