"""What the Label Studio after 1.23 adds: webhooks that it gives up, and locked tabs.

A real Label Studio of today answers; only the new fields are put into its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.http import LabelStudioHTTP
from backend.labelstudio.client.projects import FAILURES
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB
from backend.loop import project_status
from backend.loop.checks import studio_checks
from backend.loop.context import Context
from backend.settings import Settings
from tests.support import CONFIG, cycle_of, open_context, serve

CHOSEN = ["ANNOTATION_CREATED"]  # the events that somebody chose for the webhook
pytestmark = pytest.mark.label_studio

AddFields = Callable[[str, dict[str, Any]], None]


@dataclass
class Attached:
    """A project with this backend attached, and its webhook."""

    context: Context
    project: int
    url: str
    hook: int

    def change_hook(self, **fields: object) -> None:
        self.context.label_studio.http.send("PATCH", f"/api/webhooks/{self.hook}/", {"actions": CHOSEN} | fields)

    def reconcile(self) -> tuple[str, tuple[str, ...]]:
        """Reconcile, and return the state of the webhook before, and the warnings."""
        cycle_of(self.context).reconcile()
        state = project_status.status(self.context, self.project).label_studio
        return state.webhook, state.warnings

    @property
    def in_label_studio(self) -> tuple[bool, list[str]]:
        hook = self.context.label_studio.http.get(f"/api/webhooks/{self.hook}/")
        return hook["is_active"], hook["actions"]

    @property
    def finding(self) -> str:
        """What `yolo-backend doctor` says of the project."""
        findings = studio_checks.projects(self.context.label_studio, self.context.store)
        return next(f"{finding.detail}. {finding.fix}" for finding in findings)


@pytest.fixture
def attached(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Attached]:
    connection = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=connection)) as context, serve(context) as server:
        client = context.label_studio
        project, url = client.projects.create("newer", CONFIG), str(server.base_url).rstrip("/")
        client.projects.attach_backend(project, url, "yolo")
        cycle_of(context).configure(project)
        [hook] = client.projects.webhooks(project)
        attached = Attached(context, project, url, hook.id)
        attached.change_hook(send_for_all_actions=False)
        yield attached


@pytest.fixture
def add_fields(monkeypatch: pytest.MonkeyPatch) -> AddFields:
    """Put fields into the objects that Label Studio lists at an address."""
    today = LabelStudioHTTP.get

    def add(listing: str, fields: dict[str, Any]) -> None:
        def get(http: LabelStudioHTTP, path: str, **params: Any) -> Any:
            answer = today(http, path, **params)
            return [item | fields for item in answer] if path == listing else answer

        monkeypatch.setattr(LabelStudioHTTP, "get", get)

    return add


def test_a_webhook_that_label_studio_gave_up_is_switched_on_again(attached: Attached, add_fields: AddFields) -> None:
    attached.change_hook(is_active=False)
    add_fields("/api/webhooks/", {"consecutive_failures": FAILURES})
    assert f"gave up its webhook after {FAILURES} failed events" in attached.finding
    state, [warning] = attached.reconcile()
    assert state == "given up"
    assert "once Label Studio reaches it, the worker switches the webhook on again" in warning
    assert attached.in_label_studio == (True, CHOSEN)
    assert attached.reconcile() == ("on", ())


def test_it_stays_off_while_label_studio_does_not_reach_the_backend(attached: Attached, add_fields: AddFields) -> None:
    [backend] = attached.context.label_studio.projects.backends(attached.project)
    attached.context.label_studio.projects.delete_backend(backend.id)
    attached.change_hook(is_active=False)
    add_fields("/api/webhooks/", {"consecutive_failures": FAILURES})
    assert attached.reconcile()[0] == "given up"
    assert attached.in_label_studio == (False, CHOSEN)


def test_a_webhook_that_a_person_switched_off_stays_off(attached: Attached, add_fields: AddFields) -> None:
    attached.change_hook(is_active=False)
    add_fields("/api/webhooks/", {"consecutive_failures": FAILURES - 1})
    assert attached.reconcile()[0] == "off"
    assert "its webhook is off" in attached.finding
    assert attached.in_label_studio == (False, CHOSEN)


def test_a_locked_tab_is_left_as_it_is(attached: Attached, add_fields: AddFields) -> None:
    client = attached.context.label_studio
    assert client.tabs.set_label_issues(attached.project, [1])
    before = client.http.get("/api/dm/views/", project=attached.project)
    assert LABEL_ISSUES_TAB in [view["data"]["title"] for view in before]
    add_fields("/api/dm/views/", {"is_locked": True})
    assert not client.tabs.set_label_issues(attached.project, [2])
    assert not client.tabs.ensure_queue(attached.project)
    after = client.http.get("/api/dm/views/", project=attached.project)
    assert [view["data"] for view in after] == [view["data"] for view in before]
