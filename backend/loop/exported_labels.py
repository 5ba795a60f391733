"""The labels of a project or of a version's training, by control tag, with what is left out and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import TrainingError
from backend.labelstudio import task_fields
from backend.loop.context import Context
from backend.loop.training import label_reading, snapshot
from backend.loop.training.label_reading import ReadLabels
from backend.model_versions import ModelVersion
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, ControlTag

Show = Callable[[str, str, float | None], None]  # stage, details, share of the work that is done


@dataclass(frozen=True, slots=True)
class TagLabels:
    """The labels of one control tag, ready to be written."""

    tag: ControlTag
    split: Split
    left_out: Mapping[int, str]
    reduced: Mapping[int, str]


def tag_labels(
    context: Context, record: ProjectRecord, tags: Sequence[ControlTag], version: ModelVersion | None, show: Show
) -> list[TagLabels]:
    """Return the labels of each tag: those of a version's training as far as they are unchanged, or those of now.

    Raises TrainingError if no labeled task can be read.
    """
    project_id = record.project_id
    annotated = tuple(context.annotated_tasks(project_id))
    gone: dict[int, str] = {}
    if version:
        annotated, gone = _of_version(annotated, version)
    if not annotated:
        fix = "label some tasks first" if version is None else "export the labels of now, without --version"
        raise TrainingError("no labels to export", where=f"project {project_id}", fix=fix)
    _fetch(context, tags, annotated, show)
    chance = snapshot.chance_tasks(context, project_id, annotated)
    by_tag = label_reading.labeled_images(context, project_id, tags, annotated, chance)
    val_share = context.project_settings(record).val_share
    return [
        _labels_of_tag(tag, read, version, gone, val_share, project_id) for tag, read in zip(tags, by_tag, strict=True)
    ]


def _fetch(context: Context, tags: Sequence[ControlTag], annotated: Sequence[AnnotatedTask], show: Show) -> None:
    """Fetch the images into the cache, because this may take long; who reads them later gets the errors again."""
    keys = dict.fromkeys(tag.data_key for tag in tags if tag.one_image)
    requests = [(task_fields.shown(task.task, key), task.task.id) for key in keys for task in annotated]
    for count, _ in enumerate(context.media.fetch_many(requests), 1):
        show("images", f"{count} of {len(requests)}", count / len(requests))


def _of_version(
    annotated: Sequence[AnnotatedTask], version: ModelVersion
) -> tuple[tuple[AnnotatedTask, ...], dict[int, str]]:
    """Return the tasks whose annotation is still that of the version's training, and why others are left out."""
    then, same = version.snapshot.annotations, []
    gone: dict[int, str] = {}
    for task in annotated:
        stamp = then.get(task.annotation_id)
        if stamp == task.updated_at:
            same.append(task)
        elif stamp is not None:
            gone[task.task.id] = f"annotation {task.annotation_id} was changed after {version.name} was trained"
    learned = {*version.snapshot.train_tasks, *version.snapshot.val_tasks}
    for task_id in sorted(learned - {task.task.id for task in same} - set(gone)):
        gone[task_id] = f"its annotation in the training of {version.name} was deleted, or another one counts now"
    return tuple(same), gone


def _labels_of_tag(
    tag: ControlTag,
    read: ReadLabels,
    version: ModelVersion | None,
    gone: Mapping[int, str],
    val_share: float,
    project_id: int,
) -> TagLabels:
    left_out = dict(gone) | read.left_out
    model = version.model_of(tag) if version else None
    if model is not None:
        tag = replace(tag, labels=model.classes)  # the classes of then, in their order
    images = []
    for image in read.images:
        if unknown := sorted({box.label for box in image.boxes} - set(tag.labels)):
            left_out[image.task_id] = f"{unknown[0]!r} is no class of the version"
        else:
            images.append(image)
    return TagLabels(tag, _split(images, version, val_share, project_id), left_out, read.reduced)


def _split(images: Sequence[LabeledImage], version: ModelVersion | None, val_share: float, project_id: int) -> Split:
    """Return the split of the version's training, or the one that a training of now would make."""
    if version is None:
        try:
            return writer.split(images, val_share=val_share, project_id=project_id)
        except TrainingError:  # too few images to learn from, which may be exported all the same
            return Split(tuple(images), tuple(images), held_out=False)
    held_out = set(version.snapshot.val_tasks) - set(version.snapshot.train_tasks)
    train = tuple(image for image in images if image.task_id not in held_out)
    val = tuple(image for image in images if image.task_id in held_out)
    return Split(train, val, held_out=True) if train and val else Split((*train, *val), (*train, *val), held_out=False)
