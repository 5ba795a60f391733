"""What all control tags share: which detections become regions, and how regions of an annotation become labels."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.geometry import coordinates
from backend.labelstudio.class_names import fold
from backend.types import ControlTag, EmptyRegion, LabeledBox, Outline, Prediction, Region

Item = Mapping[str, Any]
BOXED = "outlines of another shape tag learned as the boxes around them"
_CORNERS = 4  # of a rotated box
_LARGEST = 1e100  # of a number in a region
_SPELLING = reprlib.Repr()  # Label Studio imports anything, e.g. lists nested a thousand deep
_SPELLING.maxlevel, _SPELLING.maxstring, _SPELLING.maxother = 3, 80, 80


def shown_rows(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float
) -> list[tuple[int, str]]:
    """Return the rows of a prediction that become regions, each with its label, in the prediction's order.

    It leaves out boxes under the tag's own threshold (else `threshold`), boxes without area inside the image, classes
    that no label of the tag covers, and labels that another tag answers.
    """
    if not len(prediction.boxes):
        return []
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    labels = class_labels(tag, classes)
    visible = (prediction.confidence >= lowest) & np.isfinite(prediction.boxes).all(axis=1)
    visible &= (coordinates.percent_boxes(prediction)[:, 2:] > 0).all(axis=1)
    top = prediction.class_probs.argmax(axis=1)
    rows = np.flatnonzero(visible).tolist()
    named = [(row, label) for row in rows if (label := labels[top[row]]) is not None]
    return [(row, label) for row, label in named if label not in tag.answered_by_others]


def rings(prediction: Prediction, row: int) -> Outline:
    """Return an object's outline in pixels, or its box as a ring where the model predicts no outlines."""
    if prediction.outlines is not None:
        return prediction.outlines[row]
    left, top, right, bottom = prediction.boxes[row]
    return (np.array([(left, top), (right, top), (right, bottom), (left, bottom)]),)


def class_labels(tag: ControlTag, classes: Sequence[str]) -> list[str | None]:
    """Return the label of each class, None where the tag has none."""
    # A model that we trained has the labels themselves as classes. Then predicted_values, which people write for the
    # base model, must not map a label's name to another label.
    if set(classes) <= set(tag.labels):
        return list(classes)
    return [tag.exact_class_to_label.get(name) or tag.class_to_label.get(fold(name)) for name in classes]


def build(tag: ControlTag, prediction: Prediction, key: str, row: int, value: Mapping[str, Any]) -> Region:
    """Return one row of a prediction as a region with the detection's score.

    Its id depends only on `key`, the tag and the row, so the same prediction gives the same ids.
    """
    return Region(
        id=region_id(key, tag.from_name, row),
        kind=tag.kind,
        from_name=tag.from_name,
        to_name=tag.to_name,
        value=value,
        score=float(prediction.confidence[row]),
        original_width=prediction.width,
        original_height=prediction.height,
    )


def region_id(key: str, from_name: str, index: int) -> str:
    """Return the id of a region: 10 hexadecimal digits, always the same for the same arguments."""
    text = json.dumps([key, from_name, index])  # joined by a slash, "a/b" and "c" would equal "a" and "b/c"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:10]


def read(
    tag: ControlTag, result: Iterable[Item], shape: Callable[[Item], LabeledBox | EmptyRegion | str]
) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training label for each label of each region of this tag, or why a region gives none.

    `shape` returns what a region encloses, as a box without a label, or what is wrong with it.
    """
    labels_of_tag = frozenset(tag.labels)
    for item in result:
        if item.get("from_name") != tag.from_name or item.get("type") != tag.kind:
            continue
        labels = labels_of(item, tag.kind)
        if not labels:
            yield f"{name_of(item)} has no label"
            continue
        shape_or_reason = shape(item)
        # A side may be thinner than a float can tell.
        if isinstance(shape_or_reason, LabeledBox) and not min(shape_or_reason.xywh[2:]) > 0:
            shape_or_reason = EmptyRegion("has no area inside the image")
        if isinstance(shape_or_reason, EmptyRegion):
            yield EmptyRegion(f"{name_of(item)} {shape_or_reason.reason}")
            continue
        if isinstance(shape_or_reason, str):
            yield f"{name_of(item)} {shape_or_reason}"
            continue
        for label in labels:
            if isinstance(label, str) and label in labels_of_tag:
                yield replace(shape_or_reason, label=label)
            else:
                yield f"{name_of(item)} {unknown_label(label)}"


def adapted(tag: ControlTag, box: LabeledBox) -> LabeledBox:
    """Return a shape of another tag as the models of `tag` learn it."""
    if tag.task == "detect" and box.outline:
        return replace(box, outline=(), note=BOXED)
    if tag.task == "obb" and [len(ring) for ring in box.outline] != [_CORNERS]:
        return replace(box, outline=(coordinates.upright_corners(box.xywh),), note=BOXED)
    return box


def unknown_label(label: object) -> str:
    """Return why we do not learn a region whose label is not in the label config, and the cure."""
    return (
        f"has the label {spelled(label)}, which is not in the label config: if it was renamed, write the old name as "
        "the new label's alias, or set LABEL_RENAMES"
    )


def labels_of(item: Item, kind: str) -> list[Any]:
    """Return the labels under `kind` in a region's value; empty where that is not a list."""
    value = item.get("value")
    labels = value.get(kind) if isinstance(value, Mapping) else None
    return labels if isinstance(labels, list) else []


def id_of(value: object) -> str:
    """Return a region's id as text, empty for none; imported regions may have numbers."""
    if isinstance(value, int | float) and abs(value) <= _LARGEST:
        return str(value)
    return value if isinstance(value, str) else ""


def name_of(item: Item) -> str:
    """Return a region's name for messages."""
    name = item.get("id", "without id")
    return f"region {name:.80}" if isinstance(name, str) else f"region {spelled(name)}"


def spelled(value: object) -> str:
    """Return any item of a result as short text for messages."""
    return _SPELLING.repr(value)


def percent_box(value: Item) -> tuple[coordinates.Box, float] | None:
    """Return (x, y, width, height) in percent and the rotation in degrees; None unless all are finite numbers."""
    x, y, width, height, rotation = (
        number(value.get(name, 0 if name == "rotation" else None)) for name in ("x", "y", "width", "height", "rotation")
    )
    if not all(math.isfinite(value_part) for value_part in (x, y, width, height, rotation)):
        return None
    return (x, y, width, height), rotation


def setting(tag: ControlTag, name: str, default: float) -> float:
    """Return a numeric attribute of the tag, else the default; `control_tags.read` has checked that it is a number."""
    return float(tag.attributes.get(name, default))


def image_size(item: Item) -> tuple[float, float] | None:
    """Return width and height in pixels of the image that a region was drawn on, None where it does not say."""
    width, height = number(item.get("original_width")), number(item.get("original_height"))
    return (width, height) if width >= 1 and height >= 1 else None


def with_size(result: Iterable[Any], width: float, height: float) -> list[Any]:
    """Return a video's result with the video's size in each region that lacks one.

    Label Studio's editor writes no size into regions of videos, and reading a rotated box needs it. To only count
    labels any size will do.
    """
    size = {"original_width": width, "original_height": height}
    return [item | size if isinstance(item, dict) and image_size(item) is None else item for item in result]


def number(value: Any) -> float:
    """Return a JSON number as float; NaN for anything else, and for a number whose square would overflow."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return float(value) if usable else math.nan
