"""Label Studio's label config (XML) -> the control tags this backend predicts and learns.

Attributes of a control tag: model_skip, model_trainable, model_score_threshold (or score_threshold), model_path, and
those that its file in labelstudio/tags names; attribute of its <Label>: predicted_values. We read tag and attribute
names in any case, as Label Studio's own editor does.
"""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from backend.errors import LabelConfigError
from backend.labelstudio import control_tags, skeletons, tags
from backend.labelstudio.label_xml import WHERE, Tree, attributes_of, inside, is_true, read, refuse, spell
from backend.labelstudio.skeletons import Skeletons
from backend.types import ControlTag

MOST_TAGS = 50  # each has a model of its own
_PARSED = 32  # label configs in the cache: every request brings one


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The control tags that we support, in the config's order, and warnings about tags that we leave alone."""

    tags: tuple[ControlTag, ...]
    warnings: tuple[str, ...]


def parse(label_config: str) -> tuple[ControlTag, ...]:
    """Return the control tags that we support, in the config's order, without those that say model_skip="true".

    A tag that we cannot use as it stands is left out, as long as another tag is usable. Raises LabelConfigError when
    the config is not XML, is too large, or has no usable tag.
    """
    return checked(label_config).tags


def warnings(label_config: str) -> tuple[str, ...]:
    """Return the warnings about a usable label config; raises LabelConfigError as `parse`."""
    return checked(label_config).warnings


@lru_cache(_PARSED)
def checked(label_config: str) -> LabelConfig:
    """Read a label config, once for each text; raises LabelConfigError as `parse`."""
    tree = read(label_config)
    skeleton_tags = skeletons.find(tree)
    usable: list[ControlTag] = []
    errors: list[LabelConfigError] = []
    notes: list[str] = []
    names = Counter(attributes_of(element).get("name", "") for element in tree.root.iter())
    for element in _controls(tree, skeleton_tags):
        try:
            tag, warnings_of_tag = control_tags.read(element, tree, skeleton_tags)
            if names[tag.from_name] > 1:
                raise refuse(element, "name", tag.from_name, "is the name of several tags", "give each its own name")
        except LabelConfigError as error:
            errors.append(error)
            continue
        usable.append(tag)
        notes += warnings_of_tag
    if not usable:
        raise errors[0]
    controls = dict(_all_controls(tree))
    left_alone = [f"this control tag is left alone: {error.what}. Fix: {error.fix}" for error in errors]
    return LabelConfig(tuple(replace(tag, controls=controls) for tag in usable), (*left_alone, *notes))


def _all_controls(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield name and kind of each control tag, also of those that we do not support."""
    for element in tree.root.iter():
        attributes = attributes_of(element)
        if attributes.get("name") and attributes.get("toname"):
            yield attributes["name"], element.tag.lower()


def _controls(tree: Tree, skeleton_tags: Skeletons) -> list[ET.Element]:
    """Return the supported control tags that are not skipped; raises LabelConfigError where there is none."""
    supported = tags.registry()
    images = {attributes_of(node).get("name") for node in tree.nodes("Image")}
    controls = [
        element
        for element in tree.root.iter()
        if element.tag.lower() in supported and not _is_left_alone(element, images, skeleton_tags)
    ]
    if not controls:
        raise _no_control(tree)
    active = [element for element in controls if not _skips(element)]
    if not active:
        raise LabelConfigError(
            "every supported control tag is skipped",
            where=WHERE,
            fix=f'remove model_skip="true" from {" or ".join(map(spell, controls[:3]))}',
        )
    if len(active) > MOST_TAGS:
        excess = f"{len(active)} control tags need a model, and at most {MOST_TAGS} can have one"
        raise LabelConfigError(excess, where=WHERE, fix='set model_skip="true" on those that need no model')
    active.sort(key=_is_of_whole_image)  # choices come last: beside boxes they are mostly remarks
    return active


def _skips(element: ET.Element) -> bool:
    """Return whether a control tag is skipped; `control_tags.read` refuses a value that is neither true nor false."""
    return is_true(attributes_of(element), "model_skip", default=False)


def _no_control(tree: Tree) -> LabelConfigError:
    for points in tree.nodes("KeyPointLabels"):
        if not _skips(points):
            return _without_boxes(points)
    return LabelConfigError(
        "no control tag that this backend can predict",
        where=WHERE,
        fix='add a RectangleLabels tag with name="label", with toName="image" and with Label tags inside it, beside an '
        f'Image tag with name="image" and value="$image"; or one of {", ".join(_names())}',
    )


def _names() -> Iterator[str]:
    return (tag.name for tag in tags.registry().values())


def _without_boxes(points: ET.Element) -> LabelConfigError:
    attributes = attributes_of(points)
    return LabelConfigError(
        f"{spell(points)} has no RectangleLabels for the boxes of its objects",
        where=WHERE,
        fix=f'write a RectangleLabels tag with name="{attributes.get("name", ""):.80}_bbox", toName='
        f'"{attributes.get("toname", ""):.80}" and the labels of the objects beside it, and put the points under boxes',
    )


def _is_of_whole_image(element: ET.Element) -> bool:
    return tags.get(element.tag.lower()).label_tag == "Choice"


def _is_left_alone(element: ET.Element, images: set[str | None], skeleton_tags: Skeletons) -> bool:
    """Return whether no model of ours answers a supported tag by itself.

    That is so for Choices about a text, about a region, or listed in the task; for points without boxes; and for the
    boxes of points, which belong to the tag of points.
    """
    if element.tag.lower() == "keypointlabels":
        return element not in skeleton_tags.boxes
    if not _is_of_whole_image(element):
        return element in skeleton_tags.points  # the boxes of a skeleton are part of it
    attributes = attributes_of(element)
    per_region = attributes.get("perregion", "false").strip().lower() == "true"
    return per_region or attributes.get("toname") not in images or next(inside(element, "Choice"), None) is None


def config_hash(label_config: str) -> str:
    """Return a hash of what a training depends on: names, kinds, data fields, labels and tasks of the control tags.

    Colours, hotkeys, thresholds, layout and order do not change it. Raises LabelConfigError as `parse` does.
    """
    hashed = sorted(
        [
            tag.from_name,
            tag.kind,
            tag.data_key,
            sorted(tag.labels),
            *_beyond_boxes(tag),
        ]
        for tag in parse(label_config)
    )
    return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()


def _beyond_boxes(tag: ControlTag) -> list[object]:
    """Return what a training of other tags than upright boxes depends on; empty for boxes, to keep their old hash."""
    if tag.frame_rate:
        sizes = sorted(
            attribute for attribute in tag.attributes.items() if attribute[0].startswith("model_classifier_")
        )
        return [tag.frame_rate, float(tag.attributes.get("model_every", 0)), *sizes]
    return [tag.task, tag.multiple, tag.parent, list(tag.points)] if tag.task != "detect" else []
