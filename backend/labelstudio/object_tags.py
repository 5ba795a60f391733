"""The object tag, an Image or a Video, that a control tag is about, and what it shows of a task's data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from backend.labelstudio import tags, task_fields
from backend.labelstudio.label_xml import Tree, attributes_of, refuse, skip, spell

# Label Studio's placeholder for files that were uploaded before the config had a field for them.
_PLACEHOLDER = "$undefined$"


def names(element: ET.Element) -> list[str]:
    """Return the names in the toName of a control tag."""
    return [name.strip() for name in attributes_of(element).get("toname", "").split(",")]


def find(element: ET.Element, tree: Tree, tag: tags.Tag) -> ET.Element:
    """Return the object tag of a control tag; raises LabelConfigError where there is none of the right kind.

    Of a question about several images it is the first one.
    """
    first, *others = names(element)
    written = attributes_of(element).get("toname", "")
    if others and tag.label_tag != "Choice":
        fix = f"write a {tag.name} for each {tag.object_name}, with its name as toName, {skip(element)}"
        raise refuse(
            element, "toName", written, f"names several tags, and regions are drawn on one {tag.object_name}", fix
        )
    target = tree.objects.get(first)
    if target is None or target.tag.lower() != tag.object_name.lower():
        there = [name for name, node in tree.objects.items() if node.tag.lower() == tag.object_name.lower()]
        fix = f"write the name of the {tag.object_name} tag ({', '.join(there) or 'none yet':.200}), {skip(element)}"
        raise refuse(element, "toName", written, f"is the name of no {tag.object_name} tag", fix)
    return target


def data_key(target: ET.Element, element: ET.Element) -> str:
    """Return what an object tag shows of a task, as a field of `task_fields`; raises LabelConfigError."""
    attributes = attributes_of(target)
    name = "valueList" if has_pages(target) else "value"
    fix = f'write value="$image" with the task field that holds one file, {skip(element)}'
    value = attributes.get(name.lower(), "").strip()
    if not task_fields.VARIABLE.search(value) or value == _PLACEHOLDER:
        raise refuse(target, name, value, "does not name a field of the task", fix)
    # Label Studio imports a field with a space in its name, though the editor does not show it.
    plain = re.fullmatch(r"\$([^${}\[\]]+)", value)
    return plain[1] if plain else task_fields.field(value)


def has_pages(target: ET.Element) -> bool:
    """Return whether an object tag shows several images of a task."""
    return target.tag.lower() == "image" and bool(attributes_of(target).get("valuelist"))


def several(element: ET.Element, target: ET.Element) -> list[str]:
    """Return a warning about a question that is about several images, of which the model sees one."""
    if len(names(element)) == 1:
        return []
    return [
        f"{spell(element)} is about several images, and its model sees the first one only: {spell(target)}. Fix: write "
        "one name as toName, because the editor of Label Studio stores no answer about several images"
    ]
