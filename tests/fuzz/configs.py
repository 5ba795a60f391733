"""Label configs with random changes: each is read, or refused with a cure in words that Label Studio can show."""

from __future__ import annotations

import copy
import random
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from backend.errors import LabelConfigError, SettingError
from backend.labelstudio import label_config, region_choices
from backend.loop.extra_params import for_project
from backend.settings import Settings
from backend.web.reason import reason_of
from tests.fuzz import Report, measure
from tests.kinds import ALL_KINDS
from tests.support import CONFIG, ROOT

PIECES = (
    *('"', "'", "<", ">", "/>", "</", "&", "&amp;", "&#0;", "&#x110000;", "&nope;", "<!--", "-->", "<![CDATA[", "]]>"),
    *("<!DOCTYPE a>", "<?xml version='1.1'?>", "\x00", "\ud800", "\u202e", "\U0001f600", "é", "{{idx}}", "$", "$$"),
    *('value="$image"', 'value="$a.b"', 'value="$a[0]"', 'valueList="$images"', 'name="label"', 'name=""', 'toName=""'),
    *('toName="image"', 'choice="single"', 'choice="multiple"', 'perRegion="true"', 'model_skip="true"'),
    *('model_skip="maybe"', 'model_index="0"', 'model_index="-1"', 'alias="a"', 'alias=" > "', 'predicted_values=",a"'),
    *(
        'model_obb="true"',
        'model_conf="nan"',
        'model_conf="1e999"',
        'model_every="0"',
        'frameRate="-0"',
        'frameRate="∞"',
    ),
    *('botsort_x="1"', 'model_path="../a.pt"', 'model_score_threshold="1e-400"', 'maxUsages="9e9"', 'leafsOnly="true"'),
    *(
        '<Label value="cat"/>',
        "<Label/>",
        '<Choice value="a"/>',
        "<Labels>",
        "<Image/>",
        "<Video/>",
        "<View>",
        "</View>",
    ),
    *(
        'frameRate="$fps"',
        'value="$labels"',
        'value="http://a/$b[0].c"',
        'perItem="true"',
        'visibleWhen="choice-selected"',
    ),
    *('visibleWhen="region-selected"', 'whenTagName="label"', 'whenChoiceValue="a,b"', 'whenLabelValue="cat"'),
    *('<Repeater on="$images">', "</Repeater>", 'toName="image,b"'),
    *('<RectangleLabels name="r" toName="image">', "</RectangleLabels>", '<Video name="video" value="$video"/>'),
    *('<KeyPointLabels name="p" toName="image">', "</KeyPointLabels>", '<Taxonomy name="t" toName="image">'),
)
SETTINGS = (
    *('{"SEED": -1}', '{"BATCH": 1000000000}', '{"TRAIN_STEPS": 1e18}', '{"IMGSZ": true}', '{"RATE": "5%, 100/day"}'),
    *('{"LABEL_RENAMES": "a -> b"}', '{"STRATEGY": "entropy"}', '{"VAL_SHARE": 0.5}', "[]", "null", '{"A": [[[]]]}'),
)
LONGEST = 200_000


def run(cases: int, seed: int) -> Report:
    """Read changed label configs, each with changed extra params."""
    draw = random.Random(seed)
    return measure(mutated(cases, draw), _read)


def examples() -> list[str]:
    return [CONFIG, *(kind.label_config() for kind in ALL_KINDS.values()), *_files()]


def _files() -> Iterator[str]:
    for path in sorted((ROOT / "label_config").glob("*.xml")):
        yield path.read_text(encoding="utf-8")


def mutated(cases: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Yield a label config and extra params, with one to eight changes each."""
    configs = examples()
    for _ in range(cases):
        text, settings = draw.choice(configs), draw.choice(SETTINGS)
        by_letter = draw.random() < 0.4
        for _ in range(draw.randint(1, 8)):
            text = (changed(text, draw, PIECES, configs) if by_letter else rebuilt(text, draw, configs))[:LONGEST]
            settings = changed(settings, draw, ("[" * 3000, "9" * 5000, "NaN", "1e999", "-", '"', ":"), SETTINGS)
        yield text, settings[:LONGEST]


def rebuilt(text: str, draw: random.Random, others: list[str]) -> str:
    """Return a config that is still XML: one attribute changed, or one element removed, moved, repeated or renamed."""
    root = ET.fromstring(text)
    nodes, strangers = list(root.iter()), list(ET.fromstring(draw.choice(others)).iter())
    node, other, stranger = draw.choice(nodes), draw.choice(nodes), draw.choice(strangers)
    chance = draw.random()
    if chance < 0.5:
        name, _, value = draw.choice(
            [piece for piece in PIECES if piece.count('"') == 2 and "=" in piece][1:]
        ).partition("=")
        node.set(name if " " not in name else "value", value.strip('"/>'))
    elif chance < 0.6 and node.attrib:
        del node.attrib[draw.choice(list(node.attrib))]
    elif chance < 0.7:
        node.extend([copy.deepcopy(stranger)] * draw.choice((1, 1, 2, 60)))
    elif chance < 0.8:
        for child in list(node)[: draw.randint(0, 2)]:
            node.remove(child)
    elif chance < 0.9:
        node.append(copy.deepcopy(other))
    else:
        node.tag = stranger.tag
    return ET.tostring(root, encoding="unicode")


def changed(text: str, draw: random.Random, pieces: tuple[str, ...], others: list[str] | tuple[str, ...]) -> str:
    """Return a text with one change: a piece added, a part removed, repeated or replaced, or a letter changed."""
    at = draw.randint(0, len(text))
    end = min(len(text), at + draw.choice((1, 3, 30, 300)))
    other = draw.choice(others)
    start = draw.randint(0, len(other))
    return draw.choice(
        (
            text[:at] + draw.choice(pieces) + text[at:],
            text[:at] + " " + draw.choice(pieces) + " " + text[end:],
            text[:at] + text[end:],
            text[:at] + text[at:end] * draw.choice((2, 10, 300)) + text[end:],
            text[:at] + other[start : start + 200] + text[end:],
            text[:at] + chr(draw.choice((draw.randint(0, 255), draw.randint(0, 0x10FFFF)))) + text[at:],
        )
    )


def _read(case: object) -> str:
    assert isinstance(case, tuple)
    text, settings = case
    try:
        for_project(Settings(), settings)
    except SettingError as error:
        _check(error)
    label_config.checked.cache_clear()  # else the memory of the last configs would count, too
    try:
        config = label_config.checked(text)
        label_config.config_hash(text)
        asked = label_config.checked(region_choices.marked(text))  # as with REGION_CHOICES
    except LabelConfigError as error:
        _check(error)
        return "refused"
    assert config.tags
    assert {tag.regions_of for tag in asked.tags} <= {"", *(tag.from_name for tag in asked.tags if tag.ranks)}
    assert [tag for tag in asked.tags if tag.ranks] == list(config.tags)
    return "read with warnings" if config.warnings else "read"


def _check(error: LabelConfigError | SettingError) -> None:
    """Fail for a message without a cure, or one that Label Studio's page cannot show."""
    reason = reason_of(error)
    assert error.fix, error.what
    assert reason.isascii(), repr(reason)
    assert reason.isprintable(), repr(reason)
    assert len(reason) <= 500
    assert ". Reason: " in reason or "? Reason: " in reason or "! Reason: " in reason or reason.endswith("..."), reason
    assert not any(reason[place + 1 : place + 2].isalpha() for place, letter in enumerate(reason) if letter == "<"), (
        reason
    )
    assert len(str(error)) < 2000, str(error)[:200]
