"""Label configs as people have them: what a model can answer is served, and each other control tag has a reason."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
import yaml

from backend.cli.label_studio_process import label_studio_binary
from backend.errors import LabelConfigError
from backend.labelstudio import label_config
from backend.labelstudio.label_xml import spell
from tests.support import CONFIG, require

LABELS = '<Label value="a"/>'
CHOICE = '<Choice value="a"/>'
# What no model here answers: the object tags and control tags beside an image with boxes.
BESIDE = {
    "a text": f'<Text name="o" value="$o"/><Labels name="x" toName="o">{LABELS}</Labels>',
    "choices about a text": f'<Text name="o" value="$o"/><Choices name="x" toName="o">{CHOICE}</Choices>',
    "a hypertext": f'<HyperText name="o" value="$o"/><HyperTextLabels name="x" toName="o">{LABELS}</HyperTextLabels>',
    "html": f'<HyperText name="o"><p>A</p></HyperText><HyperTextLabels name="x" toName="o">{LABELS}</HyperTextLabels>',
    "paragraphs": f'<Paragraphs name="o" value="$o"/><ParagraphLabels name="x" toName="o">{LABELS}</ParagraphLabels>',
    "an audio": f'<Audio name="o" value="$o"/><Labels name="x" toName="o">{LABELS}</Labels>',
    "a time series": '<TimeSeries name="o" valueType="url" value="$o"><Channel column="v"/></TimeSeries>'
    f'<TimeSeriesLabels name="x" toName="o">{LABELS}</TimeSeriesLabels>',
    "a chat": '<Chat name="o" value="$o"/><Rating name="x" toName="o"/>',
    "a table": '<Table name="o" value="$o"/><TextArea name="x" toName="o"/>',
    "a list": '<List name="o" value="$o"/><Ranker name="x" toName="o"/>',
    "a pdf": f'<Pdf name="o" value="$o"/><PdfLabels name="x" toName="o">{LABELS}</PdfLabels>',
    "a note": '<TextArea name="x" toName="image"/>',
    "stars": '<Rating name="x" toName="image"/>',
    "a number": '<Number name="x" toName="image"/>',
    "a date": '<DateTime name="x" toName="image" only="date"/>',
    "two images": '<Image name="o" value="$o"/><Pairwise name="x" toName="image,o"/>',
    "choices about a region": f'<Choices name="x" toName="image" perRegion="true">{CHOICE}</Choices>',
    "a tag of tomorrow": '<HologramLabels name="x" toName="image"/>',
    "a repeater": '<Repeater on="$pages"><Image name="o{{idx}}" value="$pages[{{idx}}].url"/>'
    f'<RectangleLabels name="x" toName="o{{{{idx}}}}">{LABELS}</RectangleLabels></Repeater>',
    "choices about a video": f'<Video name="o" value="$o"/><Choices name="x" toName="o">{CHOICE}</Choices>',
}
# What asks for nothing.
SILENT = {
    "a heading": '<Header value="Look"/><Style>.a { color: red }</Style>',
    "a text to read": '<View className="a"><Text name="t" value="$t"/></View>',
    "relations": '<Relations><Relation value="part of"/></Relations>',
    "a filter": '<Filter name="filter" toName="label"/>',
    "a magic wand": '<MagicWand name="wand" toName="image"/>',
    "a collapsed part": '<Collapse><Panel value="more"><Header value="x"/></Panel></Collapse>',
    "a table": '<Table name="table" value="$table"/>',
}
# Of Label Studio's own templates with an Image or a Video: the names of the control tags that models answer.
SERVED = {
    "community-contributions/breast-cancer-mammogram-classification": [
        *("birads_left", "density_left", "findings_left", "birads_right", "density_right", "findings_right"),
    ],
    "community-contributions/ocr-invoices-pre-ner-bio-format": ["label"],
    "computer-vision/image-classification": ["choice"],
    "computer-vision/inventory-tracking": ["objects"],
    "computer-vision/keypoints": ["kp-1"],
    "computer-vision/medical-image-classification-with-bboxes": ["label", "classification"],
    "computer-vision/multipage-documents": ["rectangles"],
    "computer-vision/object-detection-with-bounding-boxes": ["label"],
    "computer-vision/optical-character-recognition": ["bbox"],
    "computer-vision/semantic-segmentation-with-masks": ["tag"],
    "computer-vision/semantic-segmentation-with-polygons": ["label"],
    "computer-vision/visual-genome": ["regions", "attributes", "relationships"],
    "ranking-and-scoring/content-based-image-search": ["similar"],
    "videos/video-frame-classification": ["videoLabels"],
    "videos/video-object-tracking": ["box"],
}
PARTS = {
    "computer-vision/optical-character-recognition": {'Labels "label"'},
    "videos/video-object-tracking": {'Labels "videoLabels"'},
}


def templates() -> dict[str, str]:
    """Return the templates of the installed Label Studio that show an image or a video, by their folder."""
    installed = label_studio_binary().parent.parent.glob("lib/*/site-packages/label_studio/annotation_templates")
    configs = {}
    for path in sorted(path for folder in installed for path in folder.glob("*/*/config.yml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8")).get("config") or ""
        if re.search(r"<(Image|Video)\b", config):
            configs[f"{path.parent.parent.name}/{path.parent.name}"] = config
    return configs


TEMPLATES = templates()


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_boxes_are_served_beside_anything(beside: str) -> None:
    config = label_config.checked(CONFIG.replace("</View>", f"{beside}</View>"))
    assert [tag.from_name for tag in config.tags] == ["label"]
    (warning,) = config.warnings
    assert re.match(r'this control tag is left alone: \w+ "x" ', warning)
    assert 'Fix: model_skip="true"' in warning


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_model_skip_hides_the_reason(beside: str) -> None:
    skipped = beside.replace('name="x"', 'name="x" model_skip="true"')
    assert label_config.warnings(CONFIG.replace("</View>", f"{skipped}</View>")) == ()


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_a_config_without_anything_to_predict_names_what_it_has(beside: str) -> None:
    with pytest.raises(LabelConfigError, match=r'can predict: \w+ "x" ') as caught:
        label_config.parse(f'<View><Image name="image" value="$image"/>{beside}</View>')
    assert "add a RectangleLabels tag" in caught.value.fix


@pytest.mark.parametrize("beside", SILENT.values(), ids=SILENT)
def test_what_asks_for_nothing_needs_no_reason(beside: str) -> None:
    assert label_config.warnings(CONFIG.replace("</View>", f"{beside}</View>")) == ()


def test_the_labels_of_boxes_in_videos_are_a_part_of_them() -> None:
    labels = f'<Labels name="labels" toName="v">{LABELS}</Labels>'
    video = f'<Video name="v" value="$v"/><VideoRectangle name="box" toName="v"/>{labels}'
    assert label_config.warnings(CONFIG.replace("</View>", f"{video}</View>")) == ()


def test_label_studio_has_templates() -> None:
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}: make installs it, or set LABEL_STUDIO_BIN")
    assert set(TEMPLATES) >= set(SERVED)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_served_or_has_reasons(template: str) -> None:
    controls = {spell(node) for node in ET.fromstring(TEMPLATES[template]).iter() if node.get("toName")}
    served, reasons = outcome(TEMPLATES[template])
    assert served == SERVED.get(template, [])
    with_reason = {control for control in controls if control in reasons}
    if served:
        answered = {control for control in controls if control.split('"')[1] in served}
        assert answered | with_reason | PARTS.get(template, set()) == controls
    else:
        assert with_reason


def outcome(text: str) -> tuple[list[str], str]:
    """Return the names of the control tags that are served, and all that is said about the others."""
    try:
        config = label_config.checked(text)
    except LabelConfigError as error:
        return [], f"{error.what} {error.fix}"
    return [tag.from_name for tag in config.tags], " ".join(config.warnings)
