"""How good the pre-annotations of round zero are: measured once, on the first labeled images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from backend.evaluation.matching import matched
from backend.evaluation.prompt_precision import LEAST_IMAGES, PromptPrecision, counted
from backend.geometry.coordinates import label_arrays
from backend.labelstudio import label_config, regions, tags
from backend.loop import prompts
from backend.loop.base_models import tag_base_model
from backend.loop.context import Context
from backend.loop.scoring import scoring, stored_answers
from backend.loop.served_models import ServedModel, models_for, project_record
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, LabeledBox, Prediction

log = logging.getLogger(__name__)

Judged = tuple[Prediction, tuple[LabeledBox, ...]]  # of one image: what the annotator saw, and what the label is


def measure(context: Context, project_id: int) -> bool:
    """Measure the prompts of base models once LEAST_IMAGES are labeled; return whether a label was switched off.

    It compares the stored predictions with the labels. It measures before the first training alone, and again after a
    prompt has changed. Raises NotFoundError for an unknown project.
    """
    counts = context.progress.counts(project_id)
    if context.store.current(project_id) is not None or counts is None or counts.labeled < LEAST_IMAGES:
        return False
    record = project_record(context, project_id)
    if not is_due(context, record):
        return False
    return measure_on(context, record, list(context.annotated_tasks(project_id)))


def measure_on(context: Context, record: ProjectRecord, annotated: Sequence[AnnotatedTask]) -> bool:
    """Measure the prompts on labeled tasks, the oldest annotations first; return whether a label was switched off."""
    project_id = record.project_id
    models = [model for model in models_for(context, record, accepted=True) if _asks(context, record, model)]
    if not models or stored_answers.of(context, models).outdated(models):  # the next scoring answers those of now
        return False
    annotated = sorted(annotated, key=lambda task: task.annotation_id)
    measured: list[PromptPrecision] = []
    for model in models:
        images = list(_judged(context, model, annotated))[:LEAST_IMAGES]
        if len(images) == LEAST_IMAGES:
            measured += _precision(context, record, model, images)
    if measured:
        context.store.state.save_prompt_precision(project_id, measured)
    for entry in measured:
        log.info("project %d: %s", project_id, entry.in_words())
    return any(entry.is_off for entry in measured)


def results(context: Context, record: ProjectRecord) -> tuple[PromptPrecision, ...]:
    """Return the measurements of the prompts in use, from the store alone; empty after the first training."""
    if context.store.current(record.project_id) is not None:
        return ()
    by_tag = (
        prompts.measured(context, record.project_id, tag, tag_base_model(context, record, tag))
        for tag in label_config.parse(record.label_config)
    )
    return tuple(entry for entries in by_tag for entry in entries)


def is_due(context: Context, record: ProjectRecord) -> bool:
    """Return whether a tag asks its base model for a label that was not measured; reads no labels."""
    for tag in label_config.parse(record.label_config):
        name = tag_base_model(context, record, tag)
        entries = prompts.measured(context, record.project_id, tag, name)
        if tag.one_image and prompts.are_asked(tag, name) and len(entries) < len(tag.labels):
            return True
    return False


def _asks(context: Context, record: ProjectRecord, model: ServedModel) -> bool:
    has_model = model.weights is not None and model.tag.one_image
    return has_model and prompts.are_asked(model.tag, tag_base_model(context, record, model.tag))


def _judged(context: Context, model: ServedModel, annotated: Sequence[AnnotatedTask]) -> Iterator[Judged]:
    """Yield the labeled images whose prediction is stored, in the order of the annotations."""
    for task in annotated:
        (prediction,) = scoring.stored_predictions(context, [model], task.task)
        reading = tags.read(model.tag, task.result)
        if prediction is not None and not reading.unreadable:
            yield prediction, reading.boxes


def _precision(
    context: Context, record: ProjectRecord, model: ServedModel, images: Sequence[Judged]
) -> list[PromptPrecision]:
    """Return the precision of each label of a tag; a label that is switched off already keeps its measurement."""
    tag, name = model.tag, tag_base_model(context, record, model.tag)
    before = {entry.label: entry for entry in prompts.measured(context, record.project_id, tag, name) if entry.is_off}
    threshold = context.project_settings(record).model_score_threshold
    counts = counted(outcome for image in images for outcome in _outcomes(model, *image, threshold))
    return [
        before.get(label) or PromptPrecision(tag.from_name, label, prompt, name, *counts.get(label, (0, 0)))
        for label, prompt in zip(tag.labels, tag.prompts, strict=True)
    ]


def _outcomes(
    model: ServedModel, prediction: Prediction, labels: Sequence[LabeledBox], threshold: float
) -> Iterator[tuple[str, bool]]:
    """Yield the label of each pre-annotation of an image, and whether it matches a label of the annotator."""
    overlaps = matched(prediction, *label_arrays(labels, model.classes, prediction.width, prediction.height))
    for row, label in regions.shown_rows(model.tag, prediction, model.classes, threshold):
        yield label, bool(overlaps[row] > 0)
