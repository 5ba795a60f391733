"""The predictions of a Label Studio project: write many, count, delete slowly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from backend.errors import LabelStudioError
from backend.label_studio_http import Answer, LabelStudioHTTP, parse
from backend.label_studio_project import condition
from backend.label_studio_tasks import IDS_PER_QUERY, PAGE, TaskCalls
from backend.types import Json, Region

BATCH = 1000  # each import recounts the whole project: few, large requests
BATCH_BYTES = 64 * 2**20  # Label Studio takes up to 250 MB at once, and a mask of a large image takes 70 kB
MOST_REFUSED = 100  # of a batch: if there are more, the label config is another one by now
VERSIONS_SHOWN = 500  # Label Studio cuts a task's list of versions after this many characters


Refused = Callable[[int, str], None]  # is told a task and why its prediction is not taken
_Batch = list[tuple[int, str]]  # task ids and predictions in JSON


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One prediction to import; `score` is the task's priority, finite, lowest first in the queue."""

    task_id: int
    score: float
    regions: tuple[Region, ...] = ()
    mislabeling: float = 0.0  # how likely the task's labels are wrong; an import leaves it out


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """A prediction as Label Studio holds it."""

    id: int
    task_id: int
    version: str
    score: float | None
    result: tuple[Mapping[str, Any], ...]
    mislabeling: float


class _Prediction(Answer):
    id: int
    task: int
    model_version: str | None = None
    score: float | None = None
    result: list[dict[str, Any]]
    mislabeling: float = 0.0


@dataclass(frozen=True, slots=True)
class PredictionStamp:
    """Which prediction of a version a task has, and with which score."""

    id: int
    task_id: int
    score: float | None


class _Stamp(Answer):
    id: int
    model_version: str | None = None
    score: float | None = None


class _Predicted(Answer):
    id: int
    predictions: list[_Stamp]


class _Versions(Answer):
    id: int
    predictions_model_versions: str = ""


class PredictionCalls(TaskCalls):
    """The calls about predictions; mixed into the client, which brings `http`."""

    http: LabelStudioHTTP

    def import_predictions(
        self, project_id: int, version: str, rows: Iterable[PredictionRow], refused: Refused | None = None
    ) -> int:
        """Import predictions of one version in batches; return how many were written.

        Rows of tasks that were deleted meanwhile are left out. Old predictions are not replaced. Raises
        LabelStudioError for a score that is not finite, before its batch is sent, and when LS drops rows of a batch
        (it does so silently when a region does not fit the label config), with the rest of the batch written. With
        `refused`, which is told each such task and the reason, they are written without regions instead; not if they
        are all of a batch, or more than MOST_REFUSED.
        """
        created = 0
        for batch in _batches(rows, version):
            created += self._import(project_id, version, batch, first=created, refused=refused)
        return created

    def _import(self, project_id: int, version: str, batch: _Batch, first: int, refused: Refused | None) -> int:
        try:
            return self._import_all(project_id, version, batch, first, refused)
        except LabelStudioError as error:
            if 'invalid "task"' not in error.what and "Invalid task ID" not in error.what:
                raise
        # Nothing of the batch was written: someone deleted a task since it was scored.
        left = {task.id for task in self.tasks(project_id, [task_id for task_id, _ in batch])}
        batch = [row for row in batch if row[0] in left]
        return self._import_all(project_id, version, batch, first, refused) if batch else 0

    def _import_all(self, project_id: int, version: str, batch: _Batch, first: int, refused: Refused | None) -> int:
        body = "[" + ",".join(text for _, text in batch) + "]"
        answer = self.http.send(
            "POST",
            f"/api/projects/{project_id}/import/predictions",
            missing=f"no project {project_id} in Label Studio",
            content=body.encode(),
            headers={"Content-Type": "application/json"},
        )
        created = int(answer["created"])
        if created != len(batch):
            left = self._left_out(project_id, version, batch) if refused is not None else []
            if refused is not None and len(left) <= MOST_REFUSED and (created or len(batch) == 1):
                return created + self._import_bare(project_id, version, left, refused)
            raise LabelStudioError(
                f"Label Studio wrote {answer['created']} of {len(batch)} predictions",
                where=f"project {project_id}, version {version}, batch from row {first} (task {batch[0][0]})",
                fix="the label config may have changed since they were made: score again",
            )
        return len(batch)

    def _left_out(self, project_id: int, version: str, batch: _Batch) -> _Batch:
        """Return the rows of a batch that Label Studio did not write."""
        written = {stamp.task_id for stamp in self.stamps_of(project_id, version, [task_id for task_id, _ in batch])}
        return [row for row in batch if row[0] not in written]

    def _import_bare(self, project_id: int, version: str, batch: _Batch, refused: Refused) -> int:
        """Write rows without their regions, so that their tasks keep their places in the queue."""
        config = self.http.get(f"/api/projects/{project_id}/", include="label_config")["label_config"]
        rows = [(task_id, json.loads(text)) for task_id, text in batch]
        for task_id, row in rows:
            refused(task_id, _why_refused(config, row))
        bare = [(task_id, json.dumps(row | {"result": []})) for task_id, row in rows]
        return self._import_all(project_id, version, bare, first=0, refused=None)

    def prediction_versions(self, project_id: int) -> dict[str, int]:
        """Return how many predictions each version has. Raises NotFoundError."""
        missing = f"no project {project_id} in Label Studio"
        counts = self.http.get(f"/api/projects/{project_id}/model-versions/", missing=missing)
        return {str(version): int(count) for version, count in counts.items() if count}

    def predictions_of(self, task_id: int) -> list[StoredPrediction]:
        """Return a task's predictions, oldest first."""
        found = [parse(_Prediction, each) for each in self.http.get("/api/predictions/", task=task_id)]
        return [
            StoredPrediction(one.id, one.task, one.model_version or "", one.score, tuple(one.result), one.mislabeling)
            for one in sorted(found, key=lambda one: one.id)
        ]

    def predicted_tasks(self, project_id: int, version: str) -> Iterator[int]:
        """Yield the ids of the tasks that have a prediction of exactly this version."""
        for page in self._pages_with(project_id, version, include="id,predictions_model_versions"):
            for task in (parse(_Versions, each) for each in page):
                versions = task.predictions_model_versions.replace(", ", ",").split(",")
                if len(task.predictions_model_versions) >= VERSIONS_SHOWN:
                    versions = [one.version for one in self.predictions_of(task.id)]
                if version in versions:
                    yield task.id

    def prediction_ids(self, project_id: int, version: str, limit: int) -> list[int]:
        """Return the ids of at most `limit` predictions of exactly this version.

        It reads the predictions of about `limit` tasks; the list of all predictions of a project has no pages and
        carries every result.
        """
        return [stamp.id for stamp in islice(self.prediction_stamps(project_id, version, size=limit), limit)]

    def prediction_stamps(
        self, project_id: int, version: str, *conditions: Json, size: int = PAGE, selected: Json | None = None
    ) -> Iterator[PredictionStamp]:
        """Yield all predictions of exactly this version on tasks that meet `conditions`, reading `size` at a time.

        `selected` are tasks as Data Manager requests select them; None: all.
        """
        for page in self._pages_with(
            project_id, version, *conditions, size=size, selected=selected, fields="all", include="id,predictions"
        ):
            for task in (parse(_Predicted, each) for each in page):
                for one in task.predictions:
                    if one.model_version == version:
                        yield PredictionStamp(one.id, task.id, one.score)

    def stamps_of(self, project_id: int, version: str, ids: Iterable[int]) -> Iterator[PredictionStamp]:
        """Yield all predictions of exactly this version on these tasks."""
        wanted = list(ids)
        for start in range(0, len(wanted), IDS_PER_QUERY):
            chosen = {"all": False, "included": wanted[start : start + IDS_PER_QUERY]}
            yield from self.prediction_stamps(project_id, version, selected=chosen)

    def create_prediction(self, version: str, row: PredictionRow) -> None:
        """Write one prediction with all its fields; an import is far faster, but knows no `mislabeling`."""
        self.http.send("POST", "/api/predictions/", _whole(row, version))

    def update_prediction(self, prediction_id: int, version: str, row: PredictionRow) -> None:
        """Replace all of one prediction (about as slow as a POST). Raises NotFoundError."""
        missing = f"no prediction {prediction_id} in Label Studio"
        self.http.send("PATCH", f"/api/predictions/{prediction_id}/", _whole(row, version), missing=missing)

    def _pages_with(self, project_id: int, version: str, *conditions: Json, **params: Any) -> Iterator[Any]:
        # "contains" also finds v10 when asked for v1, hence the exact comparison by the callers.
        holds = condition("predictions_model_versions", "contains", "List", [version])
        return self.pages(project_id, holds, *conditions, **params)

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction.

        LS can delete a whole version at once, but on SQLite annotators' submits fail meanwhile. Raises NotFoundError.
        """
        missing = f"no prediction {prediction_id} in Label Studio"
        self.http.send("DELETE", f"/api/predictions/{prediction_id}/", missing=missing)


def _why_refused(label_config: str, row: Json) -> str:
    """Return what Label Studio's own check says against a prediction; its answer does not tell."""
    from label_studio_sdk.label_interface import LabelInterface  # takes a second, and is hardly ever needed

    reasons = LabelInterface(label_config).validate_prediction(row, return_errors=True)
    named = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
    return f"Label Studio refuses its prediction: {named or 'it does not say why'}"


def _batches(rows: Iterable[PredictionRow], version: str) -> Iterator[_Batch]:
    """Yield rows as they are sent, up to BATCH of them and BATCH_BYTES at a time, one at least."""
    batch: _Batch = []
    size = 0
    for row in rows:
        text = _encoded(row, version)
        if batch and (len(batch) == BATCH or size + len(text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((row.task_id, text))
        size += len(text)
    if batch:
        yield batch


def _whole(row: PredictionRow, version: str) -> Json:
    found: Json = json.loads(_encoded(row, version))
    return found | {"mislabeling": row.mislabeling}


def _encoded(row: PredictionRow, version: str) -> str:
    try:
        if not math.isfinite(row.score):
            raise ValueError(f"score {row.score}")
        item = {
            "task": row.task_id,
            "score": float(row.score),
            "model_version": version,
            "result": [region.as_json() for region in row.regions],
        }
        return json.dumps(item, allow_nan=False)
    except ValueError as error:
        raise LabelStudioError(
            f"a prediction holds a number that is not finite: {error}", where=f"task {row.task_id}, version {version}"
        ) from None
