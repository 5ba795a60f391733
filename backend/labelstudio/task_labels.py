"""Labels that each task names itself, by value="$labels" on a control tag.

A project's labels are those that its annotated tasks have named so far. They stand in the label config that the store
keeps, as if somebody had written them there. A prediction has the labels of its own task alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from backend.errors import LabelConfigError
from backend.labelstudio import class_names, tags, task_fields
from backend.labelstudio.label_xml import Tree, attributes_of, inside, read
from backend.types import ControlTag, Task

_MARK = "from_task"  # attribute of the labels that we add


def key_of(holder: ET.Element, tag: tags.Tag) -> str:
    """Return the field with a task's labels, as in `task_fields`; empty for a tag whose labels stand in the config.

    Label Studio imports no predictions with a task's labels if the config has some as well.
    """
    value = attributes_of(holder).get("value", "").strip()
    if tag.tree or not task_fields.VARIABLE.fullmatch(value):
        return ""
    written = any(_MARK not in node.attrib for node in inside(holder, tag.label_tag))
    return "" if written else task_fields.field(value)


def of_data(key: str, task: Task) -> list[str]:
    """Return the labels that a task names, as results spell them: the alias of a label, else its value."""
    named = task_fields.shown(task, key)
    listed = named if isinstance(named, list) else []
    entries = [entry if isinstance(entry, Mapping) else {"value": entry} for entry in listed]
    labels = [entry.get("alias") or entry.get("value") for entry in entries]
    return list(dict.fromkeys(label for label in labels if isinstance(label, str) and label))


def of_task(tag: ControlTag, task: Task | None) -> ControlTag:
    """Return a tag as a task shows it: with the labels that the task names, if it names some itself."""
    if not tag.labels_key or task is None:
        return tag
    labels = of_data(tag.labels_key, task)
    classes = class_names.match([[(label, label) for label in labels]])
    return replace(
        tag, labels=tuple(labels), class_to_label=classes.folded, exact_class_to_label=classes.exact, labels_key=""
    )


def learned(label_config: str, tasks: Iterable[Task]) -> str:
    """Return a label config with all labels that tasks name, in addition to those that it has."""
    tree, named = read(label_config), list(tasks)
    found = {holder: [label for task in named for label in of_data(key, task)] for holder, _, key in _dynamic(tree)}
    return _with_labels(label_config, tree, found)


def expanded(label_config: str, earlier: str) -> str:
    """Return a label config with the labels of tasks that an earlier text of the same config has.

    A text that is not XML is returned as it is.
    """
    try:
        tree, before = read(label_config), read(earlier)
    except LabelConfigError:
        return label_config
    labels_of_config = {
        (attributes_of(holder).get("name"), key): [node.attrib["value"] for node in inside(holder, tag.label_tag)]
        for holder, tag, key in _dynamic(before)
    }
    added = {
        holder: labels_of_config.get((attributes_of(holder).get("name"), key), []) for holder, _, key in _dynamic(tree)
    }
    return _with_labels(label_config, tree, added)


def _dynamic(tree: Tree) -> Iterator[tuple[ET.Element, tags.Tag, str]]:
    """Yield each element whose labels the tasks name, with its tag, and the field that has them."""
    kinds = {(tag.labels_beside or tag.name).lower(): tag for tag in tags.registry().values()}
    for kind, tag in kinds.items():
        for element in tree.nodes(kind):
            if key := key_of(element, tag):
                yield element, tag, key


def _with_labels(label_config: str, tree: Tree, labels: Mapping[ET.Element, list[str]]) -> str:
    kinds = {(tag.labels_beside or tag.name).lower(): tag for tag in tags.registry().values()}
    changed = False
    for holder, names in labels.items():
        tag = kinds[holder.tag.lower()]
        present = {node.attrib.get("value") for node in inside(holder, tag.label_tag)}
        for name in sorted(set(names) - present):
            ET.SubElement(holder, tag.label_tag, {"value": name, _MARK: "true"})
            changed = True
    return ET.tostring(tree.root, encoding="unicode") if changed else label_config
