"""The regions of a prediction as a page draws them: those of Label Studio, and of a video those in one frame."""

from __future__ import annotations

import numpy as np

from backend.labelstudio import tags
from backend.loop.context import Context
from backend.loop.scoring import push
from backend.loop.served_models import ServedModel
from backend.store.store import ProjectRecord
from backend.types import BoolArray, Json, Prediction, Tracks


def shown_frame(prediction: Prediction | None) -> int:
    """Return the frame of a video that shows a task best: the one the model is least sure of; 0 for an image."""
    if prediction is None or prediction.tracks is None:
        return 0
    if prediction.doubted_frames is not None and len(prediction.doubted_frames):
        return int(prediction.doubted_frames[0])
    return int(prediction.tracks.frames[0]) if len(prediction.tracks.frames) else 1


def drawn(
    context: Context, record: ProjectRecord, model: ServedModel, task_id: int, prediction: Prediction | None
) -> tuple[Json, ...]:
    """Return the regions of a model's prediction; a mask becomes its outline, a video the boxes of `shown_frame`."""
    if prediction is None:
        return ()
    settings = context.project_settings(record)
    if prediction.tracks is not None:
        return in_frame(model, prediction, shown_frame(prediction))
    if tags.get(model.tag.kind).masks:
        return outlines(model, prediction, settings.model_score_threshold)
    regions = push.encode(settings, [model], task_id, [prediction])
    return tuple(region.as_json() for region in regions)


def in_frame(model: ServedModel, prediction: Prediction, frame: int) -> tuple[Json, ...]:
    """Return the boxes of a video in a frame: of each object that is visible then, the box of the nearest key frame."""
    if prediction.tracks is None:
        return ()
    rows = _nearest(prediction.tracks, frame)
    size = np.array([prediction.width, prediction.height] * 2, dtype=np.float64)
    regions = []
    for row in np.flatnonzero(rows).tolist():
        x1, y1, x2, y2 = (prediction.boxes[row] / size * 100).tolist()
        label = model.classes[int(prediction.class_probs[row].argmax())]
        value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": [label]}
        regions.append(_region("rectanglelabels", value, float(prediction.confidence[row]), prediction))
    return tuple(regions)


def _nearest(tracks: Tracks, frame: int) -> BoolArray:
    """Return which boxes lie on the key frame of their object that is nearest to a frame, and visible (n,)."""
    distance = np.abs(tracks.frames - frame)
    nearest = np.array([distance[tracks.objects == number].min() for number in tracks.objects.tolist()], dtype=np.int64)
    return np.asarray(distance == nearest) & tracks.enabled.astype(np.bool_)


def outlines(model: ServedModel, prediction: Prediction, lowest: float) -> tuple[Json, ...]:
    """Return the outlines of masks with at least the confidence `lowest` as polygons; a hole is a polygon too."""
    size = np.array([prediction.width, prediction.height], dtype=np.float64)
    regions = []
    for row, outline in enumerate(prediction.outlines or ()):
        if prediction.confidence[row] < lowest:
            continue
        label = model.classes[int(prediction.class_probs[row].argmax())]
        for ring in outline:
            value = {"points": (ring / size * 100).tolist(), "polygonlabels": [label]}
            regions.append(_region("polygonlabels", value, float(prediction.confidence[row]), prediction))
    return tuple(regions)


def _region(kind: str, value: Json, score: float, prediction: Prediction) -> Json:
    return {
        "type": kind,
        "value": value,
        "score": score,
        "original_width": prediction.width,
        "original_height": prediction.height,
    }
