"""Import many predictions of one version into Label Studio. A refused prediction costs only its own task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from pydantic import StrictInt

from backend.errors import LabelStudioError, LabelStudioRefusedError
from backend.labelstudio.client.http import Answer, LabelStudioHTTP, parse
from backend.labelstudio.client.predictions import REFUSES, PredictionRow, Predictions, Refused, encoded
from backend.labelstudio.client.tasks import Tasks
from backend.types import Json

BATCH = 1000  # each import recounts the whole project: few, large requests
BATCH_BYTES = 64 * 2**20  # Label Studio takes up to 250 MB at once, and a mask of a large image takes 70 kB
MOST_REFUSED = 100  # rows of a batch: if there are more, the label config has changed
ATTEMPTS = 3  # of a batch: people may delete tasks while it is on its way

_Batch = list[tuple[int, str]]  # task ids and predictions in JSON
_PROBLEM = re.compile(r"Prediction (\d+): (.*)", re.DOTALL)


class _Imported(Answer):
    created: StrictInt


class _Config(Answer):
    label_config: str


class PredictionImport:
    """The import of many predictions at once."""

    def __init__(self, http: LabelStudioHTTP, tasks: Tasks, predictions: Predictions) -> None:
        self._http = http
        self._tasks = tasks
        self._predictions = predictions

    def run(
        self,
        project_id: int,
        version: str,
        rows: Iterable[PredictionRow],
        refused: Refused | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> int:
        """Import predictions of one version in batches; return how many were written.

        Rows of tasks that were deleted meanwhile are left out. Old predictions are not replaced. `before` runs before
        each batch.

        Label Studio refuses a prediction whose regions do not fit the label config. It drops that prediction, or,
        where it validates predictions, the whole batch. With `refused`, the refused predictions are written without
        regions, and `refused` is called with each task and the reason. If a whole batch is refused, or more than
        MOST_REFUSED of its rows, or if `refused` is None, LabelStudioError is raised. So it is for a score that is not
        in [0, 1].
        """
        created = 0
        for batch in batches_of(rows, version):
            before()
            created += self._import(project_id, version, batch, first=created, refused=refused)
        return created

    def _import(self, project_id: int, version: str, batch: _Batch, first: int, refused: Refused | None) -> int:
        for _ in range(ATTEMPTS):
            if not batch:
                return 0
            try:
                return self._import_all(project_id, version, batch, first, refused)
            except LabelStudioRefusedError as error:
                batch = self._corrected(project_id, version, batch, error, refused)
        return self._import_all(project_id, version, batch, first, refused)

    def _corrected(
        self, project_id: int, version: str, batch: _Batch, error: LabelStudioRefusedError, refused: Refused | None
    ) -> _Batch:
        """Return the batch to send instead of a refused one; raise `error` where the answer names no refused row.

        Some tasks may be deleted, and Label Studio may have written a part of the batch.
        """
        reasons = _reasons(batch, error.problems)
        if not reasons and 'invalid "task"' not in error.what:
            raise error
        existing = {task.id for task in self._tasks.get_many(project_id, [task_id for task_id, _ in batch])}
        unwritten = [row for row in self._unwritten(project_id, version, batch) if row[0] in existing]
        bad = {task_id: reasons[task_id] for task_id, _ in unwritten if task_id in reasons}
        if bad and (refused is None or not _are_few(len(bad), len(unwritten))):
            raise error
        for task_id, reason in bad.items():
            assert refused is not None
            refused(task_id, f"{REFUSES}: {reason}")
        return [(task_id, _bare(text) if task_id in bad else text) for task_id, text in unwritten]

    def _import_all(self, project_id: int, version: str, batch: _Batch, first: int, refused: Refused | None) -> int:
        body = "[" + ",".join(text for _, text in batch) + "]"
        answer = self._http.send(
            "POST",
            f"/api/projects/{project_id}/import/predictions",
            missing=f"no project {project_id} in Label Studio",
            content=body.encode(),
            headers={"Content-Type": "application/json"},
        )
        created = parse(_Imported, answer).created
        if created == len(batch):
            return created
        unwritten = self._unwritten(project_id, version, batch) if refused is not None else []
        written = len(batch) - len(unwritten)
        # If Label Studio asked /predict meanwhile, more may be written than it says, but never fewer.
        if refused is not None and 0 <= created <= written and _are_few(len(unwritten), len(batch)):
            return written + self._import_bare(project_id, version, unwritten, refused)
        raise LabelStudioError(
            f"Label Studio says that it wrote {created} of {len(batch)} predictions",
            where=f"project {project_id}, version {version}, batch from row {first} (task {batch[0][0]})",
            fix="the label config may have changed since they were made: score again",
        )

    def _unwritten(self, project_id: int, version: str, batch: _Batch) -> _Batch:
        """Return the rows of a batch that Label Studio did not write."""
        written = {
            stamp.task_id
            for stamp in self._predictions.stamps_of_tasks(project_id, version, [task_id for task_id, _ in batch])
        }
        return [row for row in batch if row[0] not in written]

    def _import_bare(self, project_id: int, version: str, batch: _Batch, refused: Refused) -> int:
        """Write rows without their regions, so that their tasks keep their places in the queue."""
        if not batch:
            return 0
        config = parse(_Config, self._http.get(f"/api/projects/{project_id}/", include="label_config")).label_config
        for task_id, text in batch:
            refused(task_id, _why_refused(config, json.loads(text)))
        return self._import_all(project_id, version, [(id_, _bare(text)) for id_, text in batch], 0, refused=None)


def _are_few(refused: int, batch: int) -> bool:
    """Return whether single predictions are at fault, given their number, and not an outdated label config."""
    return refused <= MOST_REFUSED and (refused < batch or batch <= 1)


def _reasons(batch: _Batch, problems: Iterable[str]) -> Mapping[int, str]:
    """Return why rows are refused, by task; Label Studio names them by their place in the batch."""
    reasons: dict[int, list[str]] = {}
    for problem in problems:
        match = _PROBLEM.fullmatch(problem)
        if match and int(match[1]) < len(batch):
            reasons.setdefault(batch[int(match[1])][0], []).append(match[2])
    return {task_id: "; ".join(texts) for task_id, texts in reasons.items()}


def _bare(text: str) -> str:
    row: Json = json.loads(text)
    return json.dumps(row | {"result": []})


def _why_refused(label_config: str, row: Json) -> str:
    """Return why Label Studio refuses a prediction: its SDK has the same check, and its answer gives no reason."""
    from label_studio_sdk.label_interface import LabelInterface  # takes a second, and is hardly ever needed

    reasons = LabelInterface(label_config).validate_prediction(row, return_errors=True)
    named = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
    return f"{REFUSES}: {named or 'it does not say why'}"


def batches_of(rows: Iterable[PredictionRow], version: str) -> Iterator[_Batch]:
    """Yield rows in batches of 1 to BATCH rows; a batch of several has at most BATCH_BYTES of JSON."""
    batch: _Batch = []
    size = 0
    for row in rows:
        text = encoded(row, version)
        if batch and (len(batch) == BATCH or size + len(text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((row.task_id, text))
        size += len(text)
    if batch:
        yield batch
