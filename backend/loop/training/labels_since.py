"""The quality of the current version on the tasks that were labeled since its training, drawn at random or picked.

Nothing is predicted: the version's pool holds its predictions from before anybody labeled these tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from backend.evaluation.held_out_report import LabeledSince, group_quality
from backend.evaluation.judged_images import JudgedImage, judge_image
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.training.snapshot import TagPlan
from backend.model_versions import ModelVersion, TagModel, renamed


def labeled_since(context: Context, plan: TagPlan) -> LabeledSince | None:
    """Return the quality of the current version's model of a tag; None for videos, for pages, and without such a model.

    It is also None for a question about boxes, because predicted boxes are not those that people answered about.

    A task counts as drawn at random by the rule of `snapshot.chance_tasks`; all others were picked.
    """
    current = context.store.current(plan.record.project_id)
    if current is None or not plan.tag.one_image or plan.tag.regions_of:
        return None
    version = renamed(current, label_config.parse(plan.record.label_config))
    model = version.model_of(plan.tag)
    if model is None:
        return None
    judged = tuple(_judged(context, plan, version, model))
    groups = [[image for random, image in judged if random is is_chance] for is_chance in (True, False)]
    chance, picked = (group_quality(images, len(model.classes)) for images in groups)
    return LabeledSince(version.number, chance, picked)


def _judged(
    context: Context, plan: TagPlan, version: ModelVersion, model: TagModel
) -> Iterator[tuple[bool, JudgedImage]]:
    """Yield each task labeled since: whether it was drawn at random, and the stored prediction against its labels."""
    learned = {*version.snapshot.train_tasks, *version.snapshot.val_tasks, *(model.learned or ())}
    new = {image.task_id: image for image in plan.split.whole().train if image.task_id not in learned}
    stored = context.store.pools.predictions(
        *(version.project_id, version.number, new, plan.sources), tag=version.key_of(plan.tag.from_name)
    )
    for task_id, prediction in stored:
        image, tag = new[task_id], plan.tag
        if len(prediction.boxes) or tag.task != "classify":
            yield (
                image.random,
                judge_image(task_id, 0, prediction, image.boxes, model.classes, tag.task, multiple=tag.multiple),
            )
