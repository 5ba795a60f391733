"""Which frames of a video to label first: those where the served version is least sure."""

from __future__ import annotations

from backend.errors import NotFoundError
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.scoring import scoring
from backend.loop.served_models import models_for, require_project


def frames_to_label(context: Context, project_id: int, task_id: int) -> tuple[int, ...]:
    """Return the numbers of frames of a task's video, counted as in Label Studio, the least sure frame first.

    Several tags take turns. The order is that of the scoring, before the task had labels. Raises NotFoundError for a
    project that was never set up, and for a task that the served version has not scored.
    """
    record = require_project(context, project_id)
    models = models_for(context, record, accepted=False)
    task = context.label_studio.tasks.get(task_id)
    predictions = [
        *scoring.stored_predictions(context, models, task),
        *scoring.stored_predictions(context, models, task, labeled=True),
    ]
    orders = [pred.doubted_frames.tolist() for pred in predictions if pred and pred.doubted_frames is not None]
    if not orders:
        if not any(tag.frame_rate for tag in label_config.parse(record.label_config)):
            raise NotFoundError(
                f"the tasks of project {project_id} are not videos: no tag of its label config is for videos",
                fix="use VideoRectangle or TimelineLabels for videos; Label Studio itself has the order of images",
            )
        raise NotFoundError(
            f"task {task_id} is not a video that {models[0].name} has watched",
            where=f"project {project_id}",
            fix=f"run `yolo-backend score {project_id}`",
        )
    longest = max(map(len, orders))
    return tuple(dict.fromkeys(frames[rank] for rank in range(longest) for frames in orders if rank < len(frames)))
