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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from backend.errors import LabelConfigError
from backend.labelstudio import (
    control_tags,
    label_xml,
    left_alone,
    model_owners,
    region_choices,
    skeletons,
    smart_prompts,
    tags,
)
from backend.labelstudio.label_xml import WHERE, Tree, attributes_of, is_true, read, refuse, spell
from backend.labelstudio.left_alone import Surroundings
from backend.labelstudio.skeletons import Skeletons
from backend.types import ControlTag

MOST_TAGS = 50  # each has a model of its own
MOST_NAMED = 3  # control tags that an error lists
_PARSED = 32  # label configs in the cache: every request brings one


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The control tags that we support, in the config's order, warnings about tags that we leave alone, and prompts."""

    tags: tuple[ControlTag, ...]
    warnings: tuple[str, ...]
    smart: frozenset[str]  # the names of control tags whose regions are prompts for another


def parse(label_config: str) -> tuple[ControlTag, ...]:
    """Return the control tags that we support, in the config's order, without those that say model_skip="true".

    A tag that we cannot use as it stands is left out, as long as another tag is usable. Raises LabelConfigError when
    the config is not XML, is too large, or has no usable tag.
    """
    return checked(label_config).tags


def warnings(label_config: str) -> tuple[str, ...]:
    """Return the warnings about a usable label config; raises LabelConfigError as `parse`."""
    return checked(label_config).warnings


def is_smart(label_config: str) -> bool:
    """Return whether a control tag has smart="true" or smartOnly="true"; False for a config that cannot be used."""
    try:
        return bool(checked(label_config).smart)
    except LabelConfigError:
        return False  # /setup says why


@lru_cache(_PARSED)
def checked(label_config: str) -> LabelConfig:
    """Read a label config, once for each text; raises LabelConfigError as `parse`."""
    tree = read(label_config)
    skeleton_tags = skeletons.find(tree)
    around = left_alone.look_around(tree, skeleton_tags)
    usable: list[ControlTag] = []
    errors: list[LabelConfigError] = []
    notes: list[str] = []
    names = Counter(attributes_of(element).get("name", "") for element in tree.root.iter())
    active, skipped = _controls(tree, around)
    for element in active:
        try:
            if len(usable) == MOST_TAGS:
                raise _one_too_many(element)
            tag, warnings_of_tag = _read(element, tree, skeleton_tags, names)
        except LabelConfigError as error:
            errors.append(error)
            continue
        usable.append(tag)
        notes += warnings_of_tag
    if not usable:
        raise errors[0]
    controls = dict(_all_controls(tree))
    smart = smart_prompts.smart_controls(tree)
    held = smart_prompts.holders(usable, smart)
    owning, shared = model_owners.owners(held)
    owning, without_boxes = region_choices.with_boxes(owning)
    owning, answers = model_owners.related(owning, [*held, *_drawing(skipped, tree, skeleton_tags, names)])
    shared += [*without_boxes, *answers, *smart_prompts.without_model(tree, usable, held)]
    unusable = [f"this control tag is left alone: {error.what}. Fix: {error.fix}" for error in errors]
    unanswered = [
        f'this control tag is left alone: {reason}. Fix: model_skip="true" on it hides this line'
        for reason in left_alone.reasons(around)
    ]
    about = (*unusable, *shared, *notes, *unanswered)
    return LabelConfig(tuple(replace(tag, controls=controls) for tag in owning), about, smart)


def _read(
    element: ET.Element, tree: Tree, skeleton_tags: Skeletons, names: Mapping[str, int]
) -> tuple[ControlTag, list[str]]:
    """Return a control tag, and warnings about its labels; raises LabelConfigError if it cannot be used.

    `names` says how many tags have a name.
    """
    tag, warnings_of_tag = control_tags.read(element, tree, skeleton_tags)
    if names[tag.from_name] > 1:
        raise refuse(element, "name", tag.from_name, "is the name of several tags", "give each its own name")
    return tag, warnings_of_tag


def _drawing(
    skipped: Sequence[ET.Element], tree: Tree, skeleton_tags: Skeletons, names: Mapping[str, int]
) -> Iterator[ControlTag]:
    """Yield the skipped tags with which people draw: no model answers as one, but its objects are no background."""
    for element in skipped[:MOST_TAGS]:
        with suppress(LabelConfigError):  # it may be skipped because it cannot be used
            if not label_xml.is_smart(attributes_of(element)):  # those are rough
                yield _read(element, tree, skeleton_tags, names)[0]


def _all_controls(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield name and kind of each control tag, also of those that we do not support."""
    for element in tree.root.iter():
        attributes = attributes_of(element)
        if attributes.get("name") and attributes.get("toname"):
            yield attributes["name"], element.tag.lower()


def _controls(tree: Tree, around: Surroundings) -> tuple[list[ET.Element], list[ET.Element]]:
    """Return the supported control tags, and those that are skipped; raises LabelConfigError if no other is left."""
    supported = tags.registry()
    controls = [
        element
        for element in tree.root.iter()
        if element.tag.lower() in supported
        and not left_alone.is_part(element, around)
        and not left_alone.reason(element, around)
    ]
    if not controls:
        raise _no_control(around)
    active = [element for element in controls if not _skips(element)]
    if not active:
        raise LabelConfigError(
            "every supported control tag is skipped",
            where=WHERE,
            fix=f'remove model_skip="true" from {" or ".join(map(spell, controls[:3]))}',
        )
    active.sort(key=_is_of_whole_image)  # choices come last: beside boxes they are mostly remarks
    return active, [element for element in controls if _skips(element)]


def _skips(element: ET.Element) -> bool:
    """Return whether a control tag is skipped; `control_tags.read` refuses a value that is neither true nor false."""
    return is_true(attributes_of(element), "model_skip", default=False)


def _one_too_many(element: ET.Element) -> LabelConfigError:
    problem = f"{spell(element)} would need a model, and only the first {MOST_TAGS} control tags get one"
    return LabelConfigError(problem, where=WHERE, fix='set model_skip="true" on those that need no model')


def _no_control(around: Surroundings) -> LabelConfigError:
    reasons = "; ".join(islice(left_alone.reasons(around), MOST_NAMED))
    return LabelConfigError(
        f"no control tag that this backend can predict{': ' if reasons else ''}{reasons}",
        where=WHERE,
        fix='add a RectangleLabels tag with name="label", with toName="image" and with Label tags inside it, beside an '
        f'Image tag with name="image" and value="$image"; or one of {", ".join(_names())}',
    )


def _names() -> Iterator[str]:
    return (tag.name for tag in tags.registry().values() if not tag.unanswered)


def _is_of_whole_image(element: ET.Element) -> bool:
    return tags.get(element.tag.lower()).label_tag == "Choice"


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
        rate = tag.frame_rate_key or tag.frame_rate
        sizes = sorted(
            attribute for attribute in tag.attributes.items() if attribute[0].startswith("model_classifier_")
        )
        return [rate, float(tag.attributes.get("model_every", 0)), *sizes]
    teachers = [sorted(teacher.from_name for teacher in tag.teachers)] if tag.teachers else []
    beyond = [tag.task, tag.multiple, tag.parent, list(tag.points), *filter(None, [tag.regions_of])]
    return [*(beyond if tag.task != "detect" else []), *teachers]
