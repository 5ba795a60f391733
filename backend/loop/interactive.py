"""The answer to a smart tool of Label Studio: the one object at which an annotator points, with its label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.errors import LabelConfigError, MediaError, ModelError, RegionError, one_line
from backend.geometry import pointing
from backend.labelstudio import label_config, pages, regions, smart_prompts, tags, task_fields, task_labels
from backend.labelstudio.smart_prompts import SmartPrompt
from backend.loop import sam_weights, serving, warm
from backend.loop.context import Context
from backend.loop.served_models import ServedModel, models_for
from backend.types import ControlTag, Json, Prediction, Region, Task

log = logging.getLogger(__name__)

REASONS = (RegionError, LabelConfigError, MediaError, ModelError)  # of this prompt alone; others stop every request


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a smart tool gets: the regions of one object, or the reason why there are none."""

    regions: tuple[Json, ...]
    score: float
    version: str
    reason: str  # "": there are regions


def suggest(context: Context, project_id: int | None, schema: str, task: Task, drawn: Sequence[Any]) -> Suggestion:
    """Return the object at which the regions `drawn` with a smart tool point, in the control tag that can hold it.

    What cannot be answered has no regions, and the reason, which is logged too.
    """
    try:
        return _suggest(context, project_id, schema, task, drawn)
    except REASONS as error:
        log.info("task %d: a smart tool gets no region: %s", task.id, one_line(str(error)))
        return Suggestion((), 0.0, "", str(error))


def _suggest(context: Context, project_id: int | None, schema: str, task: Task, drawn: Sequence[Any]) -> Suggestion:
    record = serving.request_record(context, project_id, schema)
    config, prompt = label_config.checked(schema), smart_prompts.read(drawn)
    own_labels = [task_labels.of_task(tag, task) for tag in config.tags]
    tag, label = smart_prompts.target(prompt, own_labels, config.smart)
    models = models_for(context, record, accepted=False)
    (model,) = (model for model in models if model.tag.from_name == tag.from_name)
    if record.project_id != serving.NO_PROJECT:
        warm.note_use(context, record.project_id)
    with context.media.in_use():
        chosen = _object_at(context, model, task, prompt, label)
    shown = replace(tag, score_threshold=0.0, answered_by_others=())  # of what somebody points at, one answer
    encoded = tags.encode(shown, chosen, (label,), 0.0, f"smart {prompt.region_id}")
    if not encoded:
        raise _nothing(task)
    page = prompt.page if tag.pages else None
    placed = [replace(region, page=page) for region in _in_place_of(prompt, encoded)]
    return Suggestion(tuple(map(Region.as_json, placed)), float(chosen.confidence[0]), model.name, "")


def _in_place_of(prompt: SmartPrompt, encoded: Sequence[Region]) -> list[Region]:
    """Return regions whose first one has the id of the prompt, if it is of the same kind.

    Label Studio then puts it in the place of a rough rectangle when it is accepted; otherwise the annotation would hold
    both. A region of another kind gets an id of its own, because the editor would make a click with a width of it.
    """
    first = encoded[0]
    if first.kind != prompt.kind:
        return list(encoded)
    ids = {first.id: prompt.region_id}  # the split form has two entries of one id
    return [
        replace(region, id=ids.get(region.id, region.id), parent_id=ids.get(region.parent_id, region.parent_id))
        for region in encoded
    ]


def _object_at(context: Context, model: ServedModel, task: Task, prompt: SmartPrompt, label: str) -> Prediction:
    """Return the object where the annotator points, with the chosen label as its only class.

    SAM answers where the admin has approved its weights; it knows no points of skeletons.
    """
    file = context.media.fetch(_uri(model.tag, task, prompt), task.id)
    weights = None if model.tag.task == "pose" else sam_weights.approved(context)
    if weights is not None:
        return context.predictors.sam(weights, model.device).object_at(file.path, prompt.pointing)
    candidates = model.candidates(file)
    prediction = candidates.prediction
    boxes = pointing.turned(prediction.boxes) if prediction.rotated is None else prediction.rotated
    wanted = np.array([name == label for name in regions.class_labels(model.tag, model.classes)], dtype=np.bool_)
    fits = pointing.fit(boxes, prompt.pointing, prediction.width, prediction.height)
    if (choice := pointing.best(fits, prediction.class_probs, wanted)) is None:
        raise _nothing(task)
    row, score = choice
    probs = np.array([[score]], dtype=np.float32)
    return replace(candidates.object_at(row), class_probs=probs, confidence=probs[0])


def _uri(tag: ControlTag, task: Task, prompt: SmartPrompt) -> object:
    """Return what the task shows where the annotator points; raises RegionError for a page that it does not have."""
    if not tag.pages:
        return task_fields.shown(task, tag.data_key)
    uris = pages.of_task(tag, task)
    if prompt.page >= len(uris):
        fix = "open the task again: its list of images has changed"
        raise RegionError(f"the task has no page {prompt.page + 1}", where=f"task {task.id}", fix=fix)
    return uris[prompt.page]


def _nothing(task: Task) -> RegionError:
    fix = "click the middle of the object, draw a rectangle around it, or label it by hand"
    return RegionError("the model sees no object there", where=f"task {task.id}", fix=fix)
