"""The home page: a card for each project, and the steps to connect the first one."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import BackendError
from backend.evaluation import basis
from backend.loop import project_status
from backend.loop.context import Context
from backend.loop.insight.standing import Machines, Standing, machines, standing
from backend.loop.project_status import Status
from backend.web.page.plots import SparkLine


@dataclass(frozen=True, slots=True)
class Card:
    """A project on the home page."""

    project: int
    title: str
    status: Status | None  # None: its files in the store are damaged
    standing: Standing | None
    quality: str  # mAP50 of the newest accepted version, with its interval; "" if it is not judged yet
    curve: SparkLine
    error: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """The projects, and the addresses that a person needs to connect another one."""

    cards: tuple[Card, ...]
    backend_url: str  # to copy into Label Studio
    label_studio_url: str


def read(context: Context, url: str) -> Home:
    """Return the home page; `url` is the address by which the browser reached the backend."""
    settings, shared = context.settings, machines(context)
    return Home(
        cards=tuple(_card(context, project_id, shared) for project_id in context.store.project_ids()),
        backend_url=(settings.backend_url or url).rstrip("/"),
        label_studio_url=settings.label_studio_url.rstrip("/"),
    )


def _card(context: Context, project_id: int, shared: Machines) -> Card:
    """Return the card of a project; a project that cannot be read costs its own card alone."""
    try:
        status = project_status.status(context, project_id)
    except BackendError as error:
        return Card(project_id, f"Project {project_id}", None, None, "", SparkLine(""), str(error))
    accepted = [version for version in status.versions if version.promoted]
    judged = [version.models[0].metrics for version in accepted if basis.is_judged(version.models[0].metrics)]
    curve = [metrics.map50 for metrics in judged if metrics is not None]
    newest = accepted[-1].models[0].metrics if accepted else None
    return Card(
        project=project_id,
        title=status.label_studio.title or f"Project {project_id}",
        status=status,
        standing=standing(status, shared),
        quality=basis.figure(newest) if newest is not None and basis.is_judged(newest) else "",
        curve=SparkLine.of(curve),
    )
