"""A label config as XML: its elements, their attributes in any case, and error messages about them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.errors import LabelConfigError

WHERE = "label config of the project"
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")  # as attributes of models say it
OBJECTS = frozenset(  # the tags that show a part of a task, as Label Studio's editor registers them
    {
        "audio",
        "audioplus",
        "chat",
        "custominterface",
        "hypertext",
        "image",
        "list",
        "paragraphs",
        "pdf",
        "table",
        "text",
    }
    | {"timeseries", "video"}
)
MOST_CHARACTERS = 1_000_000
MOST_DEPTH = 100  # of tags inside tags
_MOST_SHOWN = 80  # characters of a value in a message


class _Builder(ET.TreeBuilder):
    """Refuses, while the text is parsed, a DOCTYPE (its entities can fill the memory) and tags nested too deep."""

    depth = 0

    def doctype(self, name: str, *_: str | None) -> None:
        """Raise LabelConfigError."""
        raise LabelConfigError(f"a DOCTYPE ({name:.80}) is not allowed", where=WHERE, fix="remove the DOCTYPE")

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        """Open an element; raises LabelConfigError for one nested too deep."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise LabelConfigError(f"tags are nested more than {MOST_DEPTH} deep", where=WHERE, fix="nest them less")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        """Close an element."""
        self.depth -= 1
        return super().end(tag)


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed label config: its elements by their tag in lower case and by their name, and the elements above them."""

    root: ET.Element
    by_tag: Mapping[str, Sequence[ET.Element]]
    named: Mapping[str, ET.Element]  # of several elements with one name, the first
    objects: Mapping[str, ET.Element]  # the object tags among them
    parents: Mapping[ET.Element, ET.Element]

    def nodes(self, tag: str) -> Sequence[ET.Element]:
        """Return all elements of a tag, in the config's order."""
        return self.by_tag.get(tag.lower(), ())


def read(label_config: str) -> Tree:
    """Return a label config as a tree; raises LabelConfigError for what is not XML, too large or too deep."""
    if len(label_config) > MOST_CHARACTERS:
        reason = f"the label config has {len(label_config)} characters, and at most {MOST_CHARACTERS} are read"
        raise LabelConfigError(reason, where=WHERE, fix="shorten it")
    parser = ET.XMLParser(target=_Builder())  # noqa: S314  entities need a DOCTYPE, which the builder refuses
    try:
        parser.feed(label_config.strip())
        root: ET.Element = parser.close()
    except (ET.ParseError, UnicodeError) as error:
        problem = f"not XML: {error}" if label_config.strip() else "the label config is empty"
        raise LabelConfigError(problem, where=WHERE, fix="set one up under Settings, Labeling interface") from None
    by_tag: dict[str, list[ET.Element]] = {}
    for element in root.iter():
        by_tag.setdefault(element.tag.lower(), []).append(element)
    named: dict[str, ET.Element] = {}
    for element in root.iter():
        if name := attributes_of(element).get("name"):
            named.setdefault(name, element)
    objects = {name: element for name, element in named.items() if element.tag.lower() in OBJECTS}
    return Tree(root, by_tag, named, objects, {child: parent for parent in root.iter() for child in parent})


def inside(element: ET.Element, tag: str) -> Iterator[ET.Element]:
    """Yield the element and all elements inside it that have this tag."""
    return (node for node in element.iter() if node.tag.lower() == tag.lower())


def attributes_of(element: ET.Element) -> dict[str, str]:
    """Return the attributes of an element, their names in lower case."""
    return {name.lower(): value for name, value in element.attrib.items()}


def is_true(attributes: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return whether an attribute is true, `default` where it is missing; a value that is no word for true is false."""
    return attributes[name].strip().lower() in TRUE if name in attributes else default


def is_smart(attributes: Mapping[str, str]) -> bool:
    """Return whether a control tag says that its regions are prompts, for Label Studio's smart tools."""
    return any(is_true(attributes, name, default=False) for name in ("smart", "smartonly"))


def spell(element: ET.Element) -> str:
    """Return an element's tag and name for messages, without angle brackets, which Label Studio would remove."""
    name = attributes_of(element).get("name", "")
    return f'{element.tag:.40} "{name:.80}"' if name else f"a {element.tag:.40} without a name"


def skip(control: ET.Element) -> str:
    """Return the end of an error's fix: how to leave a control tag alone."""
    return f'or set model_skip="true" on {spell(control)}'


def refuse(element: ET.Element, attribute: str, value: str, why: str, fix: str) -> LabelConfigError:
    """Return the error about an attribute's value that cannot be used."""
    shown = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
    return LabelConfigError(f'{spell(element)}: {attribute}="{shown}" {why}', where=WHERE, fix=fix)


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
        reason = f"is not a number {'above 0, up' if above_zero else 'from 0'} to {most:g}"
        raise refuse(element, name, value, reason, f"write one, e.g. {most / 2:g}")
    return number
