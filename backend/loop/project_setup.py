"""The set-up of a project in Label Studio: webhook header, sampling, tabs, and the version that the queue goes by."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from backend.errors import BackendError, LabelStudioError, NotFoundError
from backend.evaluation import basis
from backend.evaluation.label_quality import SUSPECT
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import BackendInfo, ProjectInfo, WebhookInfo
from backend.labelstudio.client.projects import webhooks_to
from backend.labelstudio.client.tabs import LABEL_ISSUES_TAB, QUEUE_TAB
from backend.loop import studio_state
from backend.loop.context import Context
from backend.loop.scoring.push import flip, is_pending
from backend.loop.served_models import name_of, project_record, serving_number
from backend.queue.rq_queue import Jobs
from backend.store.store import ProjectRecord

log = logging.getLogger(__name__)

WEBHOOK_HEADER = "X-Yolo-Backend-Secret"
_ADDED = re.compile(r" · \S+-v[0-9]+( · mAP50 [0-9.]+)?$")  # what `show_version` adds to a title
RECOVERY_PAUSE_S = 600  # before the next attempt to recover a lost project


def configure(context: Context, jobs: Jobs, project_id: int, *, set_sampling: bool = False) -> tuple[str, ...]:
    """Set up the project in Label Studio: webhook header, sampling, tabs, model_version; return what was done.

    The sampling is set only the first time, or with `set_sampling`, so that a later choice of the project's owner
    stays. It is safe to run again. A project without predictions of the served version is scored first; its push then
    switches the queue.
    """
    record = project_record(context, project_id)
    client = context.label_studio
    done = []
    try:
        if record.backend_url and _secure_webhook(context, record):
            done.append("gave the webhook its secret header")
    except NotFoundError as error:
        done.append(
            f"the webhook is not set up: {error}; labels are only counted every {context.settings.reconcile_s:g} s"
        )
    if (set_sampling or not record.configured) and client.projects.set_sampling(project_id):
        done.append('set sampling to "Uncertainty sampling"')
    if client.tabs.ensure_queue(project_id):
        done.append(f'made the Data Manager tab "{QUEUE_TAB}"')
    if client.tabs.ensure_label_issues(project_id, SUSPECT):
        done.append(f'made the Data Manager tab "{LABEL_ISSUES_TAB}"')
        if number := serving_number(context, project_id):
            jobs.once("review_labels", project_id, number)  # fills the tab
    version = name_of(context, record)
    if is_pending(context, record):
        jobs.once("start_scoring", project_id)
        done.append(f"started scoring the unlabeled tasks with {name_of(context, record, accepted=True)}")
    else:
        if flip(context, project_id, version):
            done.append(f"pointed the queue at {version}")
        context.store.note_shown(project_id, serving_number(context, project_id))
    # Our calls make Label Studio call /setup, which may have written a newer record meanwhile.
    latest = context.store.project(project_id) or record
    context.store.save_project(replace(latest, configured=record.backend_url))
    log.info("project %d: %s", project_id, "; ".join(done) or "already configured")
    return tuple(done)


def is_drifted(context: Context, record: ProjectRecord, hooks: Iterable[WebhookInfo]) -> bool:
    """Return whether the backend's address has changed, or its webhook was created again without our header.

    `hooks` are the webhooks of all projects.
    """
    if record.configured != record.backend_url:
        return True
    mine = webhooks_to(record.backend_url, (hook for hook in hooks if hook.project_id == record.project_id))
    return any(hook.headers.get(WEBHOOK_HEADER) != context.store.secret() for hook in mine)


def revive_webhook(context: Context, record: ProjectRecord, hooks: Iterable[WebhookInfo]) -> None:
    """Switch on the project's webhook if Label Studio has given it up, once Label Studio reaches this backend again.

    Before that each event would hold an annotator's request until Label Studio's time limit. A webhook that a person
    has switched off stays off. `hooks` are the webhooks of all projects.
    """
    client = context.label_studio.projects
    mine = (hook for hook in hooks if hook.project_id == record.project_id)
    given_up = [hook for hook in webhooks_to(record.backend_url, mine) if hook.is_given_up]
    if not given_up:
        return
    backends = client.backends(record.project_id)  # this request makes Label Studio call /health and /setup
    if any(backend.url.rstrip("/") == record.backend_url and backend.state == "Connected" for backend in backends):
        for hook in given_up:
            client.switch_on_webhook(hook)
            log.warning("project %d: switched on its webhook after %d failed events", record.project_id, hook.failures)


def is_misdirected(context: Context, record: ProjectRecord, shown: str) -> bool:
    """Return whether Label Studio's queue should go by our version, but does not.

    Label Studio writes the backend's title to the project's model_version when a backend is attached, and clears it
    when pre-annotations are switched off. Or a push died before it switched the queue. `shown` is the project's
    model_version.
    """
    version, client = name_of(context, record), context.label_studio
    if shown == version or context.progress.scoring(record.project_id) is not None:
        return False  # the push at the end of the scoring switches the queue
    if version not in client.predictions.versions(record.project_id):
        return False  # no unlabeled task has a prediction, so there is no queue
    if context.store.shown(record.project_id) not in (None, serving_number(context, record.project_id)):
        return True
    # Last, because this request makes Label Studio call /setup of each backend.
    titles = {own_title(backend.title) for backend in client.projects.backends(record.project_id)} if shown else {""}
    return own_title(shown) in titles


def own_title(title: str) -> str:
    """Return the title that a user gave a model in Label Studio, without what `show_version` added.

    >>> own_title("yolo · yolo11n-v3 · mAP50 0.45"), own_title("yolo · yolo11n-v0"), own_title("yolo")
    ('yolo', 'yolo', 'yolo')
    """
    return _ADDED.sub("", title)


def show_version(context: Context, project_id: int) -> None:
    """Write the serving version and its mAP50 into the title of the model in Label Studio: its card shows no more.

    A failure is only logged, because the title decides nothing.
    """
    record, version = project_record(context, project_id), context.store.serving(project_id)
    metrics = version.models[0].metrics if version else None
    added = f" · {name_of(context, record)}"
    if metrics is not None and basis.is_judged(metrics):
        added += f" · mAP50 {metrics.map50:.2f}"
    client, settings = context.label_studio.projects, context.settings
    try:
        for backend in client.backends(project_id):
            title = own_title(backend.title) + added
            if backend.url.rstrip("/") == record.backend_url and backend.title != title:
                login = settings.basic_auth_user, settings.basic_auth_pass
                client.change_backend(project_id, backend, *login, title=title)
    except BackendError as error:
        log.warning("project %d: the title of its model stays: %s", project_id, error)


def recover_lost_projects(context: Context, hooks: Iterable[WebhookInfo]) -> None:
    """Make Label Studio call /setup for projects that have a webhook of ours but are not in the store.

    Label Studio calls /setup when it is asked for the backends of a project. The store of such a project is lost, or
    the project belongs to another backend. So each is asked for at most every RECOVERY_PAUSE_S seconds.
    """
    lost = {hook.project_id for hook in hooks if WEBHOOK_HEADER in hook.headers} - set(context.store.project_ids())
    for project_id in sorted(lost):
        if context.progress.recall(project_id, "taken_up"):
            continue
        context.progress.remember(project_id, "taken_up", "asked", for_s=RECOVERY_PAUSE_S)
        try:
            context.label_studio.projects.backends(project_id)
        except BackendError as error:  # the other projects are recovered nevertheless
            log.warning("project %d: %s", project_id, error)


def note_studio_state(context: Context, record: ProjectRecord, info: ProjectInfo, hooks: Iterable[WebhookInfo]) -> None:
    """Store a project's title, and the state of its webhook and sampling in Label Studio, for the status."""
    mine = [hook for hook in hooks if hook.project_id == record.project_id]
    webhook, secret = "", context.store.secret()
    if record.backend_url:
        ours = webhooks_to(record.backend_url, mine)
        webhook = _state_of(ours)
    rivals = sorted(hook.url for hook in mine if hook.headers.get(WEBHOOK_HEADER, secret) != secret)
    studio_state.note(
        context,
        record.project_id,
        webhook=webhook,
        sampling=info.sampling,
        rivals=", ".join(rivals),
        title=info.title,
    )


def _state_of(hooks: Iterable[WebhookInfo]) -> str:
    """Return the state of a project's webhook for the status.

    >>> _state_of([WebhookInfo(1, 1, "", {}, is_active=False, failures=50)])
    'given up'
    """
    states = {"on" if hook.is_active else "given up" if hook.is_given_up else "off" for hook in hooks}
    return next((state for state in ("on", "given up", "off") if state in states), "missing")


def _secure_webhook(context: Context, record: ProjectRecord) -> bool:
    """Write our secret to the header of the project's webhook; return whether it was missing.

    Anybody can call /setup with any address. So the address counts as ours only if it is BACKEND_URL, or if a user has
    attached it in Label Studio. Raises NotFoundError if it is not ours, or if there is no webhook.
    """
    client, project_id, url = context.label_studio, record.project_id, record.backend_url
    header = WEBHOOK_HEADER, context.store.secret()
    if not client.projects.lacks_webhook_header(project_id, url, *header):
        return False
    if url != context.settings.backend_url.rstrip("/"):
        attached = {backend.url.rstrip("/") for backend in client.projects.backends(project_id)}
        if context.settings.backend_url or url not in attached:
            raise NotFoundError(
                f"{url} is not the address of this backend",
                where=f"project {project_id}",
                fix="connect the model in Label Studio (Settings > Model) with the address in BACKEND_URL",
            )
    return client.projects.ensure_webhook_header(project_id, url, *header)


def connect(context: Context, project_id: int, url: str) -> tuple[str, ...]:
    """Attach the backend at `url` to a project, as Label Studio's own page does; return what was done.

    Label Studio calls /setup meanwhile, and that enqueues `configure`. Raises LabelStudioBlockedError if Label Studio
    refuses private addresses, and LabelStudioError with the backend's own message if /setup fails. Where the label
    config has smart tools, Label Studio's switch "Interactive preannotations" is on afterwards.
    """
    client, settings = context.label_studio, context.settings
    url, login = url.rstrip("/"), (settings.basic_auth_user, settings.basic_auth_pass)
    attached = next(
        (backend for backend in client.projects.backends(project_id) if backend.url.rstrip("/") == url), None
    )
    smart = label_config.is_smart(client.projects.get(project_id).label_config)
    if attached is None:
        attached = client.projects.attach_backend(project_id, url, "yolo-backend", *login, interactive=smart)
        done = [f"attached {url} to project {project_id}"]
    else:
        done = [f"{url} was attached to project {project_id} already ({attached.state})"]
    if attached.error_message:
        raise LabelStudioError(attached.error_message, where=f"/setup of {url}", fix="correct what the message names")
    if smart and not attached.is_interactive:
        client.projects.change_backend(project_id, attached, *login, is_interactive=True)
        done.append("switched on interactive preannotations, because the label config has smart tools")
    return (*done, *configure(context, Jobs(context.redis), project_id, set_sampling=True))


@dataclass(frozen=True, slots=True)
class Attachments:
    """What Label Studio holds of this backend in a project."""

    backends: tuple[BackendInfo, ...]
    webhooks: tuple[WebhookInfo, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each."""
        models = (f'the model "{backend.title}" at {backend.url}' for backend in self.backends)
        return (*models, *(f"the webhook to {hook.url}" for hook in self.webhooks))


def attachments(context: Context, project_id: int) -> Attachments:
    """Return the models and webhooks of this backend in a project; raises NotFoundError for an unknown project.

    A webhook is ours if it has our secret header. Ours are also those to the address at which the project was
    connected, to BACKEND_URL, and to the address of a webhook of ours.
    """
    projects, record = context.label_studio.projects, context.store.project(project_id)
    projects.get(project_id)  # raises NotFoundError, where Label Studio would answer 400
    hooks, header = projects.webhooks(project_id), (WEBHOOK_HEADER, context.store.secret())
    signed = {hook.url.rstrip("/").removesuffix("/webhook") for hook in hooks if header in hook.headers.items()}
    urls = signed | {context.settings.backend_url.rstrip("/"), record.backend_url if record else ""} - {""}
    return Attachments(
        tuple(backend for backend in projects.backends(project_id) if backend.url.rstrip("/") in urls),
        tuple(hook for hook in hooks if any(webhooks_to(url, [hook]) for url in urls)),
    )


def disconnect(context: Context, project_id: int, attached: Attachments) -> None:
    """Remove the models and webhooks from Label Studio, and put the project aside; its versions stay in the store."""
    for backend in attached.backends:
        context.label_studio.projects.delete_backend(backend.id)
    for hook in attached.webhooks:
        context.label_studio.projects.delete_webhook(hook.id)
    context.store.put_aside(project_id)  # last: Label Studio calls /setup of a model before it removes it
