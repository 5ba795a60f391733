"""What a page draws of a prediction: the regions of Label Studio, and of a video those in one frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backend.labelstudio import regions, tags
from backend.labelstudio.region_outlines import Drawing, drawing, outline
from backend.loop.context import Context
from backend.loop.scoring import push
from backend.loop.served_models import ServedModel
from backend.store.store import ProjectRecord
from backend.types import BoolArray, Prediction, Tracks


def shown_frame(prediction: Prediction | None) -> int:
    """Return the frame of a video that shows a task best: the one the model is least sure of; 0 for an image."""
    if prediction is None or prediction.tracks is None:
        return 0
    if prediction.doubted_frames is not None and len(prediction.doubted_frames):
        return int(prediction.doubted_frames[0])
    return int(prediction.tracks.frames[0]) if len(prediction.tracks.frames) else 1


def drawn(
    context: Context, record: ProjectRecord, model: ServedModel, task_id: int, prediction: Prediction | None
) -> Drawing:
    """Return what is drawn of a model's prediction; of a video the boxes of `shown_frame`."""
    if prediction is None:
        return Drawing()
    settings = context.project_settings(record)
    prediction = prediction.pages[0] if prediction.pages else prediction
    if prediction.tracks is not None:
        return in_frame(model, prediction, shown_frame(prediction))
    if tags.get(model.tag.kind).masks:
        return outlines(model, prediction, settings.model_score_threshold)
    return drawing(region.as_json() for region in push.encode(settings, [model], task_id, [prediction]))


def in_frame(model: ServedModel, prediction: Prediction, frame: int) -> Drawing:
    """Return the boxes of a video in a frame: of each object that is visible then, the box of the nearest key frame."""
    if prediction.tracks is None:
        return Drawing()
    rows = np.flatnonzero(_nearest(prediction.tracks, frame)).tolist()
    labels = [model.classes[int(prediction.class_probs[row].argmax())] for row in rows]
    return _drawing(prediction, zip(rows, labels, strict=True))


def outlines(model: ServedModel, prediction: Prediction, threshold: float) -> Drawing:
    """Return the masks that become brush regions, by the outlines that the model predicted.

    This saves a mask of the picture's size for each object, see `brushlabels.encode`.
    """
    return _drawing(prediction, regions.shown_rows(model.tag, prediction, model.classes, threshold), painted=True)


def _drawing(prediction: Prediction, objects: Iterable[tuple[int, str]], *, painted: bool = False) -> Drawing:
    """Return objects of a prediction, each with its row and its label."""
    to_percent = 100 / np.array([prediction.width, prediction.height])
    outlined = (
        outline(
            [ring * to_percent for ring in regions.rings(prediction, row)],
            label,
            float(prediction.confidence[row]),
            painted=painted,
        )
        for row, label in objects
    )
    return Drawing(tuple(outlined))


def _nearest(tracks: Tracks, frame: int) -> BoolArray:
    """Return which boxes lie on the key frame of their object that is nearest to a frame, and visible (n,)."""
    distance = np.abs(tracks.frames - frame)
    nearest = np.array([distance[tracks.objects == number].min() for number in tracks.objects.tolist()], dtype=np.int64)
    return np.asarray(distance == nearest) & tracks.enabled.astype(np.bool_)
