"""Control tags that Label Studio's editor hides: visibleWhen on a View, on Choices or on a Taxonomy.

A hidden control tag was not asked, so a missing answer means nothing, and a prediction has no answer either. Results
keep the regions of hidden tags, because the editor drops hidden choices only. They count as not drawn.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labelstudio import regions
from backend.labelstudio.label_xml import Tree, attributes_of, inside
from backend.types import Condition, ControlTag, Region

_WITH_CONDITIONS = ("view", "choices", "taxonomy")  # of the tags that we know, those that the editor can hide
_CHOSEN, _UNCHOSEN, _SELECTED = "choice-selected", "choice-unselected", "region-selected"
_QUESTIONS = ("choices", "taxonomy")
_NO_REGIONS = (*_QUESTIONS, "textarea", "rating", "number", "datetime", "pairwise", "ranker")
_LABEL_KEYS = {"videorectangle": "labels"}  # where the labels of a region are not under its type

Item = Mapping[str, Any]


def conditions(element: ET.Element, tree: Tree) -> tuple[Condition, ...]:
    """Return all that must hold before the editor shows a control tag: conditions of its own and of the tags above.

    A condition on a tag that the config lacks, or that has no answers of the condition's kind, is left out.
    """
    above: list[Condition] = []
    node: ET.Element | None = element
    while node is not None:
        above += _of(node, tree)
        node = tree.parents.get(node)
    return tuple(above)


def _of(node: ET.Element, tree: Tree) -> Iterator[Condition]:
    attributes = attributes_of(node)
    if node.tag.lower() not in _WITH_CONDITIONS:
        return
    kind, name = attributes.get("visiblewhen", ""), attributes.get("whentagname", "")
    choices, labels = (attributes.get(value, "") for value in ("whenchoicevalue", "whenlabelvalue"))
    decider = tree.named.get(name)
    if name and decider is None:
        return
    if kind in (_CHOSEN, _UNCHOSEN) and (decider is None or decider.tag.lower() in _QUESTIONS):
        # Without a tag, any answer counts.
        values = _spelled(decider, choices.split(",")) if decider is not None and choices else ()
        yield Condition(kind, name, values)
    elif kind == _SELECTED and (decider is None or decider.tag.lower() not in _NO_REGIONS):
        yield Condition(kind, name, tuple(labels.split(",")) if labels else ())
    elif not kind and choices:
        yield Condition(_CHOSEN, "", (choices,))


def _spelled(decider: ET.Element, values: Sequence[str]) -> tuple[str, ...]:
    """Return values as results spell them: a choice with an alias is known by the alias."""
    choices = [attributes_of(choice) for choice in inside(decider, "Choice")]
    aliases = {choice.get("value", ""): choice.get("alias", "") for choice in choices}
    return tuple(aliases.get(value, "") or value for value in values)


def is_hidden(tag: ControlTag, result: Iterable[Any]) -> bool:
    """Return whether the editor hides a control tag in an annotation; a region counts as selected, if there is one."""
    if not tag.conditions:
        return False
    items = [item for item in result if isinstance(item, Mapping)]
    return not all(_holds(condition, items) for condition in tag.conditions)


def visible(
    tags: Sequence[ControlTag], deciding: Collection[str], answers: Sequence[Sequence[Region]]
) -> tuple[Region, ...]:
    """Return the regions of a prediction, given per tag, without those of tags that the prediction itself hides.

    Only the tags in `deciding` hide others: nobody knows yet what people will answer to the rest.
    """
    if not any(tag.conditions for tag in tags):
        return tuple(region for regions_of_tag in answers for region in regions_of_tag)
    items = {tag.from_name: [region.as_json() for region in of_tag] for tag, of_tag in zip(tags, answers, strict=True)}
    task_answers = _AnswersOfTask({tag.from_name: tag for tag in tags}, deciding, items)
    shown = (of_tag for tag, of_tag in zip(tags, answers, strict=True) if not task_answers.hides(tag))
    return tuple(region for of_tag in shown for region in of_tag)


@dataclass(frozen=True, slots=True)
class _AnswersOfTask:
    """The answers of all control tags to one task, by the tags' names."""

    tags: Mapping[str, ControlTag]
    deciding: Collection[str]
    items: Mapping[str, Sequence[Item]]

    def hides(self, tag: ControlTag, waiting: tuple[str, ...] = ()) -> bool:
        """Return whether the answers hide a tag; a hidden tag counts as not answered.

        Tags in `waiting` depend on this answer. They decide nothing about it.
        """
        for condition in tag.conditions:
            deciders = self._deciders(tag, condition)
            if not deciders or deciders & {tag.from_name, *waiting}:
                continue
            shown = [name for name in deciders if not self.hides(self.tags[name], (*waiting, tag.from_name))]
            if not _holds(condition, [item for name in shown for item in self.items[name]]):
                return True
        return False

    def _deciders(self, tag: ControlTag, condition: Condition) -> set[str]:
        """Return the tags whose answers decide a condition; empty if that needs another tag too."""
        about_regions = condition.kind == _SELECTED
        names = {condition.control} - {""} or {
            name
            for name, kind in tag.controls.items()
            if (kind not in _NO_REGIONS if about_regions else kind in _QUESTIONS)
        }
        answering = {name: owner for owner, other in self.tags.items() for name in _names(other)}
        owners = {answering[name] for name in names if name in answering}
        complete = bool(owners) if condition.control else names <= answering.keys()
        return owners if complete and owners <= set(self.deciding) else set()


def _names(tag: ControlTag) -> set[str]:
    """Return the names under which results have the regions of a tag."""
    return {tag.from_name, tag.parent, tag.labels_from} - {""}


def _holds(condition: Condition, items: Sequence[Item]) -> bool:
    if condition.kind == _SELECTED:
        return any(
            _has(item, condition) for item in items if item.get("type") not in _NO_REGIONS and _is_of(item, condition)
        )
    chosen = any(_has(item, condition) for item in items if item.get("type") in _QUESTIONS and _is_of(item, condition))
    return chosen if condition.kind == _CHOSEN else not chosen


def _is_of(item: Item, condition: Condition) -> bool:
    """Return whether an item is of the deciding tag; a VideoRectangle has no entry of the Labels beside it."""
    return condition.control in ("", item.get("from_name")) or item.get("type") in _LABEL_KEYS


def _has(item: Item, condition: Condition) -> bool:
    """Return whether an item has one of a condition's values, or any value where it names none."""
    kind = str(item.get("type"))
    labels = regions.labels_of(item, _LABEL_KEYS.get(kind, kind))
    answers = [label[-1] if isinstance(label, list) and label else label for label in labels]
    return any(answer in condition.values for answer in answers) if condition.values else bool(labels)
