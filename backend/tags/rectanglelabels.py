"""RectangleLabels on an Image: upright boxes with a label."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backend import geometry
from backend.tags import Tag
from backend.types import ControlTag, LabeledBox, Prediction, Region

KIND = "rectanglelabels"


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a prediction's boxes as regions, in its order, clipped to the image.

    Left out: boxes under the tag's own threshold (else `threshold`), boxes without area inside the image, and classes
    no label of the tag stands for. A region's score is the confidence of its detection; ids depend on `key` only.
    """
    if not len(prediction.boxes):
        return ()
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    labels = _class_labels(tag, classes)
    kept = (prediction.confidence >= lowest) & np.isfinite(prediction.boxes).all(axis=1)
    inside = geometry.clip_pixels(prediction.boxes, prediction.width, prediction.height)
    percent = geometry.pixels_to_percent(inside, prediction.width, prediction.height)
    kept &= (percent[:, 2:] > 0).all(axis=1)
    top = prediction.class_probs.argmax(axis=1)
    return tuple(
        Region(
            id=_region_id(key, tag.from_name, index),
            kind=KIND,
            from_name=tag.from_name,
            to_name=tag.to_name,
            value=_value(percent[index].tolist(), label),
            score=float(prediction.confidence[index]),
            original_width=prediction.width,
            original_height=prediction.height,
        )
        for index in np.flatnonzero(kept).tolist()
        if (label := labels[top[index]]) is not None
    )


def decode(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> tuple[LabeledBox, ...]:
    """Return the training boxes of an annotation's result: one for each label of each region of this tag.

    Boxes are clipped to the image; a rotated region becomes its upright hull. `explain` says what is left out.
    """
    return tuple(found for found in _read(tag, result) if isinstance(found, LabeledBox))


def explain(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return why regions of this tag, or labels on them, are no training boxes: one reason each."""
    return tuple(found for found in _read(tag, result) if isinstance(found, str))


def _class_labels(tag: ControlTag, classes: Sequence[str]) -> list[str | None]:
    """Return the label of each class, None where the tag has none."""
    # A model trained here has the labels themselves as classes; a predicted_values written for the base model that
    # gives one label's name to another label must not swap them.
    if set(classes) <= set(tag.labels):
        return list(classes)
    return [tag.class_to_label.get(name.strip().casefold()) for name in classes]


def _region_id(key: str, from_name: str, index: int) -> str:
    return hashlib.sha1(f"{key}/{from_name}/{index}".encode(), usedforsecurity=False).hexdigest()[:10]


def _value(percent: Sequence[float], label: str) -> dict[str, Any]:
    x, y, width, height = percent
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0, KIND: [label]}


def _read(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> Iterator[LabeledBox | str]:
    for item in result:
        if item.get("from_name") != tag.from_name or item.get("type") != KIND:
            continue
        name = f"region {item.get('id', 'without id')}"
        value = item.get("value")
        labels = value.get(KIND) if isinstance(value, Mapping) else None
        if not isinstance(labels, list) or not labels:
            yield f"{name} has no label"
            continue
        box = _percent_box(item)
        if isinstance(box, str):
            yield f"{name} {box}"
            continue
        for label in labels:
            if label in tag.labels:
                yield LabeledBox(label, geometry.percent_to_normalised(box))
            else:
                yield f"{name} has the label {label!r}, which is not in the label config"


def _percent_box(item: Mapping[str, Any]) -> geometry.Box | str:
    """Return the upright box of a region inside the image, or what is wrong with it."""
    value = item["value"]
    x, y, width, height, rotation = (
        _number(value.get(name, 0 if name == "rotation" else None))
        for name in ("x", "y", "width", "height", "rotation")
    )
    if not all(math.isfinite(number) for number in (x, y, width, height, rotation)):
        return "has no usable x, y, width, height or rotation"
    box = (x, y, width, height)
    if rotation % 360:
        image_width, image_height = _number(item.get("original_width")), _number(item.get("original_height"))
        if not (image_width > 0 and image_height > 0):
            return "is rotated but does not carry original_width and original_height"
        box = geometry.rotated_hull(box, rotation, image_width, image_height)
    box = geometry.clip_percent(box)
    return box if box[2] > 0 and box[3] > 0 else "has no area inside the image"


def _number(value: Any) -> float:
    """Return a JSON number, or NaN for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


TAG = Tag(
    name="RectangleLabels",
    object_name="Image",
    encode=encode,
    decode=decode,
    explain=explain,
    attributes={"model_obb": ("false",)},
)
