"""A label config as XML: its elements and their attributes in any case, and how people are told of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from backend.errors import LabelConfigError

WHERE = "label config of the project"
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")  # as attributes of models say it
SKIP = 'or set model_skip="true" on this tag'  # in what an error says to do


class _Builder(ET.TreeBuilder):
    """Refuses a DOCTYPE before its entities are read: they can blow up memory or name files."""

    def doctype(self, name: str, *_: str | None) -> None:
        raise LabelConfigError(f"a DOCTYPE ({name}) is not allowed", where=WHERE, fix="remove the <!DOCTYPE ...> part")


def read(label_config: str) -> ET.Element:
    """Return the root of a label config; raises LabelConfigError for what is not XML, and for a DOCTYPE."""
    parser = ET.XMLParser(target=_Builder())  # noqa: S314  entities need a DOCTYPE, which the builder refuses
    try:
        parser.feed(label_config.strip())
        root: ET.Element = parser.close()
    except (ET.ParseError, UnicodeError) as error:
        problem = f"not XML: {error}" if label_config.strip() else "the label config is empty"
        raise LabelConfigError(problem, where=WHERE, fix="set one up under Settings, Labeling interface") from None
    return root


def nodes(root: ET.Element, name: str) -> list[ET.Element]:
    """Return all elements of a name, the root itself too."""
    return [node for node in root.iter() if node.tag.lower() == name.lower()]


def attributes_of(element: ET.Element) -> dict[str, str]:
    """Return the attributes of an element, their names in lower case."""
    return {name.lower(): value for name, value in element.attrib.items()}


def says(attributes: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return whether an attribute says yes; what is neither counts as no."""
    return attributes[name].strip().lower() in TRUE if name in attributes else default


def spell(element: ET.Element) -> str:
    """Return how people are told of an element."""
    return f'<{element.tag} name="{attributes_of(element).get("name", "")}">'


def refuse(element: ET.Element, attribute: str, value: str, why: str, fix: str) -> LabelConfigError:
    """Return the error of an attribute that cannot be used."""
    return LabelConfigError(f'{spell(element)}: {attribute}="{value}" {why}', where=WHERE, fix=fix)


def number_of(element: ET.Element, name: str, most: float, *, above_zero: bool = False) -> float | None:
    """Return a number from 0 to `most` among the attributes, None where there is none; raises LabelConfigError."""
    value = attributes_of(element).get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most or (above_zero and not number):
        what = f"is no number {'above 0, up' if above_zero else 'from 0'} to {most:g}"
        raise refuse(element, name, value, what, f"write one, e.g. {most / 2:g}")
    return number
