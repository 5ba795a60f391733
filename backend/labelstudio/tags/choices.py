"""Choices about an Image: the classes of the whole image, one or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backend.labelstudio import region_choices, regions
from backend.labelstudio.tags import Result, Tag
from backend.types import WHOLE, ControlTag, EmptyRegion, LabeledBox, Prediction, Region

MOST = "maxusages"  # attribute: how many labels may be chosen; 0: all


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return a region with the likeliest label, or with all labels above the threshold where several may be chosen.

    The threshold is the tag's own, else `threshold`. There is no region where no label reaches it. The region's score
    is that of its least likely label.
    """
    return answer(tag, prediction, classes, threshold, key, list)


def answer(
    tag: ControlTag,
    prediction: Prediction,
    classes: Sequence[str],
    threshold: float,
    key: str,
    spell: Callable[[list[str]], list[Any]],
) -> tuple[Region, ...]:
    """Return the region of a whole-image answer; `spell` converts labels to the form of the tag's results."""
    if len(prediction.boxes) != 1:  # a model of objects answered, or no model
        return ()
    scores: dict[str, float] = {}
    for label, score in zip(regions.class_labels(tag, classes), prediction.class_probs[0].tolist(), strict=True):
        if label is not None and np.isfinite(score):
            scores[label] = max(score, scores.get(label, 0.0))
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    chosen = sorted((label for label in scores if scores[label] >= lowest), key=lambda label: -scores[label])
    most = int(regions.setting(tag, MOST, 0)) or len(chosen)
    chosen = chosen[:most] if tag.multiple else chosen[:1]
    if not chosen:
        return ()
    return (
        Region(
            id=regions.region_id(key, tag.from_name, 0),
            kind=tag.kind,
            from_name=tag.from_name,
            to_name=tag.to_name,
            value={tag.kind: spell(chosen)},
            score=scores[chosen[-1]],
            original_width=prediction.width,
            original_height=prediction.height,
        ),
    )


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield a training box of the whole image for each chosen label, or why a choice is not learned.

    Where only one label may be chosen, a choice of several is not learned. A tag that is about boxes yields those boxes
    in the place of the whole image.
    """
    if tag.regions_of:
        yield from region_choices.read(tag, result)
        return
    parts = dict.fromkeys(regions.read(tag, result, _whole))
    labels = [part.label for part in parts if isinstance(part, LabeledBox)]
    if len(labels) > 1 and not tag.multiple:
        named = ", ".join(map(repr, labels[:3]))
        yield f"its choice has {len(labels)} answers, {named}, and only one may be chosen: correct the annotation"
        return
    yield from parts


def _whole(_: Mapping[str, Any]) -> LabeledBox:
    return LabeledBox("", WHOLE)


TAG = Tag(
    name="Choices",
    object_name="Image",
    encode=encode,
    read=read,
    task=lambda _: "classify",
    multiple=lambda attributes: attributes.get("choice", "single").strip().lower() == "multiple",
    label_tag="Choice",
    # Label Studio submits nested choices as paths, and imports no predictions with paths.
    attributes={"choice": ("single", "single-radio", "multiple"), "allownested": ("false",)},
)
