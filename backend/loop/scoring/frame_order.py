"""Which frames of a video to label first: those of which the served version is least sure."""

from __future__ import annotations

from backend.errors import NotFoundError
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.scoring import scoring
from backend.loop.served_models import models_for, require_project


def frames_to_label(context: Context, project_id: int, task_id: int) -> tuple[int, ...]:
    """Return frames of a task's video as Label Studio counts them, least sure first; of several tags in turn.

    They are what was seen when the pool was scored, before the task's own labels. Raises NotFoundError for a project
    nobody set up, and for a task that the served version has not watched.
    """
    record = require_project(context, project_id)
    models = models_for(context, record, accepted=False)
    task = context.label_studio.tasks.get(task_id)
    found = [
        *scoring.stored_predictions(context, models, task),
        *scoring.stored_predictions(context, models, task, labeled=True),
    ]
    known = [one.doubted_frames.tolist() for one in found if one is not None and one.doubted_frames is not None]
    if not known:
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
    longest = max(map(len, known))
    return tuple(dict.fromkeys(one[place] for place in range(longest) for one in known if place < len(one)))
