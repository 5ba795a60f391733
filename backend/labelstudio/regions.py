"""What control tags share: which detections are shown, as which regions, and how regions of an annotation are read."""

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
from backend.types import ControlTag, EmptyRegion, LabeledBox, Outline, Prediction, Region

Item = Mapping[str, Any]
_LARGEST = 1e100  # of a number in a region
_SPELLING = reprlib.Repr()  # Label Studio imports anything: a list in a list a thousand deep cannot be spelled out
_SPELLING.maxlevel, _SPELLING.maxstring, _SPELLING.maxother = 3, 80, 80


def shown(tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float) -> list[tuple[int, str]]:
    """Return the rows of a prediction that become regions and their labels, in the prediction's order.

    Left out: boxes under the tag's own threshold (else `threshold`), boxes without area inside the image, and classes
    no label of the tag stands for.
    """
    if not len(prediction.boxes):
        return []
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    labels = class_labels(tag, classes)
    kept = (prediction.confidence >= lowest) & np.isfinite(prediction.boxes).all(axis=1)
    kept &= (coordinates.percent_boxes(prediction)[:, 2:] > 0).all(axis=1)
    top = prediction.class_probs.argmax(axis=1)
    rows = np.flatnonzero(kept).tolist()
    return [(row, label) for row in rows if (label := labels[top[row]]) is not None]


def rings(prediction: Prediction, row: int) -> Outline:
    """Return an object's outline in pixels: its box where the model knows no outlines."""
    if prediction.outlines is not None:
        return prediction.outlines[row]
    left, top, right, bottom = prediction.boxes[row]
    return (np.array([(left, top), (right, top), (right, bottom), (left, bottom)]),)


def class_labels(tag: ControlTag, classes: Sequence[str]) -> list[str | None]:
    """Return the label of each class, None where the tag has none."""
    # A model trained here has the labels themselves as classes; a predicted_values written for the base model that
    # gives one label's name to another label must not swap them.
    if set(classes) <= set(tag.labels):
        return list(classes)
    return [tag.class_to_label.get(name.strip().casefold()) for name in classes]


def build(tag: ControlTag, prediction: Prediction, key: str, row: int, value: Mapping[str, Any]) -> Region:
    """Return one row of a prediction as a region: its score is the detection's, its id depends on `key` only."""
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
    """Return an id that is the same each time."""
    told = json.dumps([key, from_name, index])  # joined by a sign, "a/b" and "c" would be "a" and "b/c"
    return hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()[:10]


def read(
    tag: ControlTag, result: Iterable[Item], shape: Callable[[Item], LabeledBox | EmptyRegion | str]
) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training label for each label of each region of this tag, or why there is none.

    `shape` gives what a region encloses, without a label, or what is wrong with it.
    """
    known = frozenset(tag.labels)
    for item in result:
        if item.get("from_name") != tag.from_name or item.get("type") != tag.kind:
            continue
        labels = labels_of(item, tag.kind)
        if not labels:
            yield f"{name_of(item)} has no label"
            continue
        found = shape(item)
        if isinstance(found, LabeledBox) and not min(found.xywh[2:]) > 0:  # thinner than a float can tell
            found = EmptyRegion("has no area inside the image")
        if isinstance(found, EmptyRegion):
            yield EmptyRegion(f"{name_of(item)} {found.reason}")
            continue
        if isinstance(found, str):
            yield f"{name_of(item)} {found}"
            continue
        for label in labels:
            if isinstance(label, str) and label in known:
                yield replace(found, label=label)
            else:
                yield f"{name_of(item)} {unknown_label(label)}"


def unknown_label(label: object) -> str:
    """Return why a region with a label that the label config lacks is not learned, and the cure."""
    return (
        f"has the label {spelled(label)}, which is not in the label config: if it was renamed, write the old name as "
        "the new label's alias, or set LABEL_RENAMES"
    )


def labels_of(item: Item, kind: str) -> list[Any]:
    """Return what stands under `kind` in a region's value, empty where that is no list."""
    value = item.get("value")
    labels = value.get(kind) if isinstance(value, Mapping) else None
    return labels if isinstance(labels, list) else []


def id_of(value: object) -> str:
    """Return what identifies a region, empty for none; imports have numbers."""
    if isinstance(value, int | float) and abs(value) <= _LARGEST:
        return str(value)
    return value if isinstance(value, str) else ""


def name_of(item: Item) -> str:
    """Return how people are told of a region."""
    name = item.get("id", "without id")
    return f"region {name:.80}" if isinstance(name, str) else f"region {spelled(name)}"


def spelled(value: object) -> str:
    """Return how people are told of anything that stands in a result, in a line."""
    return _SPELLING.repr(value)


def percent_box(value: Item) -> tuple[coordinates.Box, float] | None:
    """Return x, y, width, height in percent and the rotation in degrees; None where they are not all numbers."""
    x, y, width, height, rotation = (
        number(value.get(name, 0 if name == "rotation" else None)) for name in ("x", "y", "width", "height", "rotation")
    )
    if not all(math.isfinite(each) for each in (x, y, width, height, rotation)):
        return None
    return (x, y, width, height), rotation


def setting(tag: ControlTag, name: str, default: float) -> float:
    """Return a number among the tag's attributes, which the label config has checked, else the default."""
    return float(tag.attributes.get(name, default))


def image_size(item: Item) -> tuple[float, float] | None:
    """Return the width and the height of the image that a region was drawn on, None where it does not say."""
    width, height = number(item.get("original_width")), number(item.get("original_height"))
    return (width, height) if width >= 1 and height >= 1 else None


def sized(result: Iterable[Any], width: float, height: float) -> list[Any]:
    """Return a video's result with its size where a region has none: the editor gives none, and a turned box needs it.

    Who only counts its labels may take any size: a turned box is one label in each.
    """
    size = {"original_width": width, "original_height": height}
    return [item | size if isinstance(item, dict) and image_size(item) is None else item for item in result]


def number(value: Any) -> float:
    """Return a JSON number, or NaN for anything else, and for one so large that its square would be none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return float(value) if usable else math.nan
