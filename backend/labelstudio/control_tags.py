"""One control tag of a label config: the model that it needs, or why we cannot use it as it stands."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from backend.errors import LabelConfigError
from backend.labelstudio import frame_rates, label_holders, object_tags, region_choices, tags, task_labels, visibility
from backend.labelstudio.class_names import ClassNames
from backend.labelstudio.label_names import contested, labels_of, objects_of, points_of, prompts_of, repeated, unnamed
from backend.labelstudio.label_xml import FALSE, TRUE, WHERE, Tree, attributes_of, number_of, refuse, skip, spell
from backend.labelstudio.skeletons import Skeletons
from backend.model_versions import is_weights_name
from backend.types import ControlTag

_READ_HERE = {"model_skip", "model_trainable", "model_score_threshold", "model_path"}


def _switch(element: ET.Element, name: str, *, default: bool) -> bool:
    """Return the value of a true-or-false attribute; raises LabelConfigError for any other value."""
    value = attributes_of(element).get(name, str(default))
    if value.strip().lower() not in (*TRUE, *FALSE):
        raise refuse(element, name, value, "is neither true nor false", "write true or false")
    return value.strip().lower() in TRUE


def read(element: ET.Element, tree: Tree, skeleton_tags: Skeletons) -> tuple[ControlTag, list[str]]:
    """Return a control tag, and warnings about its labels; raises LabelConfigError if it cannot be used."""
    attributes = attributes_of(element)
    tag = tags.get(element.tag.lower())
    _check(element, tag)
    target = object_tags.find(element, tree, tag)
    rate, rate_key = frame_rates.of_tag(target) if tag.object_name == "Video" else (0.0, "")
    boxes = skeleton_tags.boxes.get(element)
    holder = label_holders.find(element, tree, tag)
    pose = tag.task(attributes) == "pose"
    labels, classes = _labels(element, tag, boxes, holder)
    control = ControlTag(
        kind=tag.kind,
        from_name=attributes["name"],
        to_name=attributes_of(target)["name"],
        data_key=object_tags.data_key(target, element),
        labels=labels,
        class_to_label=classes.folded,
        exact_class_to_label=classes.exact,
        score_threshold=_score_threshold(element),
        model_path=_model_path(element),
        attributes={n: v for n, v in attributes.items() if _is_for_model(n, tag)},
        task=tag.task(attributes),
        multiple=tag.multiple(attributes),
        points=points_of(holder, tag, element) if pose and holder is not None else (),
        labels_from="" if holder is element or holder is None else attributes_of(holder)["name"],
        parent="" if boxes is None else attributes_of(boxes).get("name", ""),
        pages=object_tags.has_pages(target),
        frame_rate=rate,
        frame_rate_key=rate_key,
        labels_key="" if pose or holder is None else task_labels.key_of(holder, tag),
        conditions=(*visibility.conditions(element, tree), *region_choices.conditions(element, tree)),
        regions_of=region_choices.name_of_boxes(element, tree),
        trainable=_switch(element, "model_trainable", default=True),
        prompts=_prompts(element, tag, boxes, holder),
    )
    warnings = [*contested(element, classes), *(repeated(holder, tag, element) if pose and holder is not None else ())]
    warnings += [*object_tags.several(element, target), *(frame_rates.warnings(target) if rate else ())]
    return control, [*label_holders.warnings(element, tree, tag), *warnings]


def _check(element: ET.Element, tag: tags.Tag) -> None:
    """Raise LabelConfigError for an attribute that is missing, or that the backend cannot serve as it stands."""
    attributes = attributes_of(element)
    if not attributes.get("name"):
        raise LabelConfigError(f"a {tag.name} has no name", where=WHERE, fix='give it one: name="label"')
    _switch(element, "model_skip", default=False)
    if tag.unanswered:
        fix = f"{tag.instead.replace('IMAGE', attributes.get('toname', ''))}, {skip(element)}"
        raise LabelConfigError(f"{spell(element)} {tag.unanswered}", where=WHERE, fix=fix)
    for name, allowed in tag.attributes.items():
        value = attributes.get(name, allowed[0])
        if value.strip().lower() not in allowed:
            raise refuse(
                element, name, value, "is not supported", f"write one of {', '.join(allowed)}, {skip(element)}"
            )
    for name, (needed, why) in tag.needs.items():
        if attributes.get(name, "").strip().lower() != needed:
            raise refuse(
                element, name, attributes.get(name, ""), why, f'write {name}="{needed}" into it, {skip(element)}'
            )
    for name, most in tag.numbers.items():
        number_of(element, name, most, above_zero=name in tag.above_zero)
    _check_spelling(element, tag)


def _labels(
    element: ET.Element, tag: tags.Tag, boxes: ET.Element | None, holder: ET.Element | None
) -> tuple[tuple[str, ...], ClassNames]:
    """Return the labels of a control tag: those of a skeleton's boxes, of what holds its labels, or one for all."""
    if boxes is not None:
        return labels_of(boxes, tags.get(boxes.tag.lower()), element)
    if holder is None:
        return unnamed(element)
    if tag.task(attributes_of(element)) == "pose":
        return objects_of(holder, tag, element)
    return labels_of(holder, tag, element)


def _prompts(
    element: ET.Element, tag: tags.Tag, boxes: ET.Element | None, holder: ET.Element | None
) -> tuple[str, ...]:
    """Return the prompts of the labels; empty for tags that no open-vocabulary model answers."""
    asks = tag.task(attributes_of(element)) in ("detect", "segment") and boxes is None and holder is not None
    return prompts_of(holder, tag, element) if asks and holder is not None else ()


def _check_spelling(element: ET.Element, tag: tags.Tag) -> None:
    """Refuse an attribute that begins like one of the tag's own, e.g. botsort_match_thresh, and is a misspelling."""
    settings = sorted(name for name in (*tag.attributes, *tag.numbers) if "_" in name and not name.startswith("model_"))
    for name, value in attributes_of(element).items():
        family = f"{name.partition('_')[0]}_"
        alike = [setting for setting in settings if setting.startswith(family)]
        if alike and name not in settings:
            raise refuse(element, name, value, "is not a known setting", f"use one of {', '.join(alike)}, or remove it")


def _is_for_model(name: str, tag: tags.Tag) -> bool:
    return name in (*tag.numbers, *tag.attributes) or (name.startswith("model_") and name not in _READ_HERE)


def _score_threshold(element: ET.Element) -> float | None:
    thresholds = [number_of(element, name, 1) for name in ("model_score_threshold", "score_threshold")]
    return next((threshold for threshold in thresholds if threshold is not None), None)


def _model_path(element: ET.Element) -> str | None:
    value = attributes_of(element).get("model_path", "").strip()
    if value and not is_weights_name(value):
        fix = "write the name of a file that lies in MODEL_DIR itself, e.g. yolo11n.pt"
        raise refuse(element, "model_path", value, "is not the plain name of a .pt file", fix)
    return value or None
