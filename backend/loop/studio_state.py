"""The state of a project in Label Studio at the last reconcile, stored for the status page.

The status page itself sends no request to Label Studio.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from backend.labelstudio.client.projects import SAMPLING
from backend.loop.context import Context

_MEMO = "label_studio"


@dataclass(frozen=True, slots=True)
class StudioState:
    """The state of a project in Label Studio at the last reconcile; "" is unknown."""

    reached: str = ""  # when Label Studio last answered, in UTC
    error: str = ""  # why the last reconcile failed; "" if it did not
    webhook: str = ""  # "on", "off", "missing", or "given up": Label Studio switched it off after failed events
    sampling: str = ""  # Label Studio's setting of the same name
    rivals: str = ""  # the webhooks of other installations of this backend
    title: str = ""  # of the project

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems of this state, each with its fix."""
        warnings = [f"the last comparison with Label Studio failed: {self.error}"] if self.error else []
        if self.webhook == "missing":
            warnings.append(f"Label Studio has no webhook to this backend: {_LATE} {_ATTACH}")
        elif self.webhook == "given up":
            warnings.append(f"Label Studio has given up the webhook to this backend: {_LATE} {_UNREACHED}")
        elif self.webhook == "off":
            warnings.append(f"the webhook to this backend is off: {_LATE} Fix: switch it on in Settings > Webhooks")
        if self.sampling not in ("", SAMPLING):
            warnings.append(f'Label Studio hands out tasks by "{self.sampling}", not in the model\'s order. {_CHOOSE}')
        if self.rivals:
            warnings.append(f"another installation of this backend has a webhook here, to {self.rivals}: {_RIVALS}")
        return tuple(warnings)


_RIVALS = (
    "both use the same version names, so each mistakes the predictions of the other for its own. Fix: connect only one "
    "of them (Settings > Model), and delete the webhook of the other (Settings > Webhooks)"
)
_LATE = "new labels are only counted every RECONCILE_S seconds."
_UNREACHED = (
    "Too many events did not reach the backend. Fix: start its server; once Label Studio reaches it, the worker "
    "switches the webhook on again"
)
_ATTACH = "Fix: remove the model in Settings > Model and connect it again"
_CHOOSE = f'Fix: choose "{SAMPLING}" in Settings > General, or run `yolo-backend connect`'


def last(context: Context, project_id: int) -> StudioState:
    """Return the state that was stored last."""
    stored = context.progress.recall(project_id, _MEMO)
    return StudioState(**json.loads(stored)) if stored else StudioState()


def note(context: Context, project_id: int, *, webhook: str, sampling: str, rivals: str, title: str) -> None:
    """Store the state of a project, and the time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    state = StudioState(reached=now, webhook=webhook, sampling=sampling, rivals=rivals, title=title)
    _keep(context, project_id, state)


def note_error(context: Context, project_id: int, error: str) -> None:
    """Store why the state could not be read, beside the last known state."""
    _keep(context, project_id, replace(last(context, project_id), error=error))


def _keep(context: Context, project_id: int, state: StudioState) -> None:
    context.progress.remember(project_id, _MEMO, json.dumps(asdict(state)))
