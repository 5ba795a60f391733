"""One Label Studio, as one user: all we read from it and write to it.

Its parts: label_studio_http (the seam: tokens, time limits, retries, errors), label_studio_project (settings, webhook,
backends), label_studio_tabs (Data Manager), label_studio_tasks (pool and labels), label_studio_predictions (scores and
pre-annotations) and label_studio_import (many of them at once).
"""

from __future__ import annotations

import base64
from types import TracebackType
from typing import Self

from backend.addresses import origin_of
from backend.errors import LabelStudioError, MediaError, NotFoundError
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse
from backend.labelstudio.client.prediction_import import ImportCalls
from backend.labelstudio.client.predictions import PredictionRow, PredictionStamp, StoredPrediction
from backend.labelstudio.client.project import COMPLETED, LABELED, UNLABELED, BackendInfo, ProjectInfo, WebhookInfo
from backend.labelstudio.client.tabs import TabCalls
from backend.labelstudio.client.tasks import LabelStamp

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


class LabelStudioClient(TabCalls, ImportCalls):
    """A Label Studio reached with a personal access token or a legacy token; nothing is sent before the first call.

    Every failure is an error of our tree: LabelStudioAuthError, NotFoundError, LabelStudioError.
    """

    def __init__(self, url: str, api_key: str, http: LabelStudioHTTP | None = None) -> None:
        self.http = http or LabelStudioHTTP(url, api_key)

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

    def authorize(self, url: str) -> dict[str, str]:
        """Return the headers to download `url` with: a valid access token on Label Studio's own origin, else none."""
        origin = origin_of(url)
        return self.http.headers() if origin is not None and origin == origin_of(self.url) else {}

    def resolve(self, task_id: int | None, uri: str) -> str:
        """Return the address of a task's media: that of a cloud storage URI (s3://, gs://, ...) goes through LS.

        http(s) addresses stay, paths are on Label Studio. Raises MediaError for a cloud URI without a task.
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
