"""The labels of a control tag: how results spell them, and which classes of a model each label covers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from backend.errors import LabelConfigError
from backend.labelstudio import class_names, tags, task_labels
from backend.labelstudio.class_names import Claim, ClassNames
from backend.labelstudio.label_paths import SEPARATOR, joined
from backend.labelstudio.label_xml import WHERE, attributes_of, inside, refuse, skip, spell
from backend.labelstudio.loose_points import OBJECT

MOST_LABELS = 10_000  # of a tag; a Taxonomy of all products of a shop has as many
MOST_POINTS = 1_000
POSE_CLASS = "person"  # the only class of ultralytics' base weights for poses
MOST_LETTERS = 1_000  # of a label, or of all names of a path together
MOST_NAMED = 3  # classes or labels that a warning lists


def labels_of(element: ET.Element, tag: tags.Tag, control: ET.Element) -> tuple[tuple[str, ...], ClassNames]:
    """Return the labels inside an element as results spell them, and the classes that they cover.

    `control` is the tag that uses the labels; it may be another tag than `element`.

    Label Studio writes a label's alias into results where it has one, else its value. A label covers the classes in
    its predicted_values, its own value and its alias; predicted_values win. A path covers its last name where no other
    path ends in that name. A label written twice counts once.
    """
    own: list[Claim] = []
    predicted: list[Claim] = []
    written = _written(element, tag, control)
    for label, attributes in written:
        names = (label,) if tag.tree else (attributes.get("alias", ""), attributes.get("value", ""))
        own += [(name, label) for name in names if name]
        values = map(str.strip, attributes.get("predicted_values", "").split(","))
        predicted += [(name, label) for name in values if name]
    labels = tuple(dict.fromkeys(label for label, _ in written))
    return labels, class_names.match([predicted, own, _ends(labels) if tag.tree else ()])


def contested(element: ET.Element, classes: ClassNames) -> Iterator[str]:
    """Yield warnings about classes of a base model that several labels claim, so that none of them gets the class."""
    for name, labels in list(classes.contested.items())[:MOST_NAMED]:
        named = " or ".join(repr(label[:80]) for label in labels[:MOST_NAMED])
        yield (
            f"{spell(element)}: a class {name[:80]!r} of a base model could be {named}, so no label gets it. "
            "Fix: write it into the predicted_values of one label"
        )
    if len(classes.contested) > MOST_NAMED:
        yield f"{spell(element)}: {len(classes.contested) - MOST_NAMED} more classes could be several labels"


def points_of(element: ET.Element, tag: tags.Tag, control: ET.Element) -> tuple[str, ...]:
    """Return the labels of a skeleton's points inside an element, in the order of model_index, else in the config's.

    The predicted_values of all points name the class of the object, as in configs for HumanSignal's YOLO backend.
    """
    written = _written(element, tag, control)
    labels = tuple(dict.fromkeys(label for label, _ in written))
    if len(labels) > MOST_POINTS:
        problem = f"{spell(control)} has {len(labels)} points, and a skeleton has at most {MOST_POINTS}"
        raise LabelConfigError(problem, where=WHERE, fix=f"remove some, {skip(control)}")
    indices = [attributes.get("model_index", "").strip() for _, attributes in written]
    if not any(indices):
        return labels
    if sorted(indices) != sorted(str(index) for index in range(len(labels))):
        why = f"does not number the {len(labels)} labels from 0"
        raise refuse(control, "model_index", ", ".join(indices), why, "give each label its own, or none any")
    return tuple(label for _, label in sorted(zip(map(int, indices), labels, strict=True)))


def prompts_of(element: ET.Element, tag: tags.Tag, control: ET.Element) -> tuple[str, ...]:
    """Return what each label asks of an open-vocabulary model: its attribute `prompt`, else its value."""
    prompts: dict[str, str] = {}
    for label, attributes in _written(element, tag, control):
        prompt = attributes.get("prompt", "").strip() or attributes.get("value", "") or label
        prompts.setdefault(label, _checked(prompt, control))
    return tuple(prompts.values())


def objects_of(element: ET.Element, tag: tags.Tag, control: ET.Element) -> tuple[tuple[str, ...], ClassNames]:
    """Return the only label of objects that are drawn as points without boxes, and the classes that it covers.

    They are the predicted_values of the points, else the class of ultralytics' base weights.
    """
    written = [attributes.get("predicted_values", "").split(",") for _, attributes in _written(element, tag, control)]
    named = {name.strip() for names in written for name in names} - {""}
    return (OBJECT,), class_names.match([[(name, OBJECT) for name in sorted(named or {POSE_CLASS})]])


def unnamed(control: ET.Element) -> tuple[tuple[str, ...], ClassNames]:
    """Return the only label of shapes that have no labels, and the classes in the tag's own predicted_values."""
    names = map(str.strip, attributes_of(control).get("predicted_values", "").split(","))
    return (OBJECT,), class_names.match([[(name, OBJECT) for name in names if name]])


def repeated(element: ET.Element, tag: tags.Tag, control: ET.Element) -> list[str]:
    """Return a warning for each label of a skeleton's points that is written several times."""
    written = Counter(label for label, _ in _written(element, tag, control))
    return [
        f"{spell(control)}: the label {label!r} is written {count} times and is one point. Fix: name each by itself"
        for label, count in written.items()
        if count > 1
    ]


def _written(element: ET.Element, tag: tags.Tag, control: ET.Element) -> Sequence[tuple[str, Mapping[str, str]]]:
    """Return the labels as results spell them, each with its attributes; raises LabelConfigError for none."""
    entries = _paths(element) if tag.tree else ((node, ()) for node in inside(element, tag.label_tag))
    leaves = tag.tree and attributes_of(element).get("leafsonly", "").strip().lower() == "true"
    labels = []
    for node, above in entries:
        attributes = attributes_of(node)
        name = attributes.get("alias", "") or attributes.get("value", "")
        if name and not (leaves and _has_choices(node)):
            labels.append((_checked(joined((*above, name)), control), attributes))
        if len(labels) > MOST_LABELS:
            problem = f"{spell(control)} has more than {MOST_LABELS} labels"
            raise LabelConfigError(problem, where=WHERE, fix=f"remove some, {skip(control)}")
    of_tasks = (element is control or tag.labels_beside) and tag.task({}) != "pose"
    if not labels and not (of_tasks and task_labels.key_of(element, tag)):
        value = attributes_of(element).get("value", "")
        problem = f'takes its labels from the task (value="{value:.80}")' if value else "has no labels"
        fix = f"put {tag.label_tag} tags with a value into it, {skip(control)}"
        raise LabelConfigError(f"{spell(element)} {problem}", where=WHERE, fix=fix)
    return labels


def _checked(label: str, control: ET.Element) -> str:
    if len(label) > MOST_LETTERS:
        problem = (
            f"{spell(control)} has a label of {len(label)} characters, {label[:40]!r}..., and {MOST_LETTERS} are read"
        )
        raise LabelConfigError(problem, where=WHERE, fix=f"shorten it, {skip(control)}")
    return label


def _has_choices(node: ET.Element) -> bool:
    return any(inner.tag.lower() == "choice" for child in node for inner in child.iter())


def _paths(element: ET.Element, above: tuple[str, ...] = ()) -> Iterator[tuple[ET.Element, tuple[str, ...]]]:
    """Yield the choices of a tree, each with the names above it."""
    for node in element:
        attributes = attributes_of(node)
        name = attributes.get("alias", "") or attributes.get("value", "")
        if SEPARATOR in name:
            raise refuse(node, "value", name, f"holds {SEPARATOR!r}, which separates the names of a path", "rename it")
        if node.tag.lower() == "choice":
            yield node, above
        yield from _paths(node, (*above, name) if name else above)


def _ends(labels: Sequence[str]) -> list[Claim]:
    """Return each path's last name, for last names that only one path has, with the path."""
    ends = [label.rpartition(SEPARATOR)[2] for label in labels]
    paths = Counter(map(class_names.fold, ends))
    return [(end, label) for end, label in zip(ends, labels, strict=True) if paths[class_names.fold(end)] == 1]
