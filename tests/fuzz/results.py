"""Results of annotations with random changes: each one is learned, or its task is left out with a reason."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backend.datasets.writer import label_line
from backend.labelstudio import label_renames, tags
from backend.types import AnnotatedTask, ControlTag, Json, LabeledBox, Task
from tests.drawings import SIZE
from tests.fuzz import Report, measure
from tests.kinds import ALL_KINDS

NUMBERS = (0, -0.0, -1, 1, 50, 100, 100.0001, 1e-320, 1e308, -1e308, 1e17, math.nan, math.inf, 2**63, 2**5000)
TEXTS = (
    "",
    "cat",
    "Car",
    "label",
    "image",
    "é",
    "\ud800",
    "a" * 5000,
    "None",
    "r1",
    "rectanglelabels",
    "labels",
    "NaN",
)


def _deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1, 2],
    [None],
    ["cat"],
    [["cat"]],
    {"a": 1},
    _deep(50),
    _deep(3000),
)


def run(cases: int, seed: int) -> Report:
    """Decode changed results by every kind of control tag, and write the labels as a training reads them."""
    draw = random.Random(seed)
    examples = _examples()
    return measure(_cases(cases, draw, examples), lambda case: _learn(case, draw))


def _examples() -> list[tuple[ControlTag, list[Json]]]:
    examples = []
    for kind in ALL_KINDS.values():
        tag = kind.tag()
        result = kind.annotate(tag, _shapes(tag))
        examples.append((tag, result))
        if tag.one_image:
            examples.append(
                (replace(tag, pages=True), [item | {"item_index": place % 2} for place, item in enumerate(result)])
            )
        if tag.parent:
            examples.append((replace(tag, parent="", labels=("object",)), result))
    return examples


def _shapes(tag: ControlTag) -> list[LabeledBox]:
    """Return two objects with the shapes that any kind of tag needs."""
    shapes = []
    for place in (0.3, 0.6):
        ring = tuple((place + x, place + y) for x, y in ((-0.1, -0.1), (0.1, -0.1), (0.1, 0.1), (-0.1, 0.1)))
        points = tuple((place, place, 2) for _ in tag.points)
        box = LabeledBox(tag.labels[0], (place, place, 0.2, 0.2), outline=(ring,), keypoints=points)
        shapes.append(box)
    return shapes[:1] if tag.task == "classify" else shapes


def _cases(cases: int, draw: random.Random, examples: list[tuple[ControlTag, list[Json]]]) -> Iterator[Any]:
    for number in range(cases):
        tag, result = draw.choice(examples)
        changed: Any = copy.deepcopy(result) * draw.choice((1, 1, 1, 3, 100))
        for _ in range(draw.randint(1, 6)):
            changed = _changed(changed, draw, examples)
        yield _Case(number, tag, changed)


class _Case:
    """A tag and a result; its repr is short, because a result may be nested too deeply for Python to print."""

    def __init__(self, number: int, tag: ControlTag, result: Any) -> None:
        self.number, self.tag, self.result = number, tag, result

    def __repr__(self) -> str:
        try:
            return f"case {self.number}, {self.tag.kind} {self.tag.task}: {json.dumps(self.result)[:1500]}"
        except (RecursionError, ValueError):
            return f"case {self.number}, {self.tag.kind} {self.tag.task}: too deep to be shown"


def _changed(value: Any, draw: random.Random, examples: list[tuple[ControlTag, list[Json]]]) -> Any:
    """Return a JSON value with one change at a random place."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        chance = draw.random()
        if chance < 0.1:
            return {key: part for key, part in value.items() if key != name}
        if chance < 0.2:
            return value | {
                draw.choice(("id", "parentID", "from_name", "type", "hidden", "rle", "item_index")): _value(draw)
            }
        return value | {name: _changed(value[name], draw, examples)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        chance = draw.random()
        if chance < 0.1:
            return value[:place] + value[place + 1 :]
        if chance < 0.2:
            return value + copy.copy(draw.choice(examples)[1])
        if chance < 0.3:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], draw, examples), *value[place + 1 :]]
    return _value(draw)


def _value(draw: random.Random) -> Any:
    return draw.choice(draw.choice((NUMBERS, TEXTS, OTHERS)))


def _learn(case: object, draw: random.Random) -> str:
    assert isinstance(case, _Case)
    tag = case.tag
    result = case.result if isinstance(case.result, list) else [case.result]  # the client gives a list
    task = AnnotatedTask(Task(7, {}), 1, "2026-01-01T00:00:00Z", tuple(result))
    task = label_renames.in_task(task, {"old": tag.labels[0]} if draw.random() < 0.5 else {})
    reading = tags.read(tag, task.result, SIZE if draw.random() < 0.5 else None)
    for reason in (*reading.unreadable, *reading.nothing):
        assert 0 < len(reason) < 1000, reason[:200]
    reading.objects(tag)
    if tag.frame_rate == 0:
        number = {name: index for index, name in enumerate(tag.labels)}
        for box in reading.boxes:
            line = label_line(box, number, 7, tag.task)
            assert all(map(math.isfinite, map(float, line.split()))), line
    if reading.unreadable:
        return "left out"
    return "learned" if reading.boxes else "background"
