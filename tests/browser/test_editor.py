"""Label Studio's own editor in a real Chromium: it opens our pre-annotations and submits the same regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets.writer import LabeledImage
from backend.labelstudio import label_config, region_choices, tags
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.loop.scoring.page_predictions import of_pages
from backend.types import Json, LabeledBox, Prediction
from tests import drawings, kinds
from tests.browser import open_first, signed_in, submit
from tests.drawings import SIZE
from tests.kinds import ALL_KINDS, KINDS, Kind
from tests.studio_database import LOGIN
from tests.support import CONFIG, ImageSite

pytestmark = [pytest.mark.label_studio, pytest.mark.browser]

VERSION = "yolo11n-v1"
# Their shapes, and the form of two entries, go through the editor with other tags too.
LIKE_OTHERS = ("Polygon", "Brush", "Bitmask", "Vector", "Ellipse", "EllipseLabels model_obb")


@pytest.fixture(scope="module")
def page(label_studio: LabelStudioProcess) -> Iterator[Page]:
    with signed_in(label_studio.url, LOGIN["email"], LOGIN["password"]) as page:
        yield page


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in ALL_KINDS],
)
def test_a_pre_annotation_goes_through_the_editor(
    label_studio: LabelStudioProcess, page: Page, name: str, tmp_path: Path
) -> None:
    kind = ALL_KINDS[name]
    tag = kind.tag()
    (picture,) = drawings.pictures(tmp_path / "pictures", kind.draw, 1, seed=3)
    sent, done = through_the_editor(label_studio, page, kind, picture, kinds.prediction(tag, kinds.drawn(tag, picture)))
    assert {item["type"] for item in sent} == set(kind.types)
    assert sorted(item["type"] for item in done) == sorted(item["type"] for item in sent)
    assert tags.explain(tag, done) == ()
    kinds.assert_same(tags.decode(tag, done), tags.decode(tag, sent))


def test_points_under_a_point_go_through_the_editor(
    label_studio: LabelStudioProcess, page: Page, tmp_path: Path
) -> None:
    kind = replace(KINDS["KeyPointLabels"], config="keypointlabels-alone.xml", types=("keypointlabels",))
    tag = kind.tag()
    (picture,) = drawings.pictures(tmp_path / "pictures", kind.draw, 1, seed=3)
    sent, done = through_the_editor(label_studio, page, kind, picture, kinds.prediction(tag, kinds.drawn(tag, picture)))
    assert [item.get("parentID") for item in done] == [item.get("parentID") for item in sent]
    assert len(tags.decode(tag, done)) == 2
    kinds.assert_same(tags.decode(tag, done), tags.decode(tag, sent))


def test_regions_of_pages_go_through_the_editor(
    label_studio: LabelStudioProcess, page: Page, images: ImageSite
) -> None:
    config = CONFIG.replace('value="$image"', 'valueList="$pages"')
    (tag,) = label_config.parse(config)
    shapes = [LabeledBox("cat", (0.5, 0.5, 0.2, 0.2)), LabeledBox("dog", (0.3, 0.3, 0.2, 0.2))]
    predicted = of_pages(tag, [kinds.prediction(tag, shapes[:1]), kinds.prediction(tag, shapes)])
    regions = tags.encode(tag, predicted, tag.labels, 0.5, "1")
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("pages", config)
        shown = [images.add(f"page-{number}.png", number, SIZE) for number in range(2)]
        client.http.send("POST", f"/api/projects/{project}/import", [{"pages": shown}])
        (task,) = client.tasks.unlabeled(project)
        client.prediction_import.run(project, VERSION, [PredictionRow(task.id, 0.0, regions)])
        client.projects.set_model_version(project, VERSION)
        open_first(page, client.url, project)
        done = submit(page, client, project).result
    assert [item.get("item_index") for item in done] == [0, 1, 1]
    kinds.assert_same(tags.decode(tag, done), tags.decode(tag, [region.as_json() for region in regions]))


def test_answers_about_boxes_go_through_the_editor(
    label_studio: LabelStudioProcess, page: Page, images: ImageSite
) -> None:
    """The editor stores an answer of an annotator as it stores ours: under the id of the box, with all of its value."""
    question = (
        '<Choices name="age" toName="image" perRegion="true" whenLabelValue="cat"><Choice value="old"/>'
        '<Choice value="young"/></Choices></View>'
    )
    config = CONFIG.replace("</View>", question)
    tag, about = label_config.parse(region_choices.marked(config))
    shapes = [LabeledBox("cat", (0.3, 0.5, 0.2, 0.2)), LabeledBox("cat", (0.7, 0.5, 0.2, 0.2))]
    predicted = kinds.prediction(tag, shapes)
    boxes = tags.encode(tag, predicted, tag.labels, 0.5, "1")
    table = np.array([[0.9, 0.1]], np.float32)
    seen = replace(predicted, boxes=predicted.boxes[:1], class_probs=table, confidence=table[:, 0])
    sent = [*boxes, *region_choices.encode(about, boxes, seen, about.labels, 0.5)]
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("answers about boxes", config)
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": images.add("cats.png", 1, SIZE)}])
        (task,) = client.tasks.unlabeled(project)
        client.prediction_import.run(project, VERSION, [PredictionRow(task.id, 0.0, tuple(sent))])
        client.projects.set_model_version(project, VERSION)
        open_first(page, client.url, project)
        page.locator(".lsf-outliner-item").nth(1).click()
        page.get_by_text("young").click()
        done = submit(page, client, project).result
    stored = {item["id"]: item for item in done if item["type"] == "choices"}
    by_box = {item["id"]: item for item in done if item["type"] == "rectanglelabels"}
    assert [item["value"]["choices"] for item in stored.values()] == [["old"], ["young"]]
    assert stored.keys() == by_box.keys() == {region.id for region in boxes}
    for name, item in stored.items():
        assert item["value"] == {**by_box[name]["value"], "choices": item["value"]["choices"]}
    assert sent[-1].value.keys() == stored[sent[-1].id]["value"].keys()
    learned = tags.read(about, done, SIZE).boxes
    assert [box.label for box in learned] == ["old", "young"]
    kinds.assert_same(learned, [replace(box, label=label) for box, label in zip(shapes, about.labels, strict=True)])


def through_the_editor(
    label_studio: LabelStudioProcess, page: Page, kind: Kind, picture: LabeledImage, predicted: Prediction
) -> tuple[list[Json], tuple[Mapping[str, Any], ...]]:
    """Return a prediction's regions as we send them, and as the editor submits them."""
    tag = kind.tag()
    regions = tags.encode(tag, predicted, tag.labels, 0.5, "1")
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create(kind.config, kind.label_config())
        client.tasks.upload_images(project, [picture.path])
        (task,) = client.tasks.unlabeled(project)
        client.prediction_import.run(project, VERSION, [PredictionRow(task.id, 0.0, regions)])
        client.projects.set_model_version(project, VERSION)
        open_first(page, client.url, project)
        done = submit(page, client, project)
    assert problems == []
    return [region.as_json() for region in regions], done.result


@pytest.mark.parametrize(
    "box",
    [
        (5, 10, 40, 12, -0.5),  # its corners lie above and left of the image
        (94, 60, 30, 14, 1.9),  # right and below
        (48, 32, 20, 90, 0.1),  # longer than the image is high
        (48, 32, 160, 4, 0.6),  # longer than its diagonal
    ],
)
def test_a_rotated_box_that_leaves_the_image_goes_through_the_editor(
    label_studio: LabelStudioProcess, page: Page, box: tuple[float, ...], tmp_path: Path
) -> None:
    """Label Studio refuses a whole prediction if one region has a number above 100."""
    kind = KINDS["RectangleLabels model_obb"]
    tag = kind.tag()
    (picture,) = drawings.pictures(tmp_path / "pictures", kind.draw, 1, seed=3)
    predicted = kinds.prediction(tag, kinds.drawn(tag, picture)[:1])
    predicted = replace(predicted, rotated=np.array([box], dtype=np.float32))
    sent, done = through_the_editor(label_studio, page, kind, picture, predicted)
    kinds.assert_same(tags.decode(tag, done), tags.decode(tag, sent))
