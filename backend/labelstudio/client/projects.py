"""A Label Studio project and what is attached to it: settings, queue, webhook, ML backends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import LabelStudioError, NotFoundError
from backend.labelstudio.client.filters import LABELED, filters
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.types import Json

SAMPLING = "Uncertainty sampling"
PROJECTS_PER_QUERY = 100  # Label Studio's largest page
FAILURES = 50  # Label Studio's WEBHOOK_MAX_CONSECUTIVE_FAILURES, from the version after 1.23


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project's settings, and the number of its tasks."""

    id: int
    title: str
    label_config: str
    model_version: str  # the version whose scores order the queue; "": none
    sampling: str
    show_collab_predictions: bool
    task_count: int
    maximum_annotations: int = 1  # of each task, by different people
    counts: str = ""  # a hash of its settings and of all its counters in Label Studio; "": not requested


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """A webhook of a project."""

    id: int
    project_id: int
    url: str
    headers: Mapping[str, str]
    is_active: bool
    actions: tuple[str, ...] = ()  # the events chosen for it; without any it gets all
    failures: int = 0  # deliveries that failed one after the other; Label Studio 1.23 does not count them

    @property
    def is_given_up(self) -> bool:
        """Whether Label Studio has switched it off because deliveries failed; a person may have switched off others."""
        return not self.is_active and self.failures >= FAILURES


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """An ML backend attached to a project, with the state of Label Studio's last call."""

    id: int
    url: str
    title: str
    state: str  # "Connected", "Disconnected", "Error", ...
    error_message: str
    model_version: str
    extra_params: str  # JSON text; "": none
    is_interactive: bool = False  # LS asks it while somebody labels with a smart tool


class _Project(Answer):
    id: int
    title: str
    label_config: str | None
    model_version: str | None
    sampling: str | None
    show_collab_predictions: bool
    task_number: int | None
    maximum_annotations: int | None = None


class _Count(Answer):
    total: int


class _ProjectPage(Answer):
    results: list[dict[str, Any]]


class Created(Answer):
    """The id of an object that Label Studio created."""

    id: int


class _CountedProject(_Project):
    skip_queue: str | None = None
    finished_task_number: int | None = None
    num_tasks_with_annotations: int | None = None
    total_annotations_number: int | None = None
    ground_truth_number: int | None = None
    skipped_annotations_number: int | None = None
    total_predictions_number: int | None = None


class _Backend(Answer):
    id: int
    url: str
    title: str | None = None
    readable_state: str = ""
    error_message: str | None = None
    model_version: str | None = None
    extra_params: Any = None
    is_interactive: bool = False


class _Webhook(Answer):
    id: int
    url: str
    project: int | None = None
    headers: dict[str, str] | None = None
    is_active: bool = True
    actions: tuple[str, ...] = ()
    consecutive_failures: int | None = None


class Projects:
    """The calls about projects and what is attached to them."""

    def __init__(self, http: LabelStudioHTTP) -> None:
        self._http = http

    def get(self, project_id: int) -> ProjectInfo:
        """Return a project's settings and counts. Raises NotFoundError."""
        path, missing = f"/api/projects/{project_id}/", f"no project {project_id} in Label Studio"
        fields = ",".join(_Project.model_fields)
        return _project(parse(_Project, self._http.get(path, missing=missing, include=fields)))

    def get_many(self, ids: Sequence[int]) -> dict[int, ProjectInfo]:
        """Return the projects with these ids, with their counts, a hundred per request; deleted ones are left out."""
        fields = ",".join(_CountedProject.model_fields)
        projects: list[_CountedProject] = []
        for begin in range(0, len(ids), PROJECTS_PER_QUERY):
            batch = ",".join(map(str, ids[begin : begin + PROJECTS_PER_QUERY]))
            answer = self._http.get("/api/projects/", ids=batch, page_size=PROJECTS_PER_QUERY, include=fields)
            projects += parse_list(_CountedProject, parse(_ProjectPage, answer).results)
        return {project.id: replace(_project(project), counts=_hash(project.model_dump_json())) for project in projects}

    def labeled_count(self, project_id: int) -> int:
        """Return the number of labeled tasks by the Data Manager.

        Label Studio's own counter leaves out annotations that were imported with their tasks.
        """
        query = json.dumps({"filters": filters(LABELED)})
        page = self._http.get("/api/tasks", project=project_id, page_size=1, include="id", query=query)
        return parse(_Count, page).total

    def create(self, title: str, label_config: str) -> int:
        """Create a project and return its id."""
        created = self._http.send("POST", "/api/projects/", {"title": title, "label_config": label_config})
        return parse(Created, created).id

    def set_model_version(self, project_id: int, version: str) -> None:
        """Let the scores of `version` order the queue; raises LabelStudioError for a version without predictions."""
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
        if self.get(project_id).sampling == SAMPLING:
            return False
        self._patch(project_id, sampling=SAMPLING)
        return True

    def _patch(self, project_id: int, **fields: Any) -> None:
        path, missing = f"/api/projects/{project_id}/", f"no project {project_id} in Label Studio"
        self._http.send("PATCH", path, fields, missing=missing)

    def ensure_webhook_header(self, project_id: int, backend_url: str, header: str, value: str) -> bool:
        """Set a header on Label Studio's webhook to `<backend_url>/webhook`; return whether that changed anything.

        Label Studio makes the webhook, without authentication, when somebody attaches a backend. Raises NotFoundError.
        """
        stale = self._stale_webhooks(project_id, backend_url, header, value)
        for hook in stale:
            self._change_webhook(hook, headers={**hook.headers, header: value})
        return bool(stale)

    def lacks_webhook_header(self, project_id: int, backend_url: str, header: str, value: str) -> bool:
        """Return whether `ensure_webhook_header` would change anything; raises as it does."""
        return bool(self._stale_webhooks(project_id, backend_url, header, value))

    def _stale_webhooks(self, project_id: int, backend_url: str, header: str, value: str) -> list[WebhookInfo]:
        self.get(project_id)  # raises NotFoundError, where LS would answer 400
        ours = webhooks_to(backend_url, self.webhooks(project_id))
        if not ours:
            raise NotFoundError(
                f"no webhook to {backend_url.rstrip('/')}/webhook",
                where=f"project {project_id}",
                fix="attach the backend again (Settings > Model); see SSRF_PROTECTION_ENABLED if none appears",
            )
        return [hook for hook in ours if hook.headers.get(header) != value]

    def webhooks(self, project_id: int | None = None) -> list[WebhookInfo]:
        """Return the webhooks of one project, or of all of them in one request."""
        params: Json = {} if project_id is None else {"project": project_id}
        hooks = parse_list(_Webhook, self._http.get("/api/webhooks/", **params))
        return [
            WebhookInfo(
                id=hook.id,
                project_id=hook.project,
                url=hook.url,
                headers=hook.headers or {},
                is_active=hook.is_active,
                actions=hook.actions,
                failures=hook.consecutive_failures or 0,
            )
            for hook in hooks
            if hook.project
        ]

    def backends(self, project_id: int) -> list[BackendInfo]:
        """Return the attached ML backends; LS calls /health and /setup of each before. Raises NotFoundError."""
        missing = f"no project {project_id} in Label Studio"
        backends = parse_list(_Backend, self._http.get("/api/ml/", missing=missing, project=project_id))
        return [_backend(backend) for backend in backends]

    def attach_backend(
        self, project_id: int, url: str, title: str, user: str = "", password: str = "", *, interactive: bool = False
    ) -> BackendInfo:
        """Attach an ML backend as LS's own Settings > Model does; with a user, LS sends Basic auth.

        `interactive` is LS's switch "Interactive preannotations": LS then asks the backend while smart tools draw.
        Raises NotFoundError, and LabelStudioError with the backend's own message from /health or /setup. For an address
        that LS does not allow it raises LabelStudioBlockedError; a backend without webhook may then stay attached.
        """
        self.get(project_id)
        body: Json = {"project": project_id, "url": url, "title": title, "is_interactive": interactive}
        return _backend(parse(_Backend, self._http.send("POST", "/api/ml/", body | _login(user, password))))

    def change_backend(
        self, project_id: int, backend: BackendInfo, user: str = "", password: str = "", **fields: str | bool
    ) -> None:
        """Change `title`, `extra_params` or `is_interactive` of an attached backend; LS calls its /setup meanwhile.

        Raises LabelStudioError with the backend's own message if it refuses them.
        """
        # Label Studio validates the address and the login only together with the rest.
        body = {"project": project_id, "url": backend.url} | fields | _login(user, password)
        missing = f"no model {backend.id} in Label Studio"
        self._http.send("PATCH", f"/api/ml/{backend.id}", body, missing=missing)

    def delete_backend(self, backend_id: int) -> None:
        """Remove an ML backend from its project; LS calls its /setup before. Raises NotFoundError."""
        self._http.send("DELETE", f"/api/ml/{backend_id}", missing=f"no ML backend {backend_id} in Label Studio")

    def switch_on_webhook(self, hook: WebhookInfo) -> None:
        """Let Label Studio call a webhook again, and count its failures from 0. Raises NotFoundError."""
        self._change_webhook(hook, is_active=True)

    def _change_webhook(self, hook: WebhookInfo, **fields: Any) -> None:
        body = {"actions": hook.actions} | fields  # Label Studio forgets the chosen events of a request without them
        self._http.send("PATCH", f"/api/webhooks/{hook.id}/", body, missing=f"no webhook {hook.id} in Label Studio")

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook. Raises NotFoundError."""
        self._http.send("DELETE", f"/api/webhooks/{webhook_id}/", missing=f"no webhook {webhook_id} in Label Studio")


def webhooks_to(backend_url: str, hooks: Iterable[WebhookInfo]) -> list[WebhookInfo]:
    """Return the webhooks that call the backend at this address."""
    url = f"{backend_url.rstrip('/')}/webhook"
    return [hook for hook in hooks if hook.url.rstrip("/") == url]


def _login(user: str, password: str) -> dict[str, str]:
    """Return the fields with which Label Studio sends Basic auth to a backend; none without a user."""
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password} if user else {}


def _text(extra_params: Any) -> str:
    """Return extra params as JSON text; Label Studio holds text or an object, as the user wrote them."""
    if not extra_params:
        return ""
    return extra_params if isinstance(extra_params, str) else json.dumps(extra_params)


def _project(project: _Project) -> ProjectInfo:
    return ProjectInfo(
        id=project.id,
        title=project.title,
        label_config=project.label_config or "",
        model_version=project.model_version or "",
        sampling=project.sampling or "",
        show_collab_predictions=project.show_collab_predictions,
        task_count=project.task_number or 0,
        maximum_annotations=project.maximum_annotations or 1,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _backend(backend: _Backend) -> BackendInfo:
    return BackendInfo(
        id=backend.id,
        url=backend.url,
        title=backend.title or "",
        state=backend.readable_state,
        error_message=backend.error_message or "",
        model_version=backend.model_version or "",
        extra_params=_text(backend.extra_params),
        is_interactive=backend.is_interactive,
    )
