"""Agreement on tasks that several people annotated, measured when their annotations are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.evaluation.agreement import Shown
from backend.evaluation.annotators import TagAgreement, TaskAgreement, of_tag, on_task
from backend.geometry.coordinates import label_arrays
from backend.labelstudio import label_config, label_renames, tags
from backend.labelstudio.client.annotations import SubmittedAnnotation
from backend.loop.context import Context
from backend.loop.served_models import require_project
from backend.types import ControlTag

DISPUTED = 100  # tasks that are listed at most


def agreements(context: Context, project_id: int, labels: Iterable[SubmittedAnnotation]) -> list[TaskAgreement]:
    """Return the agreement on each task with annotations of several people, per control tag for images.

    Of several annotations of one person the last counts. A tag is left out of a task if an annotation of it cannot be
    read.
    """
    record = require_project(context, project_id)
    by_task: dict[int, dict[int, SubmittedAnnotation]] = {}
    for label in sorted(labels, key=lambda label: label.id):
        by_task.setdefault(label.task_id, {})[label.annotator] = label
    renames = label_renames.parse(context.project_settings(record).label_renames)
    measured = []
    for task_id, people in by_task.items():
        results = [label_renames.in_result(label.result, renames) for label in people.values()]
        for tag in label_config.parse(record.label_config) if len(results) > 1 else ():
            answers = _answers(tag, results) if tag.one_image else None
            if answers is not None:
                by_person = dict(zip(people, answers, strict=True))
                measured.append(on_task(task_id, tag.from_name, by_person, tag.labels))
    return measured


def by_tag(context: Context, project_id: int) -> dict[str, TagAgreement]:
    """Return the measured agreement of each control tag that people annotated together, by the tag's name.

    Raises NotFoundError for an unknown project.
    """
    record = require_project(context, project_id)
    agreements = context.store.state.agreements(project_id)
    measured = {
        tag.from_name: of_tag(agreements, tag.from_name, DISPUTED) for tag in label_config.parse(record.label_config)
    }
    return {name: agreement for name, agreement in measured.items() if agreement}


def _answers(tag: ControlTag, results: Sequence[Sequence[object]]) -> list[Shown] | None:
    """Return each person's boxes in percent of the image and their classes; None if a result cannot be read."""
    answers: list[Shown] = []
    for result in results:
        reading = tags.read(tag, [item for item in result if isinstance(item, dict)])
        if reading.unreadable:
            return None
        answers.append(label_arrays(reading.objects(tag), tag.labels, 100, 100))
    return answers
