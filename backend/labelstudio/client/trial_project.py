"""A project that exists only while something is tried out in Label Studio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from backend.errors import LabelStudioRefusedError
from backend.labelstudio.client.http import LabelStudioHTTP, parse
from backend.labelstudio.client.projects import Created

_CONFIG = '<View><Image name="image" value="$image"/></View>'


class TrialProject:
    """A project without tasks."""

    def __init__(self, http: LabelStudioHTTP, project_id: int, title: str) -> None:
        self._http = http
        self._title = title
        self.id = project_id

    def may_have_backend(self, url: str) -> None:
        """Ask Label Studio to attach an ML backend at `url`, at which none answers, so that none is attached.

        Raises LabelStudioBlockedError if Label Studio does not allow the address.
        """
        with suppress(LabelStudioRefusedError):  # it allows the address, and nothing answers there
            self._http.send("POST", "/api/ml/", {"project": self.id, "url": url, "title": self._title})

    def add_webhook(self, url: str, headers: Mapping[str, str]) -> None:
        """Make a webhook for all events; raises LabelStudioBlockedError if LS does not allow the address."""
        body = {"project": self.id, "url": url, "headers": dict(headers), "send_payload": True}
        self._http.send("POST", "/api/webhooks/", {**body, "send_for_all_actions": True})

    def touch(self) -> None:
        """Write the title again, so that Label Studio sends PROJECT_UPDATED to the webhooks."""
        self._http.send("PATCH", f"/api/projects/{self.id}/", {"title": self._title})


@contextmanager
def trial_project(http: LabelStudioHTTP, title: str) -> Iterator[TrialProject]:
    """Make a project, and delete it after the block; raises LabelStudioError if the user may not make one."""
    body = {"title": title, "label_config": _CONFIG, "description": "made by yolo-backend, and deleted at once"}
    project_id = parse(Created, http.send("POST", "/api/projects/", body)).id
    try:
        yield TrialProject(http, project_id, title)
    finally:
        http.send("DELETE", f"/api/projects/{project_id}/")
