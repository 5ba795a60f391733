"""Checks of Label Studio: the token and its rights, the addresses that it allows, the clock, and a webhook's way."""

from __future__ import annotations

import time
from collections.abc import Iterator

from redis import Redis

from backend.errors import BackendError, LabelStudioBlockedError, LabelStudioError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.labelstudio.client.projects import FAILURES, webhooks_to
from backend.labelstudio.client.trial_project import TrialProject, trial_project
from backend.loop.checks.finding import Finding, fails, works
from backend.loop.project_setup import WEBHOOK_HEADER
from backend.queue import presence
from backend.store.store import Store

MAX_SKEW_S = 30.0  # by which the clocks may differ; access tokens last 300 s, and quiet times are measured in 120 s
EVENT_S = 10.0  # longest wait for a webhook; Label Studio itself waits 1 s for the answer
_POLL_S = 0.1
_TITLE = "yolo-backend doctor"


def studio(client: LabelStudioClient, store: Store, redis: Redis | None, backend_url: str) -> Iterator[Finding]:
    """Yield the findings about Label Studio; the trial project is deleted at the end.

    Without redis nobody can see whether a webhook came. `backend_url` is the backend's address for Label Studio.
    """
    try:
        user = client.check()
    except LabelStudioError as error:
        yield fails("token", error)
        return
    yield works("token", f"{client.url} as {user}")
    try:
        yield clock(client)
        with trial_project(client.http, _TITLE) as trial:
            yield works("rights", "the user may make projects, models and webhooks")
            yield model_address(trial, backend_url)
            yield from webhook(trial, store, redis, backend_url)
        yield from projects(client, store)
    except BackendError as error:
        yield fails("rights", error)


def clock(client: LabelStudioClient) -> Finding:
    """Compare Label Studio's clock with ours."""
    ahead_s = client.clock_ahead_s()
    if ahead_s is None:
        return works("clock", "Label Studio does not say its time")
    differs = f"Label Studio's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) > MAX_SKEW_S:
        return Finding("clock", False, differs, "set both clocks by NTP")
    return works("clock", differs)


def model_address(trial: TrialProject, backend_url: str) -> Finding:
    """Ask whether Label Studio allows a model at the backend's address."""
    try:
        trial.may_have_backend(f"{backend_url}/nothing-here")
    except LabelStudioBlockedError as error:
        return Finding("model address", False, f"Label Studio allows no model at {backend_url}", error.fix)
    return works("model address", f"Label Studio allows a model at {backend_url}")


def webhook(trial: TrialProject, store: Store, redis: Redis | None, backend_url: str) -> Iterator[Finding]:
    """Let Label Studio send an event to the backend, and look whether it came."""
    url = f"{backend_url}/webhook"
    try:
        trial.add_webhook(url, {WEBHOOK_HEADER: store.secret()})
    except LabelStudioBlockedError as error:
        yield Finding("webhook", False, f"Label Studio allows no webhook to {url}", error.fix)
        return
    if redis is None:
        yield Finding("webhook", False, "not checked: redis does not answer", 'correct the line "redis" first')
        return
    begun = time.monotonic()
    trial.touch()
    while not presence.last_event(redis, trial.id):
        if time.monotonic() - begun > EVENT_S:
            fix = (
                "start the backend, and set BACKEND_URL to an address at which Label Studio reaches it; the log of "
                "Label Studio says why its request failed"
            )
            yield Finding("webhook", False, f"no event came to {url} in {EVENT_S:.0f} s", fix)
            return
        time.sleep(_POLL_S)
    yield works("webhook", f"an event came to {url} in {time.monotonic() - begun:.1f} s")


def projects(client: LabelStudioClient, store: Store) -> Iterator[Finding]:
    """Look for the webhook of each connected project."""
    ids = store.project_ids()
    hooks, infos = client.projects.webhooks(), client.projects.get_many(ids)
    good = 0
    for project_id in ids:
        subject, record = f"project {project_id}", store.project(project_id)
        ours = (
            webhooks_to(record.backend_url, (hook for hook in hooks if hook.project_id == project_id)) if record else []
        )
        again = f"run `yolo-backend connect {project_id}`"
        if project_id not in infos:
            yield Finding(
                subject, False, "Label Studio has no such project, or hides it from this user", "check the user"
            )
        elif not ours:
            yield Finding(subject, False, "Label Studio has no webhook to this backend", again)
        elif not any(hook.is_active for hook in ours):
            if any(hook.is_given_up for hook in ours):
                fix = "start the worker: it switches the webhook on again once Label Studio reaches this backend"
                yield Finding(subject, False, f"Label Studio gave up its webhook after {FAILURES} failed events", fix)
            else:
                yield Finding(subject, False, "its webhook is off", "switch it on in Label Studio, Settings > Webhooks")
        elif all(hook.headers.get(WEBHOOK_HEADER) != store.secret() for hook in ours):
            yield Finding(subject, False, "its webhook lacks our secret header", again)
        else:
            good += 1
    if not ids:
        yield works("projects", "none is connected yet: `yolo-backend connect PROJECT`")
    elif good:
        yield works("projects", f"{good} of {len(ids)} connected projects have their webhook")
