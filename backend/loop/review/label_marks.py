"""Marks of label issues in Label Studio: a task's score shows how wrong its labels look.

A tab of the Data Manager lists the marked tasks, the worst first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backend.evaluation.label_quality import LabelIssue, by_task
from backend.labelstudio.client.connection import COMPLETED, PredictionRow
from backend.loop.context import Context
from backend.loop.review.label_review import unchanged
from backend.loop.scoring.push import LAST, encode, is_same_score, note_refused, queue_places
from backend.loop.scoring.scoring import stored_predictions
from backend.loop.served_models import ServedModel, models_for, project_record, serving_number
from backend.types import Prediction, Task

MARKED = 200  # the most tasks with a mark
CLEAN = (
    0.99  # tasks of this quality or more are not marked: a perfect label beside another object has about this quality
)
FEW = 20  # up to this number, single requests are cheaper than an import, which recounts the whole project


def mark(context: Context, project_id: int, issues: Iterable[LabelIssue]) -> int:
    """Mark the worst MARKED issues in Label Studio and remove outdated marks; return the number of writes.

    The prediction of a marked task gets the score 1 − quality, where the worst of its tags decides. A task that is
    still in the queue, because it needs more annotations, keeps its place instead. A task that loses its mark gets its
    place in the queue back. If it has none, it stays in the store's list of marked tasks, so that it gets a place once
    its labels are deleted.
    """
    models = models_for(context, project_record(context, project_id), accepted=False)
    model, client = models[0], context.label_studio
    before = context.store.state.marks(project_id, model.number)
    worst = tuple(issue for issue in by_task(issues)[:MARKED] if issue.score < CLEAN)
    ids = sorted(before | {issue.task_id for issue in worst})
    labels = client.annotations.stamps_by_task(project_id, ids) if ids else {}
    tasks = {task.id: task for task in client.tasks.get_many(project_id, ids, COMPLETED)}
    worst = tuple(issue for issue in worst if issue.task_id in tasks)
    worst = unchanged(worst, {label.annotation_id: label.updated_at for label in labels.values()})
    wrong = {issue.task_id: 1 - issue.score for issue in worst}
    places = _places(context, model)
    # Before the first write to Label Studio, so that the list has all marked tasks even if this job dies.
    context.store.state.save_marks(project_id, model.number, before | wrong.keys())
    scores = {
        task_id: wrong.get(task_id, places.get(task_id, LAST))
        for task_id in ids
        if task_id in labels and task_id in tasks
    }
    written = _write(context, project_id, models, tasks, scores, create=frozenset(wrong))
    unplaced = before - (places.keys() & labels.keys())
    context.store.state.save_marks(project_id, model.number, wrong.keys() | unplaced)
    client.tabs.set_label_issues(project_id, [issue.annotation_id for issue in worst])
    return written


def are_missing(context: Context, project_id: int) -> bool:
    """Return whether a mark is missing in Label Studio or has another score, because predictions were changed there."""
    number = serving_number(context, project_id)
    worst = by_task(context.store.state.label_issues(project_id, number))[:MARKED] if number else ()
    wrong = {issue.task_id: 1 - issue.score for issue in worst if issue.score < CLEAN}
    if not wrong:
        return False
    client, version = context.label_studio, context.store.version(project_id, number).name
    held = {stamp.task_id: stamp.score for stamp in client.predictions.stamps_of_tasks(project_id, version, wrong)}
    marked = client.tasks.get_many(project_id, wrong, COMPLETED)
    return any(task.id not in held or not is_same_score(held[task.id], wrong[task.id]) for task in marked)


def _places(context: Context, model: ServedModel) -> dict[int, float]:
    """Return the place in the queue of each ranked task, by task id."""
    order = context.store.pools.ranking(model.project_id, model.number)
    if order is None:
        return {}
    return queue_places(context, model.project_id, order)


def _write(
    context: Context,
    project_id: int,
    models: Sequence[ServedModel],
    tasks: Mapping[int, Task],
    scores: Mapping[int, float],
    *,
    create: frozenset[int],
) -> int:
    """Write the scores to the tasks' predictions; a missing prediction is created only for the tasks of `create`."""
    settings, client, version = (
        context.project_settings(project_record(context, project_id)),
        context.label_studio,
        models[0].name,
    )
    present = {stamp.task_id: stamp for stamp in client.predictions.stamps_of_tasks(project_id, version, scores)}
    refused: dict[int, str] = {}

    def row(task_id: int) -> PredictionRow:
        """Return a task's prediction with its new score."""
        regions = encode(settings, models, task_id, _predicted(context, models, tasks[task_id]), tasks[task_id])
        return PredictionRow(task_id, scores[task_id], regions)

    changed = [stamp for task_id, stamp in present.items() if not is_same_score(stamp.score, scores[task_id])]
    for stamp in changed:
        client.predictions.update(stamp.id, version, row(stamp.task_id), refused.__setitem__)
    lacking = [row(task_id) for task_id in sorted(create - present.keys())]
    if len(lacking) > FEW:
        client.prediction_import.run(project_id, version, lacking, refused.__setitem__)
    else:
        for prediction in lacking:
            client.predictions.create(version, prediction, refused.__setitem__)
    note_refused(context, project_id, refused)
    return len(changed) + len(lacking)


def _predicted(context: Context, models: Sequence[ServedModel], task: Task) -> list[Prediction | None]:
    """Return each model's stored prediction of a task: the one made since it was labeled, else the one in the pool."""
    late = stored_predictions(context, models, task, labeled=True)
    return [newer or older for newer, older in zip(late, stored_predictions(context, models, task), strict=True)]
