"""The backend as a `LabelStudioMLBase` class, for label-studio-ml's own server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from backend import settings as settings_table
from backend.errors import RequestError
from backend.loop import interactive, serving
from backend.loop.context import Context, build
from backend.loop.demands import enqueue_training
from backend.loop.served_models import require_project
from backend.queue.rq_queue import Jobs
from backend.types import Json, Task


class YoloBackend(LabelStudioMLBase):
    """YOLO pre-annotations and retraining; `predict` and `fit` do the same as our server's /predict and /webhook."""

    def __init__(self, *args: Any, context: Context | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context = context or build(settings_table.from_env(os.environ))

    def predict(self, tasks: Sequence[Mapping[str, Any]], context: Json | None = None, **kwargs: Any) -> list[Json]:
        """Return a result per task: regions, priority score and model version; for a smart tool, what it points at."""
        project = kwargs.get("project") or next((task.get("project") for task in tasks), None)
        requested = [Task(int(task.get("id") or -place), task.get("data") or {}) for place, task in enumerate(tasks, 1)]
        project_id, schema = _project_id(project), self.label_config or ""
        if isinstance(drawn := (context or {}).get("result"), list):
            suggestions = [interactive.suggest(self.context, project_id, schema, task, drawn) for task in requested]
            return [{"result": list(s.regions), "score": s.score, "model_version": s.version} for s in suggestions]
        results = serving.predict(self.context, project_id, schema, requested)
        return [
            {"result": list(result.regions), "score": result.score, "model_version": result.version}
            for result in results
        ]

    def process_event(self, event: str, data: Mapping[str, Any], job_id: str, additional_params: Any) -> Json:
        """Pass every event to `fit`: label-studio-ml 1.0.9 passes only a few, with the arguments of an older `fit`."""
        return self.fit(event, data)

    def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> Json:
        """Take an event as a hint: START_TRAINING queues a training, any other event a check of the labels."""
        project_id = _project_id(data.get("project"))
        if project_id is None:
            raise RequestError("the event names no project", where="fit", fix='send {"project": {"id": ...}}')
        queue = Jobs(self.context.redis)
        if event == "START_TRAINING":
            require_project(self.context, project_id)
            enqueue_training(self.context, queue, project_id, forced=True)
        else:
            queue.once("check", project_id)
        return {}


def _project_id(project: Any) -> int | None:
    value = project.get("id") if isinstance(project, Mapping) else project
    return None if value in (None, "") else int(str(value).split(".")[0])
