"""A Label Studio project and what is attached to it: settings, queue, webhook, ML backends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from backend.errors import LabelStudioError, NotFoundError
from backend.label_studio_http import Answer, LabelStudioHTTP, parse, parse_list
from backend.types import Json

SAMPLING = "Uncertainty sampling"


def condition(column: str, operator: str, kind: str, value: Any) -> Json:
    """Return one Data Manager condition on tasks."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def filters(*conditions: Json) -> Json:
    """Return Data Manager filters that ask for all of `conditions`."""
    return {"conjunction": "and", "items": list(conditions)}


UNLABELED = condition("total_annotations", "equal", "Number", 0)
LABELED = condition("total_annotations", "greater", "Number", 0)


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project as it stands; `labeled_count` counts tasks with at least one submitted annotation."""

    id: int
    title: str
    label_config: str
    model_version: str  # "": none chosen
    sampling: str
    show_collab_predictions: bool
    task_count: int
    labeled_count: int


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """An ML backend attached to a project, as Label Studio last saw it."""

    id: int
    url: str
    title: str
    state: str  # "Connected", "Disconnected", "Error", ...
    error_message: str
    model_version: str


class _Project(Answer):
    id: int
    title: str
    label_config: str | None
    model_version: str | None
    sampling: str | None
    show_collab_predictions: bool
    task_number: int | None


class _Count(Answer):
    total: int


class Created(Answer):
    """What Label Studio made."""

    id: int


class _Backend(Answer):
    id: int
    url: str
    title: str | None = None
    readable_state: str = ""
    error_message: str | None = None
    model_version: str | None = None


class _Webhook(Answer):
    id: int
    url: str
    headers: dict[str, str] | None = None
    is_active: bool = True


class ProjectCalls:
    """The calls about a project; mixed into the client, which brings `http`."""

    http: LabelStudioHTTP

    def project(self, project_id: int) -> ProjectInfo:
        """Return a project's settings and counts. Raises NotFoundError."""
        path, missing = f"/api/projects/{project_id}/", f"no project {project_id} in Label Studio"
        fields = ",".join(_Project.model_fields)
        found = parse(_Project, self.http.get(path, missing=missing, include=fields))
        return ProjectInfo(
            id=found.id,
            title=found.title,
            label_config=found.label_config or "",
            model_version=found.model_version or "",
            sampling=found.sampling or "",
            show_collab_predictions=found.show_collab_predictions,
            task_count=found.task_number or 0,
            labeled_count=self._labeled_count(project_id),
        )

    def _labeled_count(self, project_id: int) -> int:
        """Count through the Data Manager: LS's own counter leaves out annotations that were imported with tasks."""
        query = json.dumps({"filters": filters(LABELED)})
        page = self.http.get("/api/tasks", project=project_id, page_size=1, include="id", query=query)
        return parse(_Count, page).total

    def create_project(self, title: str, label_config: str) -> int:
        """Create a project and return its id."""
        created = self.http.send("POST", "/api/projects/", {"title": title, "label_config": label_config})
        return parse(Created, created).id

    def set_model_version(self, project_id: int, version: str) -> None:
        """Make `version` the one whose scores order the queue; LS refuses a version without predictions."""
        try:
            self._patch(project_id, model_version=version)
        except LabelStudioError as error:
            if "model_version" not in error.what:
                raise
            raise LabelStudioError(
                f"Label Studio refuses model version {version!r}: it has no predictions of it",
                where=f"project {project_id}",
                fix="import the version's predictions first",
            ) from None

    def set_sampling(self, project_id: int) -> bool:
        """Switch the queue to uncertainty sampling; return whether that changed anything."""
        if self.project(project_id).sampling == SAMPLING:
            return False
        self._patch(project_id, sampling=SAMPLING)
        return True

    def _patch(self, project_id: int, **fields: Any) -> None:
        path, missing = f"/api/projects/{project_id}/", f"no project {project_id} in Label Studio"
        self.http.send("PATCH", path, fields, missing=missing)

    def webhook_state(self, project_id: int, backend_url: str) -> str:
        """Return whether Label Studio tells the backend at this address of labels: "on", "off" or "missing"."""
        hooks = self._webhooks_to(project_id, backend_url)
        if not hooks:
            return "missing"
        return "on" if any(hook.is_active for hook in hooks) else "off"

    def rivals(self, project_id: int, header: str, value: str) -> list[str]:
        """Return the webhooks' addresses that carry the header with another value: another installation set them up."""
        hooks = parse_list(_Webhook, self.http.get("/api/webhooks/", project=project_id))
        return sorted(hook.url for hook in hooks if (hook.headers or {}).get(header, value) != value)

    def _webhooks_to(self, project_id: int, backend_url: str) -> list[_Webhook]:
        url = f"{backend_url.rstrip('/')}/webhook"
        hooks = parse_list(_Webhook, self.http.get("/api/webhooks/", project=project_id))
        return [hook for hook in hooks if hook.url.rstrip("/") == url]

    def ensure_webhook_header(self, project_id: int, backend_url: str, header: str, value: str) -> bool:
        """Give LS's webhook to `<backend_url>/webhook` a header; return whether that changed anything.

        LS makes the webhook itself when a backend is attached, without any authentication. Raises NotFoundError.
        """
        self.project(project_id)  # LS answers 400 for an unknown one
        ours = self._webhooks_to(project_id, backend_url)
        if not ours:
            raise NotFoundError(
                f"no webhook to {backend_url.rstrip('/')}/webhook",
                where=f"project {project_id}",
                fix="attach the backend again (Settings > Model); see SSRF_PROTECTION_ENABLED if none appears",
            )
        stale = [hook for hook in ours if (hook.headers or {}).get(header) != value]
        for hook in stale:
            self.http.send("PATCH", f"/api/webhooks/{hook.id}/", {"headers": (hook.headers or {}) | {header: value}})
        return bool(stale)

    def backends(self, project_id: int) -> list[BackendInfo]:
        """Return the attached ML backends; LS asks each for /health and /setup meanwhile. Raises NotFoundError."""
        missing = f"no project {project_id} in Label Studio"
        found = parse_list(_Backend, self.http.get("/api/ml/", missing=missing, project=project_id))
        return [_backend(backend) for backend in found]

    def attach_backend(self, project_id: int, url: str, title: str, user: str = "", password: str = "") -> BackendInfo:
        """Attach an ML backend as LS's own Settings > Model does; with a user, LS sends Basic auth.

        Raises LabelStudioBlockedError for an address LS does not allow (a backend without webhook may stay behind),
        NotFoundError, and LabelStudioError with the backend's own /health or /setup message.
        """
        self.project(project_id)
        body: dict[str, Any] = {"project": project_id, "url": url, "title": title, "is_interactive": False}
        if user:
            body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        return _backend(parse(_Backend, self.http.send("POST", "/api/ml/", body)))


def _backend(found: _Backend) -> BackendInfo:
    return BackendInfo(
        id=found.id,
        url=found.url,
        title=found.title or "",
        state=found.readable_state,
        error_message=found.error_message or "",
        model_version=found.model_version or "",
    )
