"""visibleWhen: which control tags Label Studio's editor shows, and so what annotations and predictions are about."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelstudio import label_config, tags, visibility
from backend.types import ControlTag, Json, Region

IMAGE = '<Image name="image" value="$image"/>'
QUALITY = (
    '<Choices name="quality" toName="image"><Choice value="good"/><Choice value="bad" alias="b"/>'
    '<Choice value="odd"/></Choices>'
)
BOXES = '<RectangleLabels name="boxes" toName="image"><Label value="car"/><Label value="dog"/></RectangleLabels>'
COLOUR = '<Choices name="colour" toName="image"><Choice value="red"/><Choice value="blue"/></Choices>'
KINDS = (
    '<Taxonomy name="kinds" toName="image" maxUsages="1"><Choice value="animal"><Choice value="cat"/></Choice>'
    "</Taxonomy>"
)


def view(condition: str, *inside: str) -> str:
    return f"<View {condition}>{''.join(inside)}</View>"


def named(name: str, *parts: str) -> ControlTag:
    return next(tag for tag in label_config.parse(view("", IMAGE, *parts)) if tag.from_name == name)


def answer(name: str, *values: Any, kind: str = "choices") -> Json:
    return {"id": name, "from_name": name, "to_name": "image", "type": kind, "value": {kind: list(values)}}


def box(label: str, **more: Any) -> Json:
    value = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0, "rectanglelabels": [label]}
    return answer("boxes", kind="rectanglelabels") | {"value": value} | more


GOOD = 'visibleWhen="choice-selected" whenTagName="quality" whenChoiceValue="good"'


@pytest.mark.parametrize(
    ("condition", "shown", "hidden"),
    [
        (GOOD, [[answer("quality", "good")]], [[answer("quality", "b")], [], [answer("other", "good")]]),
        (
            'visibleWhen="choice-selected" whenTagName="quality" whenChoiceValue="bad,odd"',
            [[answer("quality", "b")], [answer("quality", "odd")]],
            [[answer("quality", "good")]],
        ),
        ('visibleWhen="choice-selected" whenTagName="quality"', [[answer("quality", "odd")]], [[], [box("car")]]),
        ('visibleWhen="choice-selected"', [[answer("quality", "odd")]], [[], [box("car")]]),
        ('whenChoiceValue="good"', [[answer("quality", "good")]], [[answer("quality", "odd")]]),
        (
            'visibleWhen="choice-unselected" whenTagName="quality" whenChoiceValue="bad"',
            [[], [answer("quality", "good")]],
            [[answer("quality", "b")]],
        ),
        (
            'visibleWhen="choice-selected" whenTagName="kinds" whenChoiceValue="cat"',
            [[answer("kinds", ["animal", "cat"], kind="taxonomy")]],
            [[answer("kinds", ["animal"], kind="taxonomy")]],
        ),
        ('visibleWhen="region-selected"', [[box("dog")]], [[], [answer("quality", "good")]]),
        (
            'visibleWhen="region-selected" whenTagName="boxes" whenLabelValue="car,bus"',
            [[box("dog"), box("car")]],
            [[box("dog")], [box("car", from_name="other")]],
        ),
        ('visibleWhen="no-region-selected"', [[], [box("car")]], []),
        ('visibleWhen="choice-selected" whenTagName="boxes"', [[], [box("car")]], []),
        ('visibleWhen="choice-selected" whenTagName="nothing" whenChoiceValue="a"', [[]], []),
        ('visibleWhen="region-selected" whenTagName="nothing"', [[]], []),
        ('visibleWhen="full-moon"', [[]], []),
        ("", [[]], []),
    ],
)
@pytest.mark.parametrize("where", ["a view", "a view in a view", "the tag"])
def test_what_the_editor_shows(condition: str, shown: list[list[Json]], hidden: list[list[Json]], where: str) -> None:
    colour = COLOUR.replace("<Choices", f"<Choices {condition}") if where == "the tag" else view(condition, COLOUR)
    tag = named("colour", QUALITY, BOXES, KINDS, view("", colour) if where == "a view in a view" else colour)
    assert [visibility.is_hidden(tag, result) for result in shown] == [False] * len(shown)
    assert [visibility.is_hidden(tag, result) for result in hidden] == [True] * len(hidden)
    assert not any(visibility.is_hidden(named("quality", QUALITY), result) for result in (*shown, *hidden))


def test_all_conditions_above_a_tag_must_hold() -> None:
    inner = view('visibleWhen="choice-selected" whenTagName="colour" whenChoiceValue="red"', BOXES)
    tag = named("boxes", QUALITY, view(GOOD, COLOUR, inner))
    good, red = answer("quality", "good"), answer("colour", "red")
    assert [visibility.is_hidden(tag, result) for result in ([good, red], [good], [red], [None, 7])] == [
        False,
        True,
        True,
        True,
    ]


def test_the_labels_beside_boxes_in_videos_select_them() -> None:
    text = (
        '<View><Video name="v" value="$v"/><Labels name="labels" toName="v"><Label value="car"/></Labels>'
        '<VideoRectangle name="box" toName="v"/><View visibleWhen="region-selected" whenTagName="labels" '
        'whenLabelValue="car"><TimelineLabels name="when" toName="v"><Label value="turn"/></TimelineLabels></View>'
        "</View>"
    )
    tag = next(tag for tag in label_config.parse(text) if tag.from_name == "when")
    region = answer("box", kind="videorectangle") | {"value": {"sequence": [], "labels": ["car"]}}
    assert not visibility.is_hidden(tag, [region])
    assert visibility.is_hidden(tag, [])


def test_a_missing_region_of_a_hidden_tag_means_nothing() -> None:
    tag = named("boxes", QUALITY, view(GOOD, BOXES))
    assert tags.is_foreign(tag, [answer("quality", "odd")], (10, 10))
    assert not tags.is_foreign(tag, [answer("quality", "good")], (10, 10))


# Predictions

NESTED = view(
    "",
    IMAGE,
    QUALITY,
    view(GOOD, COLOUR, view('visibleWhen="choice-selected" whenTagName="colour" whenChoiceValue="red"', BOXES)),
)


def predicted(config: str, answers: dict[str, str], deciding: set[str] | None = None) -> list[str]:
    """Return the names of the tags that answer a task; `answers` has the label of each tag that a model predicts."""
    config_tags = label_config.parse(config)
    regions = [
        (Region("1", tag.kind, tag.from_name, "image", {tag.kind: [answers[tag.from_name]]}, 0.9, 10, 10),)
        if tag.from_name in answers
        else ()
        for tag in config_tags
    ]
    names = {tag.from_name for tag in config_tags} if deciding is None else deciding
    return [region.from_name for region in visibility.visible(config_tags, names, regions)]


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ({"quality": "good", "colour": "red", "boxes": "car"}, ["boxes", "quality", "colour"]),
        ({"quality": "good", "colour": "blue", "boxes": "car"}, ["quality", "colour"]),
        ({"quality": "odd", "colour": "red", "boxes": "car"}, ["quality"]),
        ({"colour": "red", "boxes": "car"}, []),
    ],
)
def test_a_prediction_does_not_answer_what_it_hides(answers: dict[str, str], names: list[str]) -> None:
    assert predicted(NESTED, answers) == names


def test_a_tag_without_a_trained_model_hides_nothing() -> None:
    answers = {"quality": "odd", "colour": "red", "boxes": "car"}
    assert predicted(NESTED, answers, {"boxes", "colour"}) == ["boxes", "quality", "colour"]
    assert predicted(NESTED, {"quality": "odd", "boxes": "car"}, {"boxes", "colour"}) == ["quality"]


def test_any_answer_counts_if_all_questions_have_a_model() -> None:
    text = view("", IMAGE, QUALITY, view('visibleWhen="choice-selected"', BOXES))
    assert predicted(text, {"boxes": "car"}) == []
    assert predicted(text, {"boxes": "car", "quality": "odd"}) == ["boxes", "quality"]
    another = '<Taxonomy name="x" toName="image" value="$x"/>'
    more = text.replace("</Choices>", f"</Choices>{another}", 1)
    assert predicted(more, {"boxes": "car"}) == ["boxes"]


def test_a_circle_of_conditions_hides_nothing_by_itself() -> None:
    text = view(
        "",
        IMAGE,
        QUALITY.replace("<Choices", '<Choices visibleWhen="choice-selected" whenTagName="colour"'),
        COLOUR.replace("<Choices", '<Choices visibleWhen="choice-selected" whenTagName="quality"'),
    )
    assert predicted(text, {"quality": "odd", "colour": "red"}) == ["quality", "colour"]
    assert predicted(text, {"quality": "odd"}) == []


def test_points_are_hidden_with_their_boxes() -> None:
    points = (
        '<RectangleLabels name="kp_bbox" toName="image"><Label value="fish"/></RectangleLabels>'
        '<KeyPointLabels name="kp" toName="image"><Label value="head"/></KeyPointLabels>'
    )
    config_tags = label_config.parse(view("", IMAGE, QUALITY, view(GOOD, points)))
    answers = [
        (Region("1", "choices", "quality", "image", {"choices": ["odd"]}, 0.9, 10, 10),)
        if tag.kind == "choices"
        else (Region("2", "rectanglelabels", "kp_bbox", "image", {}, 0.9, 10, 10),)
        for tag in config_tags
    ]
    names = {tag.from_name for tag in config_tags}
    assert [region.id for region in visibility.visible(config_tags, names, answers)] == ["1"]
