from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, task_fields
from backend.types import Task
from tests.support import ROOT

IMAGE = '<Image name="image" value="$image"/>'
EXAMPLES = ROOT / "label_config"
CAR = '<Label value="Car"/>'


def config(labels: str = CAR, attributes: str = "", image: str = IMAGE, beside: str = "") -> str:
    control = f'<RectangleLabels name="label" toName="image" {attributes}>{labels}</RectangleLabels>'
    return f"<View>{image}{control}{beside}</View>"


def test_a_plain_config() -> None:
    (tag,) = label_config.parse(config(CAR + '<Label value="Person"/>'))
    assert (tag.kind, tag.from_name, tag.to_name, tag.data_key) == ("rectanglelabels", "label", "image", "image")
    assert tag.labels == ("Car", "Person")
    assert tag.class_to_label == {"car": "Car", "person": "Person"}
    assert (tag.score_threshold, tag.model_path, tag.attributes) == (None, None, {})


def test_the_example_config_parses() -> None:
    example = EXAMPLES / "rectanglelabels.xml"
    (tag,) = label_config.parse(example.read_text())
    assert tag.labels == ("Vehicle", "Person")
    assert tag.class_to_label["truck"] == "Vehicle"
    assert tag.score_threshold == 0.25


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.xml")), ids=lambda path: path.stem)
def test_every_example_config_parses_to_a_tag_of_its_kind(example: Path) -> None:
    kind, _, task = example.stem.partition("-")
    tag, *others = label_config.parse(example.read_text())
    assert tag.kind == kind
    assert task in ("", tag.task, "alone", "shown", "pages", "smart", "tasks", "choices")
    assert bool(others) == (task == "shown")


def test_several_tags_keep_the_order_of_the_config() -> None:
    second = f'<RectangleLabels name="a" toName="right">{CAR}</RectangleLabels><Image name="right" value="$r"/>'
    assert [(tag.from_name, tag.data_key) for tag in label_config.parse(config(beside=second))] == [
        ("label", "image"),
        ("a", "r"),
    ]


def test_lower_case_spelling_is_read_too() -> None:
    text = f'<View>{IMAGE}<rectanglelabels name="b" toname="image" MODEL_PATH="a.pt">{CAR}</rectanglelabels></View>'
    (tag,) = label_config.parse(text)
    assert (tag.to_name, tag.model_path) == ("image", "a.pt")


def test_labels_nested_in_a_view_are_found() -> None:
    assert label_config.parse(config(f"<View>{CAR}</View>"))[0].labels == ("Car",)


# Attributes


@pytest.mark.parametrize(
    ("attributes", "threshold"),
    [
        ('model_score_threshold="0.3"', 0.3),
        ('score_threshold="0"', 0.0),
        ('score_threshold="0.9" model_score_threshold="1"', 1.0),
    ],
)
def test_score_threshold(attributes: str, threshold: float) -> None:
    assert label_config.parse(config(attributes=attributes))[0].score_threshold == threshold


@pytest.mark.parametrize("name", ["model_score_threshold", "score_threshold"])
@pytest.mark.parametrize("value", ["50%", "1.01", "-0.1", "nan", "inf", ""])
def test_a_bad_threshold_names_tag_attribute_and_value(name: str, value: str) -> None:
    with pytest.raises(LabelConfigError) as caught:
        label_config.parse(config(attributes=f'{name}="{value}"'))
    assert f'RectangleLabels "label": {name}="{value}"' in caught.value.what
    assert caught.value.where == "label config of the project"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("attribute", "bad", "range_"),
    [
        ('model_point_threshold="0.5"', 'model_point_threshold="half"', "from 0 to 1"),
        ('model_point_threshold="0.5"', 'model_point_threshold="1.5"', "from 0 to 1"),
        ('model_point_threshold="0.5"', 'model_point_size="-1"', "from 0 to 100"),
    ],
)
def test_a_bad_number_of_a_key_point_tag_is_refused(attribute: str, bad: str, range_: str) -> None:
    example = (EXAMPLES / "keypointlabels.xml").read_text(encoding="utf-8")
    assert attribute in example
    with pytest.raises(LabelConfigError) as caught:
        label_config.parse(example.replace(attribute, bad))
    assert bad in caught.value.what
    assert range_ in caught.value.what


@pytest.mark.parametrize(("value", "path"), [("a.pt", "a.pt"), ("a..b.pt", "a..b.pt"), (" x.pt ", "x.pt"), ("", None)])
def test_model_path_is_a_plain_name(value: str, path: str | None) -> None:
    assert label_config.parse(config(attributes=f'model_path="{value}"'))[0].model_path == path


@pytest.mark.parametrize(
    "value",
    [
        "/a.pt",
        "../a.pt",
        "team/a.pt",
        "a/../../b.pt",
        "..",
        "\\a.pt",
        "a\\..\\b",
        "C:\\a.pt",
        "s3://b/a",
        "a.yaml",
        ".pt",
    ],
)
def test_model_path_with_a_folder_is_refused(value: str) -> None:
    with pytest.raises(LabelConfigError, match=r"model_path.*plain name of a \.pt file"):
        label_config.parse(config(attributes=f'model_path="{value}"'))


def test_remaining_model_attributes_are_kept() -> None:
    (tag,) = label_config.parse(config(attributes='model_index="3" Model_OBB="false" smart="true"'))
    assert tag.attributes == {"model_index": "3", "model_obb": "false"}


@pytest.mark.parametrize(
    ("attributes", "task"), [("", "detect"), ('model_obb="False"', "detect"), ('model_obb="true"', "obb")]
)
def test_the_task_follows_from_the_tag(attributes: str, task: str) -> None:
    assert label_config.parse(config(attributes=attributes))[0].task == task


def test_a_model_obb_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(LabelConfigError, match='model_obb="maybe" is not supported'):
        label_config.parse(config(attributes='model_obb="maybe"'))


def test_another_task_is_another_config() -> None:
    plain, turned = config(), config(attributes='model_obb="true"')
    assert label_config.config_hash(plain) == label_config.config_hash(config(attributes='model_obb="false"'))
    assert label_config.config_hash(plain) != label_config.config_hash(turned)


def test_a_skipped_tag_is_left_out_whatever_is_wrong_with_it() -> None:
    skipped = '<RectangleLabels name="x" toName="nowhere" model_skip="True" model_path="/"/>'
    assert [tag.from_name for tag in label_config.parse(config(beside=skipped))] == ["label"]


def test_all_skipped() -> None:
    with pytest.raises(LabelConfigError, match="every supported control tag is skipped"):
        label_config.parse(config(attributes='model_skip="true"'))


def test_a_bad_model_skip() -> None:
    with pytest.raises(LabelConfigError, match='model_skip="maybe"'):
        label_config.parse(config(attributes='model_skip="maybe"'))


# Objects


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ('<Image name="other" value="$image"/>', 'toName="image" is the name of no Image tag'),
        ('<Text name="image" value="$image"/>', 'toName="image" is the name of no Image tag'),
        ('<Image name="image" value="$undefined$"/>', r'value="\$undefined\$" does not name a field'),
        ('<Image name="image" value="https://example.org/a.png"/>', "does not name a field"),
        ('<Image name="image"/>', "does not name a field"),
        ('<Image name="image" valueList="images"/>', 'valueList="images" does not name a field'),
    ],
)
def test_an_object_tag_we_cannot_read(image: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message) as caught:
        label_config.parse(config(image=image))
    assert "model_skip" in caught.value.fix


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("$image", {"image": "http://host/a.png"}),
        ("$images[1].url", {"images": [{"url": ""}, {"url": "http://host/a.png"}]}),
        ("$meta.image", {"meta": {"image": "http://host/a.png"}}),
        ("$meta.image", {"meta.image": "http://host/a.png"}),
        ("http://host/$image", {"image": "a.png"}),
        ("http://$meta.host/$images[0]", {"meta": {"host": "host"}, "images": ["a.png"]}),
    ],
)
def test_a_value_is_read_as_label_studio_reads_it(value: str, data: dict[str, object]) -> None:
    (tag,) = label_config.parse(config(image=f'<Image name="image" value="{value}"/>'))
    assert task_fields.shown(Task(1, data), tag.data_key) == "http://host/a.png"
    assert task_fields.shown(Task(1, {"images": [7]}), tag.data_key) is None


def test_a_control_tag_without_to_name_is_refused() -> None:
    """The editor takes the only object tag of the config, but Label Studio imports no predictions of such a tag."""
    with pytest.raises(
        LabelConfigError, match='RectangleLabels "label": toName="" is the name of no Image tag'
    ) as caught:
        label_config.parse(f'<View>{IMAGE}<RectangleLabels name="label">{CAR}</RectangleLabels></View>')
    assert "write the name of the Image tag (image)" in caught.value.fix


def test_a_question_about_several_images_is_answered_by_the_first() -> None:
    """Label Studio imports a prediction with the name of one image, and not with "image,b"."""
    question = '<Choices name="q" toName="image,b"><Choice value="a"/></Choices><Image name="b" value="$b"/>'
    text = config(beside=question)
    assert [(tag.from_name, tag.to_name, tag.data_key) for tag in label_config.parse(text)] == [
        ("label", "image", "image"),
        ("q", "image", "image"),
    ]
    (warning,) = label_config.warnings(text)
    assert 'Choices "q" is about several images, and its model sees the first one only: Image "image"' in warning


def test_regions_are_drawn_on_one_image() -> None:
    text = config(beside='<Image name="b" value="$b"/>').replace('toName="image"', 'toName="image,b"')
    with pytest.raises(LabelConfigError, match='toName="image,b" names several tags, and regions are drawn on one'):
        label_config.parse(text)


# XML


@pytest.mark.parametrize("text", ["", "  \n", "not xml", "<View>", "<View>\ud800</View>", "<View>&nbsp;</View>"])
def test_not_xml(text: str) -> None:
    with pytest.raises(LabelConfigError) as caught:
        label_config.parse(text)
    assert caught.value.fix
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>',
        '<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/hostname">]><View>&x;</View>',
        "<!DOCTYPE View><View/>",
    ],
)
def test_a_doctype_is_refused(text: str) -> None:
    with pytest.raises(LabelConfigError, match="DOCTYPE"):
        label_config.parse(text)


@pytest.mark.parametrize(
    "text", ["<View/>", '<View><Choices name="c" toName="i"/></View>', f"<View><!-- {config()} --></View>"]
)
def test_no_supported_tag_says_what_to_add(text: str) -> None:
    with pytest.raises(LabelConfigError) as caught:
        label_config.parse(text)
    assert "add a RectangleLabels tag " in caught.value.fix
    assert caught.value.where == "label config of the project"


def test_a_tag_without_a_name() -> None:
    with pytest.raises(LabelConfigError, match="has no name"):
        label_config.parse(f'<View>{IMAGE}<RectangleLabels toName="image">{CAR}</RectangleLabels></View>')


# Hash


@pytest.mark.parametrize(
    "same",
    [
        config('<Label value="Person"/><Label value="Car"/>'),
        config('<Label value="Car" background="red" predicted_values="bus"/><Label value="Person"/>'),
        config(CAR + '<Label value="Person"/>', 'model_score_threshold="0.1"'),
        config(CAR + '<Label value="Person"/>', beside='<TextArea name="t" toName="image"/>'),
    ],
)
def test_the_hash_ignores_what_no_training_sees(same: str) -> None:
    assert label_config.config_hash(same) == label_config.config_hash(config(CAR + '<Label value="Person"/>'))


@pytest.mark.parametrize(
    "other",
    [
        config('<Label value="car"/>'),
        config(CAR + '<Label value="Person"/>'),
        config(image='<Image name="image" value="$photo"/>'),
        config().replace('name="label"', 'name="boxes"'),
    ],
)
def test_the_hash_changes_with_what_a_training_sees(other: str) -> None:
    assert label_config.config_hash(other) != label_config.config_hash(config())


# An unusable tag beside a usable one

UNUSABLE = {
    "of a text": '<Text name="text" value="$t"/><RectangleLabels name="bad" toName="text"><Label value="a"/>'
    "</RectangleLabels>",
    "labels of the task": '<Taxonomy name="bad" toName="image" value="$labels"/>',
    "a wrong attribute": '<PolygonLabels name="bad" toName="image" model_score_threshold="50%"><Label value="a"/>'
    "</PolygonLabels>",
    "a wrong model_skip": '<PolygonLabels name="bad" toName="image" model_skip="maybe"><Label value="a"/>'
    "</PolygonLabels>",
    "of no video": '<VideoRectangle name="bad" toName="video"/>',
}


@pytest.mark.parametrize("beside", UNUSABLE.values(), ids=UNUSABLE)
def test_one_that_cannot_be_used_beside_a_good_one_is_left_alone_with_a_warning(beside: str) -> None:
    text = config(beside=beside)
    assert [tag.from_name for tag in label_config.parse(text)] == ["label"]
    (warning,) = label_config.warnings(text)
    assert warning.startswith("this control tag is left alone: ")
    assert '"bad"' in warning
    assert ". Fix: " in warning
    assert label_config.warnings(config()) == ()


def test_without_a_good_one_the_first_error_is_told() -> None:
    text = f"<View>{IMAGE}{UNUSABLE['of a text']}{UNUSABLE['a wrong attribute']}</View>"
    with pytest.raises(LabelConfigError, match='RectangleLabels "bad": toName="text"') as caught:
        label_config.parse(text)
    assert 'set model_skip="true" on RectangleLabels "bad"' in caught.value.fix


def test_two_tags_of_one_name_are_refused() -> None:
    text = config(beside='<RectangleLabels name="label" toName="image"><Label value="a"/></RectangleLabels>')
    with pytest.raises(LabelConfigError, match='name="label" is the name of several tags'):
        label_config.parse(text)


def test_the_tag_to_skip_is_the_control_tag_and_not_the_image() -> None:
    text = config(image='<Image name="image" value="image"/>')
    with pytest.raises(LabelConfigError, match=r'^Image "image": value=') as caught:
        label_config.parse(text)
    assert caught.value.fix.endswith('or set model_skip="true" on RectangleLabels "label"')
