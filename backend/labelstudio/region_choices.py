"""Questions about each box: Choices or a Taxonomy with perRegion="true" beside the RectangleLabels of an image.

Label Studio stores the answer about a box as another entry of the box's id, with the value of the box beside the
choice. The setting REGION_CHOICES marks such questions in the label config, and only marked ones have a model.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from backend.errors import LabelConfigError
from backend.geometry import coordinates
from backend.labelstudio import label_xml, regions, tags
from backend.labelstudio.label_xml import Tree, attributes_of, is_true
from backend.labelstudio.object_tags import has_pages, names
from backend.labelstudio.regions import Item
from backend.labelstudio.tags import Result, rectanglelabels
from backend.types import Condition, ControlTag, EmptyRegion, LabeledBox, Prediction, Region

_MARK = "asked_per_region"  # attribute of the questions that `marked` marks
_SELECTED = "region-selected"
_SIDES = ("x", "y", "width", "height")


# The label config


def marked(label_config: str) -> str:
    """Return a label config whose questions about regions are marked to have a model; as it is if it is not XML."""
    try:
        tree = label_xml.read(label_config)
    except LabelConfigError:
        return label_config
    questions = [element for element in tree.root.iter() if is_per_region(element)]
    for element in questions:
        element.set(_MARK, "true")
    return ET.tostring(tree.root, encoding="unicode") if questions else label_config


def is_per_region(element: ET.Element) -> bool:
    """Return whether an element is a question about each region."""
    tag = tags.registry().get(element.tag.lower())
    is_question = tag is not None and tag.label_tag == "Choice"
    return is_question and attributes_of(element).get("perregion", "").strip().lower() == "true"


def is_marked(element: ET.Element) -> bool:
    """Return whether a question about regions shall have a model."""
    return is_true(attributes_of(element), _MARK, default=False)


def why_unanswered(element: ET.Element, tree: Tree) -> str:
    """Return why no model answers a marked question; empty if one does."""
    target = tree.objects.get(names(element)[0])
    if target is not None and has_pages(target):
        return 'is about each region (perRegion="true"), and models answer about regions of one image, not of pages'
    if _boxes(element, tree) is None:
        return 'is about each region (perRegion="true"), and its image has no RectangleLabels of upright boxes'
    return ""


def name_of_boxes(element: ET.Element, tree: Tree) -> str:
    """Return the name of the RectangleLabels that a question is about; empty for a question about the image."""
    boxes = _boxes(element, tree) if is_per_region(element) else None
    return "" if boxes is None else attributes_of(boxes)["name"]


def _boxes(element: ET.Element, tree: Tree) -> ET.Element | None:
    """Return the RectangleLabels of a question: the one that its conditions name, else the first of its image."""
    boxes = [
        node
        for node in tree.nodes(rectanglelabels.TAG.name)
        if names(node) == names(element) and attributes_of(node).get("name") and _has_upright_model(node)
    ]
    attributes = attributes_of(element)
    named = attributes.get("whentagname", "") if attributes.get("visiblewhen", "") == _SELECTED else ""
    return next((node for node in boxes if not named or attributes_of(node)["name"] == named), None)


def _has_upright_model(boxes: ET.Element) -> bool:
    attributes = attributes_of(boxes)
    return rectanglelabels.task_of(attributes) == "detect" and not is_true(attributes, "model_skip", default=False)


def conditions(element: ET.Element, tree: Tree) -> tuple[Condition, ...]:
    """Return the condition of a question that is only about boxes with some labels, by whenLabelValue alone."""
    values, boxes = attributes_of(element).get("whenlabelvalue", ""), name_of_boxes(element, tree)
    return (Condition(_SELECTED, boxes, tuple(values.split(","))),) if boxes and values else ()


def with_boxes(controls: Sequence[ControlTag]) -> tuple[list[ControlTag], list[str]]:
    """Return the control tags without questions about boxes that have no model, and why those are left out."""
    answered = {tag.from_name for tag in controls}
    orphans = [tag for tag in controls if tag.regions_of and tag.regions_of not in answered]
    reasons = [
        f'{tags.get(tag.kind).name} "{tag.from_name:.80}" is left alone: it is about the boxes of '
        f"{tag.regions_of:.80}, which have no model of their own"
        for tag in orphans
    ]
    return [tag for tag in controls if tag not in orphans], reasons


def asks_about(tag: ControlTag, label: object) -> bool:
    """Return whether the editor asks a question about a box with this label."""
    return all(
        label in condition.values
        for condition in tag.conditions
        if condition.kind == _SELECTED and condition.values and condition.control in ("", tag.regions_of)
    )


# Results


def read(tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield each box with each answer about it, or why an answer is not learned; boxes without an answer teach nothing.

    Answers about regions of other control tags, and about boxes that the question is not about, are passed over.
    """
    items = list(result)
    boxes = {
        regions.id_of(item.get("id")): item
        for item in items
        if item.get("from_name") == tag.regions_of and item.get("type") == rectanglelabels.KIND
    }
    answers: dict[str, list[Item]] = {}
    for item in items:
        if item.get("from_name") == tag.from_name and item.get("type") == tag.kind:
            answers.setdefault(regions.id_of(item.get("id")), []).append(item)
    for name, given in answers.items():
        box = boxes.get(name) if name else None
        if box is not None and any(asks_about(tag, label) for label in regions.labels_of(box, rectanglelabels.KIND)):
            yield from _of_box(tag, box, given)


def _of_box(tag: ControlTag, box: Item, answers: Iterable[Item]) -> Iterator[LabeledBox | EmptyRegion | str]:
    shape = rectanglelabels.upright(box)
    shape = replace(shape, note="") if isinstance(shape, LabeledBox) else shape
    parts = list(dict.fromkeys(regions.read(tag, answers, lambda _: shape)))
    labels = [part.label for part in parts if isinstance(part, LabeledBox)]
    if len(labels) > 1 and not tag.multiple:
        named = ", ".join(map(repr, labels[:3]))
        yield (
            f"{regions.name_of(box)} has {len(labels)} answers, {named}, and only one may be chosen: correct the "
            "annotation"
        )
        return
    yield from parts


def encode(
    tag: ControlTag, boxes: Iterable[Region], prediction: Prediction, classes: Sequence[str], threshold: float
) -> Iterator[Region]:
    """Yield the answer about each of the predicted `boxes`, under the box's id, as Label Studio's editor stores it.

    `prediction` has a row of class scores for each box that was asked about. A box without a row has no answer.
    """
    rows = {_place(percent): row for row, percent in enumerate(coordinates.percent_boxes(prediction).tolist())}
    for box in boxes:
        if box.from_name != tag.regions_of or not any(asks_about(tag, label) for label in box.value[box.kind]):
            continue
        row = rows.get(_place([box.value[side] for side in _SIDES]))
        if row is None:
            continue
        for answer in tags.encode(tag, _only(prediction, row), classes, threshold, box.id):
            yield replace(answer, id=box.id, value={**box.value, **answer.value})


def _place(percent: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(side, 6) for side in percent)


def _only(prediction: Prediction, row: int) -> Prediction:
    """Return the prediction of one box, as that of an image."""
    rows = slice(row, row + 1)
    return Prediction(
        width=prediction.width,
        height=prediction.height,
        boxes=prediction.boxes[rows],
        class_probs=prediction.class_probs[rows],
        confidence=prediction.confidence[rows],
    )
