"""Label Studio's label config (XML) -> the control tags this backend predicts and learns.

Attributes of a control tag: model_skip, model_trainable, model_score_threshold (or score_threshold), model_path, and
those that its file in backend/tags names; of its <Label>: predicted_values. Tag and attribute names are read in any
case, as Label Studio's own editor does.
"""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET

from backend import tags
from backend.errors import LabelConfigError
from backend.label_names import labels_of, points_of
from backend.label_xml import FALSE, SKIP, TRUE, WHERE, attributes_of, nodes, number_of, read, refuse, says, spell
from backend.types import ControlTag

MAX_FRAME_RATE = 1000.0
_READ_HERE = {"model_skip", "model_trainable", "model_score_threshold", "model_path"}


def parse(label_config: str) -> tuple[ControlTag, ...]:
    """Return the control tags we support, in the config's order, without those that say model_skip="true".

    Raises LabelConfigError when the config is not XML, has no such tag, or one of them cannot be used as it stands.
    """
    root = read(label_config)
    known = tags.registry()
    controls = [element for element in root.iter() if element.tag.lower() in known and not _of_others(element, root)]
    if not controls:
        for points in nodes(root, "KeyPointLabels"):
            if not says(attributes_of(points), "model_skip", default=False):
                raise _without_boxes(points)
        raise LabelConfigError(
            "no control tag that this backend can predict",
            where=WHERE,
            fix='add <RectangleLabels name="label" toName="image"><Label value="..."/></RectangleLabels>, with toName '
            f'the name of an <Image value="$image"/>, or another of {", ".join(tag.name for tag in known.values())}',
        )
    kept = [element for element in controls if not _says(element, "model_skip", default=False)]
    if not kept:
        raise LabelConfigError(
            "every supported control tag is skipped",
            where=WHERE,
            fix=f'remove model_skip="true" from one of {", ".join(map(spell, controls))}',
        )
    kept.sort(key=_is_of_whole_image)  # beside boxes they are mostly remarks
    return tuple(_control_tag(element, root) for element in kept)


def _without_boxes(points: ET.Element) -> LabelConfigError:
    mine = attributes_of(points)
    boxes = f'<RectangleLabels name="{mine.get("name")}_bbox" toName="{mine.get("toname")}">'
    return LabelConfigError(
        f"{spell(points)} has no RectangleLabels for the boxes of its objects",
        where=WHERE,
        fix=f'write {boxes}<Label value="..."/></RectangleLabels> beside it, and put the points under boxes',
    )


def _is_of_whole_image(element: ET.Element) -> bool:
    return tags.get(element.tag.lower()).label_tag == "Choice"


def _of_others(element: ET.Element, root: ET.Element) -> bool:
    """Return whether a tag is none that a model of images answers by itself.

    Choices about a text, about a region, or written in the task; points without boxes; the boxes of points.
    """
    if element.tag.lower() == "keypointlabels":
        return _boxes_of(element, root) is None
    if not _is_of_whole_image(element):
        # The boxes of a skeleton are part of it.
        return any(_boxes_of(points, root) is element for points in nodes(root, "KeyPointLabels"))
    attributes = attributes_of(element)
    images = {attributes_of(node).get("name") for node in nodes(root, "Image")}
    per_region = attributes.get("perregion", "false").strip().lower() == "true"
    return per_region or attributes.get("toname") not in images or not nodes(element, "Choice")


def config_hash(label_config: str) -> str:
    """Return a hash of what a training depends on: names, kinds, data fields, labels and tasks of the control tags.

    Colours, hotkeys, thresholds, layout and order do not change it. Raises LabelConfigError as `parse` does.
    """
    matters = sorted(
        [
            tag.from_name,
            tag.kind,
            tag.data_key,
            sorted(tag.labels),
            *_more(tag),
        ]
        for tag in parse(label_config)
    )
    return hashlib.sha256(json.dumps(matters).encode()).hexdigest()


def _more(tag: ControlTag) -> list[object]:
    """Return what a training depends on beside boxes; nothing for boxes, whose hash must stay what it was."""
    if tag.frame_rate:
        sizes = sorted(each for each in tag.attributes.items() if each[0].startswith("model_classifier_"))
        return [tag.frame_rate, float(tag.attributes.get("model_every", 0)), *sizes]
    return [tag.task, tag.multiple, tag.parent, list(tag.points)] if tag.task != "detect" else []


def _says(element: ET.Element, name: str, *, default: bool) -> bool:
    value = attributes_of(element).get(name, str(default))
    if value.strip().lower() not in (*TRUE, *FALSE):
        raise refuse(element, name, value, "is neither true nor false", "write true or false")
    return value.strip().lower() in TRUE


def _control_tag(element: ET.Element, root: ET.Element) -> ControlTag:
    attributes = attributes_of(element)
    tag = tags.get(element.tag.lower())
    if not attributes.get("name"):
        raise LabelConfigError(f"a <{element.tag}> has no name", where=WHERE, fix='give it one: name="label"')
    for name, allowed in tag.attributes.items():
        value = attributes.get(name, allowed[0])
        if value.strip().lower() not in allowed:
            fix = f"write one of {', '.join(allowed)}, {SKIP}"
            raise refuse(element, name, value, "is not supported", fix)
    for name, most in tag.numbers.items():
        number_of(element, name, most, above_zero=name in tag.above_zero)
    _check_spelling(element, tag)
    boxes = _boxes_of(element, root) if tag.task(attributes) == "pose" else None
    labels, class_to_label = (
        labels_of(_holder_of(element, root, tag), tag)
        if boxes is None
        else labels_of(boxes, tags.get(boxes.tag.lower()))
    )
    return ControlTag(
        kind=tag.kind,
        from_name=attributes["name"],
        to_name=attributes.get("toname", ""),
        data_key=_data_key(element, root, tag.object_name),
        labels=labels,
        class_to_label=class_to_label,
        score_threshold=_score_threshold(element),
        model_path=_model_path(element),
        attributes={n: v for n, v in attributes.items() if _is_models(n, tag)},
        task=tag.task(attributes),
        multiple=tag.multiple(attributes),
        points=() if boxes is None else points_of(element, tag),
        parent="" if boxes is None else attributes_of(boxes).get("name", ""),
        frame_rate=_frame_rate(element, root) if tag.object_name == "Video" else 0.0,
        trainable=_says(element, "model_trainable", default=True),
    )


def _check_spelling(element: ET.Element, tag: tags.Tag) -> None:
    """Refuse an attribute that begins like a tag's own, as botsort_match_thresh does, and is none of them."""
    known = sorted(name for name in (*tag.attributes, *tag.numbers) if "_" in name and not name.startswith("model_"))
    for name, value in attributes_of(element).items():
        family = f"{name.partition('_')[0]}_"
        alike = [one for one in known if one.startswith(family)]
        if alike and name not in known:
            raise refuse(element, name, value, "is no such setting", f"use one of {', '.join(alike)}, or remove it")


def _is_models(name: str, tag: tags.Tag) -> bool:
    return name in (*tag.numbers, *tag.attributes) or (name.startswith("model_") and name not in _READ_HERE)


def _holder_of(element: ET.Element, root: ET.Element, tag: tags.Tag) -> ET.Element:
    """Return the tag that has a control tag's labels inside: itself, or the one beside it."""
    if not tag.labels_beside:
        return element
    to_name = attributes_of(element).get("toname")
    inside = tag.labels_beside
    beside = [node for node in nodes(root, inside) if attributes_of(node).get("toname") == to_name]
    if len(beside) != 1:
        raise LabelConfigError(
            f"{spell(element)} has {len(beside) or 'no'} <{inside}> of the same toName beside it",
            where=WHERE,
            fix=f'write one: <{inside} name="labels" toName="{to_name}"><Label value="..."/></{inside}>, {SKIP}',
        )
    return beside[0]


def _frame_rate(element: ET.Element, root: ET.Element) -> float:
    """Return at how many frames per second Label Studio counts the frames of a tag's video."""
    to_name = attributes_of(element).get("toname")
    (video,) = [node for node in nodes(root, "Video") if attributes_of(node).get("name") == to_name][:1]
    value = attributes_of(video).get("framerate", "24")  # Label Studio's own default
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= MAX_FRAME_RATE:
        fix = f"write the frames per second of your videos, up to {MAX_FRAME_RATE:g}, e.g. 25"
        raise refuse(video, "frameRate", value, "is no number of frames per second", fix)
    return number if number >= 1 else 1 / number  # as Label Studio reads it: the seconds of one frame


def _data_key(element: ET.Element, root: ET.Element, object_name: str) -> str:
    """Return the task data field of the object tag that `element` points to."""
    to_name = attributes_of(element).get("toname", "")
    objects = nodes(root, object_name)
    shown = [node for node in objects if to_name and attributes_of(node).get("name") == to_name]
    if not shown:
        names = ", ".join(attributes_of(node).get("name", "") for node in objects) or "none yet"
        fix = f"point it to an <{object_name}> ({names}), {SKIP}"
        raise refuse(element, "toName", to_name, f"is not the name of an <{object_name}>", fix)
    attributes = attributes_of(shown[0])
    fix = f'write value="$image" with the task field that holds one file, {SKIP}'
    if attributes.get("valuelist"):
        why = "shows several files per task, which is not supported"
        raise refuse(shown[0], "valueList", attributes["valuelist"], why, fix)
    value = attributes.get("value", "")
    # "$undefined$" is Label Studio's placeholder for files uploaded before the config had a field for them.
    field = re.fullmatch(r"\$([^${}\[\]]+)", value.strip())
    if field is None:
        raise refuse(shown[0], "value", value, "does not name one field of the task", fix)
    return field[1]


def _boxes_of(element: ET.Element, root: ET.Element) -> ET.Element | None:
    """Return the RectangleLabels that hold a skeleton's points: NAME_bbox, or else one that is skipped by itself."""
    mine = attributes_of(element)
    beside = [
        node
        for node in nodes(root, "RectangleLabels")
        if attributes_of(node).get("toname") == mine.get("toname") and attributes_of(node).get("name")
    ]
    if says(mine, "model_skip", default=False):
        return None
    named = [node for node in beside if attributes_of(node)["name"] == f"{mine.get('name')}_bbox"]
    skipped = [node for node in beside if says(attributes_of(node), "model_skip", default=False)]
    return next(iter(named + skipped), None)


def _score_threshold(element: ET.Element) -> float | None:
    found = [number_of(element, name, 1) for name in ("model_score_threshold", "score_threshold")]
    return next((threshold for threshold in found if threshold is not None), None)


def _model_path(element: ET.Element) -> str | None:
    value = attributes_of(element).get("model_path", "").strip()
    if value and not re.fullmatch(r"\w[\w.-]*\.pt", value, re.ASCII):
        fix = "write the name of a file that lies in MODEL_DIR itself, e.g. yolo11n.pt"
        raise refuse(element, "model_path", value, "is not the plain name of a .pt file", fix)
    return value or None
