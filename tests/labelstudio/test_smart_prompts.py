"""What smart tools send, as Label Studio 1.23.2 does, and the control tag that shall hold the answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RegionError
from backend.geometry.pointing import Click
from backend.labelstudio import label_config, smart_prompts
from backend.types import Json
from tests.support import ROOT

KEY_POINTS = '<KeyPointLabels name="point" toName="image" smart="true"><Label value="cat"/></KeyPointLabels>'
MASKS = '<BrushLabels name="mask" toName="image"><Label value="cat"/><Label value="dog"/></BrushLabels>'
BOXES = '<RectangleLabels name="box" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels>'
SMART_BOXES = BOXES.replace(' toName="image"', ' toName="image" smart="true"')


def config(*controls: str) -> str:
    return f'<View><Image name="image" value="$image"/>{"".join(controls)}</View>'


def item(kind: str = "keypointlabels", name: str = "point", label: str = "cat", **value: Any) -> Json:
    """Return a region as the editor sends it."""
    positive = value.pop("is_positive", True)
    place = {"x": 25.0, "y": 50.0, "width": 0.5} if kind.startswith("keypoint") else {}
    return {
        "id": value.pop("id", "r1"),
        "type": kind,
        "from_name": name,
        "to_name": value.pop("to_name", "image"),
        "origin": "manual",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "is_positive": positive,
        "value": place | ({kind: [label], "labels": [label]} if label else {}) | value,
    }


def rectangle(name: str = "box", **value: Any) -> Json:
    return item("rectanglelabels", name, **{"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0} | value)


def test_clicks_with_the_newest_last() -> None:
    prompt = smart_prompts.read([item(id="r1", is_positive=False), item(id="r2", x=50, y=10)])
    assert prompt.pointing.clicks == (Click(0.25, 0.5, on_object=False), Click(0.5, 0.1))
    assert (prompt.from_name, prompt.to_name, prompt.label, prompt.region_id) == ("point", "image", "cat", "r2")


def test_clicks_on_another_page_do_not_count() -> None:
    prompt = smart_prompts.read([item() | {"item_index": 1}, item(x=50) | {"item_index": 2}])
    assert (prompt.page, prompt.pointing.clicks) == (2, (Click(0.5, 0.5),))
    assert smart_prompts.read([item()]).page == 0


def test_of_rectangles_the_newest_counts_and_it_is_clipped() -> None:
    prompt = smart_prompts.read([rectangle(), rectangle(x=-10, y=80, width=30, height=40)])
    assert prompt.pointing.rectangle == pytest.approx((0, 0.8, 0.2, 1))
    assert prompt.pointing.clicks == ()


def test_a_turned_rectangle_is_the_upright_one_around_it() -> None:
    prompt = smart_prompts.read([rectangle(x=50, y=20, width=10, height=20, rotation=90)])
    assert prompt.pointing.rectangle == pytest.approx((0.4, 0.2, 0.5, 0.4))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "sent nothing, no key point"),
        (["x", None, {"type": "keypointlabels"}], "sent nothing"),
        ([item("brushlabels", rle=[1])], "sent 'brushlabels', no key point"),
        ([item(is_positive=False)], "every click says where the object is not.*without Alt"),
        ([item(x=101)], "region r1 lies outside the image.*click on the object"),
        ([item(y=-0.1)], "outside"),
        ([item(x="left")], "outside"),
        ([item(x=float("nan"))], "outside"),
        ([rectangle(x=100)], "no area inside the image.*draw it around"),
        ([rectangle(width=0)], "no area"),
        ([rectangle(height=None)], "no area"),
        ([rectangle(width=1e99, height=1e99, rotation=float("inf"))], "no area"),
    ],
)
def test_what_points_at_nothing_is_refused_with_the_cure(result: list[Any], message: str) -> None:
    with pytest.raises(RegionError, match=message):
        smart_prompts.read(result)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ("id", "type", "from_name", "to_name", "value", "is_positive", "original_width", "item_index")
_VALUES = ("x", "y", "width", "height", "rotation", "rectanglelabels", "keypointlabels", "labels")


@given(st.data())
def test_whatever_a_context_holds_it_is_a_prompt_or_refused(data: st.DataObject) -> None:
    drawn = [rectangle(), item()]
    for region in data.draw(st.sets(st.sampled_from((0, 1)))):
        drawn[region] |= {name: data.draw(_JSON) for name in data.draw(st.sets(st.sampled_from(_FIELDS)))}
        if isinstance(drawn[region]["value"], dict):
            drawn[region]["value"] |= {name: data.draw(_JSON) for name in data.draw(st.sets(st.sampled_from(_VALUES)))}
    checked = label_config.checked(config(KEY_POINTS, SMART_BOXES, MASKS))
    refused = ""
    tag, label = checked.tags[0], ""
    try:
        prompt = smart_prompts.read([*drawn, *data.draw(st.lists(_JSON, max_size=2))])
        tag, label = smart_prompts.target(prompt, checked.tags, checked.smart)
    except RegionError as error:
        refused = error.fix
    assert refused or (tag.from_name, label in tag.labels) == ("mask", True)


def test_a_label_of_a_labels_tag_is_an_item_beside_the_region() -> None:
    beside = item("labels", "labels", label="dog")
    assert smart_prompts.read([item("keypoint", label=""), beside]).label == "dog"
    assert smart_prompts.read([item("keypoint", label="")]).label == ""


@pytest.mark.parametrize(
    ("controls", "prompt", "holder"),
    [
        ((KEY_POINTS, MASKS), item(), "mask"),
        ((MASKS, KEY_POINTS, BOXES), item(), "mask"),  # the order of the config decides
        ((KEY_POINTS, BOXES, MASKS), item(), "box"),
        ((BOXES,), rectangle(), "box"),
        ((SMART_BOXES,), rectangle(), "box"),  # no other tag could hold it
        ((SMART_BOXES, MASKS), rectangle(), "mask"),  # as in Label Studio's documentation
        ((BOXES, MASKS), rectangle(), "box"),
        ((SMART_BOXES, MASKS.replace(">", ' smart="true">', 1)), rectangle(), "box"),
        ((SMART_BOXES, KEY_POINTS), item(), "box"),
        ((MASKS, BOXES.replace('"dog"', '"cow"')), rectangle(label="cow"), "box"),
    ],
)
def test_the_control_tag_that_holds_the_answer(controls: tuple[str, ...], prompt: Json, holder: str) -> None:
    checked = label_config.checked(config(*controls))
    tag, label = smart_prompts.target(smart_prompts.read([prompt]), checked.tags, checked.smart)
    assert (tag.from_name, label) == (holder, prompt["value"]["labels"][0])


def test_the_boxes_of_a_skeleton_get_the_skeleton() -> None:
    points = '<KeyPointLabels name="points" toName="image"><Label value="tail"/></KeyPointLabels>'
    checked = label_config.checked(config(points, BOXES.replace('"box"', '"points_bbox"')))
    tag, _ = smart_prompts.target(smart_prompts.read([rectangle("points_bbox")]), checked.tags, checked.smart)
    assert tag.task == "pose"


def test_without_a_label_the_only_label_is_meant() -> None:
    checked = label_config.checked(config(KEY_POINTS, MASKS.replace('<Label value="dog"/>', "")))
    _, label = smart_prompts.target(smart_prompts.read([item("keypoint", label="")]), checked.tags, checked.smart)
    assert label == "cat"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (item(label="horse"), "no control tag that predicts objects has the label 'horse'.*choose one of cat, dog"),
        (item(label=""), "no label is chosen.*choose one of cat, dog"),
        (item(to_name="other"), "of other.*add a RectangleLabels"),
    ],
)
def test_an_answer_that_no_control_tag_could_hold_is_refused(prompt: Json, message: str) -> None:
    checked = label_config.checked(config(KEY_POINTS, MASKS))
    with pytest.raises(RegionError, match=message):
        smart_prompts.target(smart_prompts.read([prompt]), checked.tags, checked.smart)


# ── the label config ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_control_tags_that_are_prompts() -> None:
    masks = MASKS.replace(">", ' smart="false">', 1)
    assert label_config.checked(config(SMART_BOXES, KEY_POINTS, masks)).smart == {"box", "point"}
    assert label_config.checked(config(BOXES)).smart == frozenset()


@pytest.mark.parametrize("attribute", ["smart", "smartOnly"])
def test_a_smart_control_whose_labels_another_one_holds_has_no_model(attribute: str) -> None:
    smart = BOXES.replace(' toName="image"', f' toName="image" {attribute}="true"')

    def with_models(*controls: str) -> list[str]:
        return [tag.from_name for tag in label_config.parse(config(*controls))]

    assert with_models(smart, MASKS) == ["mask"]
    assert with_models(smart) == ["box"]
    assert with_models(smart, MASKS.replace("dog", "cow")) == ["box", "mask"]  # nothing else could hold a dog
    assert with_models(smart, MASKS.replace(">", ' smart="true">', 1)) == ["box", "mask"]
    assert with_models(smart, MASKS.replace(">", ' model_semantic="true">', 1)) == ["box", "mask"]


def test_a_tag_that_loses_its_model_to_another_one_is_named() -> None:
    (warning,) = label_config.warnings(config(SMART_BOXES, MASKS))
    assert warning.startswith(
        'RectangleLabels "box" has no model of its own: it says smart="true", and another tag has'
    )
    skipped = SMART_BOXES.replace("smart=", 'model_skip="true" smart=')
    assert label_config.warnings(config(skipped, MASKS)) == ()
    assert label_config.warnings(config(SMART_BOXES.replace("smart=", "smartOnly="), MASKS)) == ()


def test_the_example_has_one_model_and_two_smart_tools() -> None:
    checked = label_config.checked((ROOT / "label_config/brushlabels-smart.xml").read_text(encoding="utf-8"))
    assert [(tag.from_name, tag.task) for tag in checked.tags] == [("label", "segment")]
    assert checked.smart == {"point", "rectangle"}
    assert checked.warnings == ()


def test_key_points_that_are_prompts_are_no_skeleton() -> None:
    """A RectangleLabels that is skipped would else become the boxes of these points."""
    skipped = SMART_BOXES.replace(' toName="image"', ' toName="image" model_skip="true"')
    assert [tag.from_name for tag in label_config.parse(config(KEY_POINTS, skipped, MASKS))] == ["mask"]
