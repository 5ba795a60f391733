"""Answers about each box that another control tag predicts: the box is cut out and classified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.errors import MediaError
from backend.labelstudio import task_fields
from backend.loop.served_models import ServedModel
from backend.media.cache import MediaFile
from backend.media.task_errors import task_error
from backend.types import Prediction, Task


def predict(
    model: ServedModel,
    tasks: Sequence[Task],
    fetched: Sequence[MediaFile | MediaError],
    boxes: Sequence[Prediction | MediaError],
) -> Iterator[Prediction | MediaError]:
    """Yield the classes of the boxes of each task that are shown, or the error of the image or its boxes, in order."""
    for task, file, predicted in zip(tasks, fetched, boxes, strict=True):
        if isinstance(file, MediaError) or isinstance(predicted, MediaError):
            yield file if isinstance(file, MediaError) else predicted
            continue
        try:
            yield model.predict_boxes(file, predicted.boxes[predicted.confidence >= model.lowest_box])
        except MediaError as error:
            yield task_error(error, task_fields.shown(task, model.tag.data_key), task.id)
