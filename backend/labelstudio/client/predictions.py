"""The predictions of a Label Studio project: list, count, write and delete single ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import RootModel

from backend.errors import LabelStudioError, LabelStudioRefusedError
from backend.labelstudio.client.filters import ANY_SCORE, UNLABELED, condition
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse, parse_list
from backend.labelstudio.client.tasks import IDS_PER_QUERY, PAGE, Tasks
from backend.types import Json, Region

VERSIONS_SHOWN = 500  # Label Studio cuts a task's list of versions after this many characters

Refused = Callable[[int, str], None]  # called with a task and why Label Studio refuses its prediction
REFUSES = "Label Studio refuses its prediction"


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One prediction to write; `score` is in [0, 1]: an unlabeled task's place, or how wrong a task's labels look."""

    task_id: int
    score: float
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """A prediction as Label Studio holds it."""

    id: int
    task_id: int
    version: str
    score: float | None
    result: tuple[Mapping[str, Any], ...]


class _Prediction(Answer):
    id: int
    task: int
    model_version: str | None = None
    score: float | None = None
    result: list[dict[str, Any]]


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


class _Result(_Stamp):
    result: list[Any] | None = None


class _WithResults(Answer):
    id: int
    predictions: list[_Result]


class _Versions(Answer):
    id: int
    predictions_model_versions: str = ""
    predictions_score: float | None = None


class _Counts(RootModel[dict[str, int]]):
    """The number of predictions by version."""


class Predictions:
    """The calls about predictions."""

    def __init__(self, http: LabelStudioHTTP, tasks: Tasks) -> None:
        self._http = http
        self._tasks = tasks

    def versions(self, project_id: int) -> dict[str, int]:
        """Return how many predictions each version has. Raises NotFoundError."""
        missing = f"no project {project_id} in Label Studio"
        answer = self._http.get(f"/api/projects/{project_id}/model-versions/", missing=missing)
        return {version: count for version, count in parse(_Counts, answer).root.items() if count}

    def highest_number(self, project_id: int) -> int:
        """Return the highest number that a prediction's version ends in, as in "yolo11n-v3"; 0 if none does."""
        matches = (re.fullmatch(r".+-v([0-9]{1,9})", name) for name in self.versions(project_id))
        return max((int(match[1]) for match in matches if match), default=0)

    def of_task(self, task_id: int) -> list[StoredPrediction]:
        """Return a task's predictions, oldest first."""
        predictions = parse_list(_Prediction, self._http.get("/api/predictions/", task=task_id))
        return [
            StoredPrediction(item.id, item.task, item.model_version or "", item.score, tuple(item.result))
            for item in sorted(predictions, key=lambda item: item.id)
        ]

    def of_tasks(self, project_id: int, ids: Sequence[int]) -> Iterator[StoredPrediction]:
        """Yield all predictions of these tasks, of all versions, with their regions."""
        for start in range(0, len(ids), IDS_PER_QUERY):
            selected: Json = {"all": False, "included": list(ids[start : start + IDS_PER_QUERY])}
            for page in self._tasks.pages(project_id, selected=selected, fields="all", include="id,predictions"):
                for task in (parse(_WithResults, payload) for payload in page):
                    for item in task.predictions:
                        result = tuple(item.result or ())
                        yield StoredPrediction(item.id, task.id, item.model_version or "", item.score, result)

    def task_ids(self, project_id: int, version: str) -> Iterator[int]:
        """Yield the ids of the tasks that have a prediction of exactly this version."""
        return (task.id for task in self._holding(project_id, version))

    def queue_scores(self, project_id: int, version: str) -> dict[int, float | None]:
        """Return the score of each unlabeled task that has a prediction of exactly this version.

        It reads no results. Label Studio's score of a task is the mean over its predictions of the project's model
        version, so it is of use only while `version` is that one. Tasks whose mean is null are left out.
        """
        return {task.id: task.predictions_score for task in self._holding(project_id, version, UNLABELED, ANY_SCORE)}

    def _holding(self, project_id: int, version: str, *conditions: Json) -> Iterator[_Versions]:
        shown = "id,predictions_model_versions,predictions_score"
        for page in self._pages_with(project_id, version, *conditions, include=shown):
            for task in (parse(_Versions, payload) for payload in page):
                versions = task.predictions_model_versions.replace(", ", ",").split(",")
                if len(task.predictions_model_versions) >= VERSIONS_SHOWN:
                    versions = [prediction.version for prediction in self.of_task(task.id)]
                if version in versions:
                    yield task

    def ids(self, project_id: int, version: str, limit: int) -> list[int]:
        """Return the ids of at most `limit` predictions of exactly this version.

        It reads the predictions of about `limit` tasks. Label Studio's list of all predictions of a project would have
        no pages and carry every result.
        """
        return [stamp.id for stamp in islice(self.stamps(project_id, version, size=limit), limit)]

    def stamps(
        self, project_id: int, version: str, *conditions: Json, size: int = PAGE, selected: Json | None = None
    ) -> Iterator[PredictionStamp]:
        """Yield all predictions of exactly this version on tasks that meet `conditions`, reading `size` at a time.

        `selected` limits it to tasks, in the form of Data Manager requests; None: all.
        """
        for page in self._pages_with(
            project_id, version, *conditions, size=size, selected=selected, fields="all", include="id,predictions"
        ):
            for task in (parse(_Predicted, payload) for payload in page):
                for stamp in task.predictions:
                    if stamp.model_version == version:
                        yield PredictionStamp(stamp.id, task.id, stamp.score)

    def stamps_of_tasks(self, project_id: int, version: str, ids: Iterable[int]) -> Iterator[PredictionStamp]:
        """Yield all predictions of exactly this version on these tasks."""
        wanted = list(ids)
        for start in range(0, len(wanted), IDS_PER_QUERY):
            selected = {"all": False, "included": wanted[start : start + IDS_PER_QUERY]}
            yield from self.stamps(project_id, version, selected=selected)

    def create(self, version: str, row: PredictionRow, refused: Refused | None = None) -> None:
        """Write one prediction; `refused` as in `update`."""
        self._write("POST", "/api/predictions/", version, row, refused)

    def update(self, prediction_id: int, version: str, row: PredictionRow, refused: Refused | None = None) -> None:
        """Replace all of one prediction.

        Where Label Studio refuses the regions, `refused` is called with the reason, and the prediction is written
        without regions. Raises NotFoundError.
        """
        missing = f"no prediction {prediction_id} in Label Studio"
        self._write("PATCH", f"/api/predictions/{prediction_id}/", version, row, refused, missing=missing)

    def rescore(self, prediction_id: int, score: float) -> None:
        """Replace the score of one prediction, a number in [0, 1], and keep its regions. Raises NotFoundError."""
        missing = f"no prediction {prediction_id} in Label Studio"
        self._http.send("PATCH", f"/api/predictions/{prediction_id}/", {"score": score}, missing=missing)

    def _write(
        self, method: str, path: str, version: str, row: PredictionRow, refused: Refused | None, missing: str = ""
    ) -> None:
        try:
            self._http.send(method, path, json.loads(encoded(row, version)), missing=missing)
        except LabelStudioRefusedError as error:
            if refused is None or not row.regions:
                raise
            refused(row.task_id, f"{REFUSES}: {'; '.join(error.problems) or error.what}")
            self._write(method, path, version, replace(row, regions=()), None, missing)

    def _pages_with(self, project_id: int, version: str, *conditions: Json, **params: Any) -> Iterator[Any]:
        # "contains" also finds v10 when asked for v1, hence the exact comparison by the callers.
        holds = condition("predictions_model_versions", "contains", "List", [version])
        return self._tasks.pages(project_id, holds, *conditions, **params)

    def delete(self, prediction_id: int) -> None:
        """Delete one prediction.

        LS can delete a whole version at once, but on SQLite annotators' submits fail meanwhile. Raises NotFoundError.
        """
        missing = f"no prediction {prediction_id} in Label Studio"
        self._http.send("DELETE", f"/api/predictions/{prediction_id}/", missing=missing)


def encoded(row: PredictionRow, version: str) -> str:
    """Return a prediction as Label Studio takes it. Raises LabelStudioError for a number that it would refuse."""
    where = f"task {row.task_id}, version {version}"
    if not 0 <= row.score <= 1:  # nor NaN
        raise LabelStudioError(f"a prediction has the score {row.score}, which is not in [0, 1]", where=where)
    try:
        item = {
            "task": row.task_id,
            "score": float(row.score),
            "model_version": version,
            "result": [region.as_json() for region in row.regions],
        }
        return json.dumps(item, allow_nan=False)
    except ValueError as error:
        raise LabelStudioError(f"a prediction holds a number that is not finite: {error}", where=where) from None
