"""The client of one Label Studio, as one user: all that we read from it and write to it.

Its parts: http (tokens, time limits, retries, errors), projects (settings, webhooks, backends), tabs (Data Manager),
tasks (the pool), annotations (labels), predictions (scores and pre-annotations) and prediction_import (many of them at
once).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

from backend.errors import LabelStudioError, MediaError, NotFoundError
from backend.labelstudio.client.annotations import Annotations, LabelStamp
from backend.labelstudio.client.filters import COMPLETED, LABELED, UNLABELED
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse
from backend.labelstudio.client.prediction_import import PredictionImport
from backend.labelstudio.client.predictions import PredictionRow, Predictions, PredictionStamp, StoredPrediction
from backend.labelstudio.client.projects import BackendInfo, ProjectInfo, Projects, WebhookInfo
from backend.labelstudio.client.tabs import Tabs
from backend.labelstudio.client.tasks import Tasks
from backend.urls.origin import origin_of

__all__ = [
    "COMPLETED",
    "LABELED",
    "UNLABELED",
    "BackendInfo",
    "LabelStamp",
    "LabelStudioClient",
    "PredictionRow",
    "PredictionStamp",
    "ProjectInfo",
    "StoredPrediction",
    "WebhookInfo",
]

IMPATIENT_S = 3.0


class _User(Answer):
    email: str


class LabelStudioClient:
    """A Label Studio reached with a personal access token or a legacy token; nothing is sent before the first call.

    Every failure is an error of our tree: LabelStudioAuthError, NotFoundError, LabelStudioError.
    """

    def __init__(self, url: str, api_key: str, http: LabelStudioHTTP | None = None) -> None:
        self.http = http or LabelStudioHTTP(url, api_key)
        self.projects = Projects(self.http)
        self.tabs = Tabs(self.http, self.projects)
        self.tasks = Tasks(self.http)
        self.annotations = Annotations(self.http, self.tasks)
        self.predictions = Predictions(self.http, self.tasks)
        self.prediction_import = PredictionImport(self.http, self.tasks, self.predictions)

    def __repr__(self) -> str:
        return f"LabelStudioClient({self.http.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    @property
    def url(self) -> str:
        """Label Studio's address, without a slash at its end."""
        return self.http.url

    @classmethod
    def impatient(cls, url: str, api_key: str) -> Self:
        """Return a client that asks once and waits a few seconds only: for a start, or for somebody who waits."""
        return cls(url, api_key, LabelStudioHTTP(url, api_key, read_s=IMPATIENT_S, attempts=1))

    def check(self) -> str:
        """Return the e-mail of the token's user. Raises LabelStudioAuthError, or LabelStudioError when unreachable."""
        try:
            return parse(_User, self.http.get("/api/current-user/whoami")).email
        except NotFoundError:
            fix = "set LABEL_STUDIO_URL to the address of Label Studio's first page, without /projects"
            raise LabelStudioError("no Label Studio answers there", where=self.url, fix=fix) from None

    def clock_ahead_s(self) -> float | None:
        """Return the seconds by which Label Studio's clock is ahead of ours, to a second; None if it does not say.

        Raises LabelStudioError when unreachable.
        """
        response = self.http.request("GET", "/api/current-user/whoami")
        try:
            theirs = parsedate_to_datetime(response.headers["Date"])
        except (KeyError, ValueError):
            return None
        return (theirs - datetime.now(UTC)).total_seconds()

    def authorize(self, url: str) -> dict[str, str]:
        """Return the headers to download `url` with: a valid access token on Label Studio's own origin, else none."""
        origin = origin_of(url)
        return self.http.headers() if origin is not None and origin == origin_of(self.url) else {}

    def resolve(self, task_id: int | None, uri: str) -> str:
        """Return the address of a task's media; a cloud storage URI (s3://, gs://, ...) goes through Label Studio.

        An http(s) address stays as it is, and a path is on Label Studio. Raises MediaError for a cloud storage URI
        without a task.
        """
        if uri.lower().startswith(("http://", "https://")):
            return uri
        if uri.startswith("/"):
            return self.url + uri
        if task_id is None:
            raise MediaError(
                "a cloud storage address needs its task",
                where=uri,
                fix="send the task with its id, as Label Studio does",
            )
        return f"{self.url}/tasks/{task_id}/resolve/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"
