"""Tasks on which people disagree are offered to one more person.

Label Studio hands out a task while it is not labeled and has fewer annotations than its overlap, and never to a person
who annotated it. So we raise the overlap of the task by one and take back its "labeled". The next annotation completes
it again.
"""

from __future__ import annotations

import logging

from backend.evaluation.effort import EffortLog
from backend.loop.context import Context
from backend.loop.served_models import require_project

log = logging.getLogger(__name__)


def offer_again(context: Context, project_id: int) -> int:
    """Offer tasks with an agreement below OFFER_AGAIN_BELOW to one more person, once each; return how many were.

    A task with a ground truth is decided. Raises NotFoundError for an unknown project.
    """
    below = context.project_settings(require_project(context, project_id)).offer_again_below
    disputed = disputed_tasks(context.store.state.effort(project_id), below)
    if not disputed:
        return 0
    client = context.label_studio
    most = client.projects.get(project_id).maximum_annotations
    labels = client.annotations.stamps_by_task(project_id, disputed)
    offered = []
    for task in client.tasks.completed_overlaps(project_id, disputed):
        is_undecided = task.id in labels and labels[task.id].other_stamps
        if is_undecided and task.overlap <= most:  # a higher overlap shows that it was offered again before
            client.tasks.reopen(task)
            offered.append(task.id)
    if offered:
        log.info("project %d: people disagree on tasks %s: one more person gets them", project_id, offered)
    return len(offered)


def disputed_tasks(efforts: EffortLog, below: float) -> list[int]:
    """Return the tasks with an F1 below `below` in any control tag, by id.

    A task is left out if all people who annotate in the project have annotated it, because nobody could complete it.
    """
    people: dict[int, set[int]] = {}
    for effort in efforts.efforts:
        people.setdefault(effort.task_id, set()).add(effort.annotator)
    everybody = set().union(*people.values())
    disputed = {agreement.task_id for agreement in efforts.agreements if agreement.f1 < below}
    return sorted(task for task in disputed if everybody - people.get(task, set()) - {0})
