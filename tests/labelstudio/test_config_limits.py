"""The work for a label config or an annotation grows with its length, not with the square of its length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags
from backend.labelstudio.label_config import MOST_TAGS
from backend.labelstudio.label_names import MOST_LABELS, MOST_LETTERS
from backend.labelstudio.label_xml import MOST_CHARACTERS, MOST_DEPTH
from backend.types import Json
from tests.support import CONFIG


def calls(work: Callable[[], object]) -> int:
    """Return how many function calls `work` makes, by a profiler; the number is the same on every machine."""
    count = 0

    def count_call(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(count_call)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def skeletons(count: int) -> str:
    """Return a config of pairs of points and boxes; all but one are skipped, because at most MOST_TAGS are served."""
    pairs = (
        f'<KeyPointLabels name="p{n}" toName="image" model_skip="{"true" if n else "false"}"><Label value="nose"/>'
        f'</KeyPointLabels><RectangleLabels name="p{n}_bbox" toName="image" model_skip="{"true" if n else "false"}">'
        '<Label value="cat"/></RectangleLabels>'
        for n in range(count)
    )
    return f'<View><Image name="image" value="$image"/>{"".join(pairs)}</View>'


def images(count: int) -> str:
    """Return a config with tags of boxes, each on an image of its own."""
    pairs = (
        f'<Image name="i{n}" value="$i{n}"/><RectangleLabels name="b{n}" toName="i{n}"><Label value="cat"/>'
        "</RectangleLabels>"
        for n in range(count)
    )
    return f"<View>{''.join(pairs)}</View>"


def labels(count: int) -> str:
    written = "".join(f'<Label value="label {n}" predicted_values="a{n},b{n}"/>' for n in range(count))
    return CONFIG.replace('<Label value="cat"/>', written)


def paths(count: int) -> str:
    choices = "".join(f'<Choice value="a{n}"><Choice value="b"/></Choice>' for n in range(count))
    control = f'<Taxonomy name="t" toName="image" leafsOnly="true">{choices}</Taxonomy>'
    return f'<View><Image name="image" value="$image"/>{control}</View>'


@pytest.mark.parametrize("config", [skeletons, labels, paths], ids=lambda config: config.__name__)
def test_a_config_twice_as_long_is_twice_the_work(config: Callable[[int], str]) -> None:
    label_config.checked(config(3))  # fill the caches before counting
    less, more = (calls(lambda n=n: label_config.checked(config(n))) for n in (150, 300))  # type: ignore[misc]
    assert less > 300
    assert more < 2.5 * less


def test_a_config_is_read_once_for_each_text() -> None:
    text = images(MOST_TAGS)
    first = calls(lambda: label_config.parse(text))
    again = calls(lambda: [label_config.parse(text), label_config.config_hash(text), label_config.parse(text)])
    assert first > 1000
    assert again < first / 2


def test_the_number_of_tags_is_bound() -> None:
    assert len(label_config.parse(images(MOST_TAGS))) == MOST_TAGS
    more = label_config.checked(images(MOST_TAGS + 2))
    assert [tag.from_name for tag in more.tags] == [f"b{n}" for n in range(MOST_TAGS)], "the first ones are served"
    for number, warning in zip((MOST_TAGS, MOST_TAGS + 1), more.warnings, strict=True):
        assert f'"b{number}" would need a model' in warning
    assert "model_skip" in more.warnings[0]


def deep(count: int) -> str:
    choices = '<Choice value="a">' * count + "</Choice>" * count
    return f'<View><Image name="image" value="$image"/><Taxonomy name="t" toName="image">{choices}</Taxonomy></View>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (deep(2000), f"more than {MOST_DEPTH} deep"),
        ("<View>" * 10_000, "more than"),
        (CONFIG + " " * MOST_CHARACTERS, f"at most {MOST_CHARACTERS} are read"),
        (labels(MOST_LABELS + 1), f"has more than {MOST_LABELS} labels"),
        (CONFIG.replace('value="cat"', f'value="{"c" * 2000}"'), f"a label of 2000 characters.*and {MOST_LETTERS}"),
        (deep(MOST_DEPTH - 3).replace('"a"', f'"{"a" * 50}"'), "a label of"),
        ("<!DOCTYPE View [<!ENTITY a 'b'>]><View/>", "a DOCTYPE"),
    ],
    ids=["a taxonomy", "views", "length", "labels", "a label", "a path", "a doctype"],
)
def test_a_config_that_costs_too_much_is_refused(text: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message) as caught:
        label_config.parse(text)
    assert caught.value.fix
    assert len(str(caught.value)) < 500


def test_a_deep_taxonomy_that_is_not_too_deep_is_read() -> None:
    (tag,) = label_config.parse(deep(MOST_DEPTH - 3))
    assert len(tag.labels) == MOST_DEPTH - 3


# Annotations


def polygon(number: int, parent: int | None) -> Json:
    value = {"points": [[0, 0], [10, 0], [10, 10]], "closed": True, "polygonlabels": ["cat"]}
    above = {} if parent is None else {"parentID": str(parent)}
    return {
        "id": str(number),
        "from_name": "label",
        "to_name": "image",
        "type": "polygonlabels",
        "value": value,
    } | above


POLYGONS = CONFIG.replace("RectangleLabels", "PolygonLabels")


def chain(count: int) -> list[Json]:
    """Return polygons, each under the next one in the list."""
    return [polygon(n, n - 1 if n else None) for n in reversed(range(count))]


def circle(count: int) -> list[Json]:
    return [polygon(n, (n + 1) % count) for n in range(count)]


def tail(count: int) -> list[Json]:
    """Return polygons whose parents form a circle of ten, and a long chain that leads into it."""
    return [*circle(10), *(polygon(n, n - 1) for n in range(10, count))]


def strangers(count: int) -> list[Json]:
    return [polygon(n, None) | {"from_name": f"other {n}"} for n in range(count)]


@pytest.mark.parametrize("result", [chain, circle, tail, strangers], ids=lambda result: result.__name__)
def test_twice_as_many_regions_are_twice_the_work(result: Callable[[int], list[Json]]) -> None:
    (tag,) = label_config.parse(POLYGONS)
    tags.read(tag, result(20))
    less, more = (calls(lambda n=n: tags.read(tag, result(n), (10, 10))) for n in (200, 400))  # type: ignore[misc]
    assert less > 200
    assert more < 2.5 * less


@pytest.mark.parametrize("result", [chain, circle, tail], ids=lambda result: result.__name__)
def test_polygons_under_one_another_are_one_object(result: Callable[[int], list[Json]]) -> None:
    (tag,) = label_config.parse(POLYGONS)
    (box,) = tags.decode(tag, result(30))
    assert len(box.outline) == 30


def test_a_list_in_a_list_a_thousand_deep_is_no_region() -> None:
    nested: Any = []
    for _ in range(3000):
        nested = [nested]
    taxonomy = deep(3).replace('name="t"', 'name="label"')
    for kind, config in (("polygonlabels", POLYGONS), ("rectanglelabels", CONFIG), ("taxonomy", taxonomy)):
        (tag,) = label_config.parse(config)
        item = {"id": nested, "from_name": "label", "type": kind, "value": {kind: [nested], "x": nested}}
        reasons = tags.unreadable(tag, [nested, item, item | {"from_name": nested}, item | {"value": {kind: ["cat"]}}])
        assert len(reasons) >= 2
        assert all(len(reason) < 500 for reason in reasons)
