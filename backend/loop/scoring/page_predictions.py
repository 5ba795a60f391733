"""Predictions of tasks with several pages: each page has one, and the least sure page decides when the task comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from backend.errors import MediaError
from backend.labelstudio import pages
from backend.loop.context import Context
from backend.loop.served_models import ServedModel
from backend.media.task_errors import answers_or_errors, task_error
from backend.types import ControlTag, Prediction, Task
from backend.yolo import video_uncertainty


def predict(context: Context, model: ServedModel, tasks: Sequence[Task]) -> Iterator[Prediction | MediaError]:
    """Yield the prediction of each task, or the error of its first page that failed, in order."""
    for task in tasks:
        try:
            yield of_pages(model.tag, _predictions(context, model, task))
        except MediaError as error:
            yield error


def _predictions(context: Context, model: ServedModel, task: Task) -> list[Prediction]:
    uris = pages.of_task(model.tag, task)
    files = []
    for file in context.media.fetch_many((uri, task.id) for uri in uris):
        if isinstance(file, MediaError):
            raise file
        files.append(file)
    predictions = []
    for uri, answer in zip(uris, answers_or_errors(files, model.predict), strict=True):
        if isinstance(answer, MediaError):
            raise task_error(answer, uri, task.id)
        predictions.append(answer)
    return predictions


def of_pages(tag: ControlTag, predictions: Sequence[Prediction]) -> Prediction:
    """Return the prediction of a task, given those of its pages: it stands in the pool for the least sure page."""
    uncertainty = [_uncertainty(tag, page) for page in predictions]
    return replace(predictions[uncertainty.index(max(uncertainty))], pages=tuple(predictions))


def _uncertainty(tag: ControlTag, page: Prediction) -> float:
    """Return the entropy of a page in nats: over its boxes, or over the labels of a whole page."""
    if tag.task != "classify":
        return video_uncertainty.of_boxes(page.confidence)
    return float(video_uncertainty.of_labels(page.class_probs).sum())
