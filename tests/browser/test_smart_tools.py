"""Label Studio's smart tools by mouse: a click and a rough rectangle become the object that the model sees there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import FloatRect, Page

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config, tags
from backend.loop import interactive, project_setup
from backend.loop.context import Context
from backend.settings import Settings
from backend.storage import file_sha256
from backend.types import AnnotatedTask, Json, Task
from backend.yolo import approved_weights
from backend.yolo.runtime import load_model
from tests.browser import open_first, signed_in, submit
from tests.sam_weights import mobile_sam
from tests.studio_database import LOGIN
from tests.support import ImageSite, open_context, publish, serve, tiny_yolo

pytestmark = [pytest.mark.label_studio, pytest.mark.browser, pytest.mark.torch, pytest.mark.redis]

LABELS = '<Label value="cat"/><Label value="dog"/>'
BOXES = f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels>'
SMART_BOXES = BOXES.replace(">", ' smart="true">', 1)
CLICKS = f'<KeyPointLabels name="point" toName="image" smartOnly="true">{LABELS}</KeyPointLabels>'


@pytest.fixture(scope="module")
def small_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose boxes are a quarter of a square image, one around each eighth of it."""
    path = tiny_yolo(tmp_path_factory.mktemp("weights") / "small.pt")
    import torch

    model = load_model(path)
    head = model.model[-1]
    with torch.no_grad():
        for sides, scores in zip(head.cv2, head.cv3, strict=True):
            sides[-1].weight.zero_()
            sides[-1].bias.copy_(torch.tensor([-20.0, 20.0, *[-20.0] * 14]).repeat(4))  # one cell to each side
            if scores is not head.cv3[0]:
                scores[-1].bias.fill_(-20)  # only the finest cells see something
    torch.save({"model": model, "train_args": {}}, path)
    return path


@dataclass(frozen=True)
class Editor:
    """A task of a project with smart tools, open in Label Studio's editor, and its image there."""

    context: Context
    project: int
    page: Page
    canvas: FloatRect
    task: Task
    config: str

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return a place in shares of the image as pixels of the page."""
        return self.canvas["x"] + x * self.canvas["width"], self.canvas["y"] + y * self.canvas["height"]

    def submit(self) -> AnnotatedTask:
        return submit(self.page, self.context.label_studio, self.project)

    def object_in_the_middle(self) -> Json:
        """Return the box in percent that a click into the middle of the image gets."""
        value = {"x": 50, "y": 45, "width": 1, "keypointlabels": ["dog"]}
        click = {"id": "r", "type": "keypointlabels", "from_name": "p", "to_name": "image", "value": value}
        answer = interactive.suggest(self.context, self.project, self.config, self.task, [click])
        assert answer.reason == ""
        box: Json = answer.regions[0]["value"]
        assert box["width"] < 40
        assert box["y"] + box["height"] < 85
        return box


@contextmanager
def editor(
    studio: LabelStudioProcess, settings: Settings, images: ImageSite, weights: Path, config: str
) -> Iterator[Editor]:
    """Connect the backend to a new project as an admin does, and open its task with "Auto-Annotation" on."""
    keys = {"label_studio_url": studio.url, "label_studio_api_key": studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context, serve(context) as server:
        client = context.label_studio
        project = client.projects.create("smart", config)
        images.add("blobs.png", 5)
        client.tasks.upload_images(project, [images.folder / "blobs.png"])
        context.store.activate(project, publish(context.store, project, weights).number)
        project_setup.connect(context, project, str(server.base_url))
        client.http.send("PATCH", f"/api/projects/{project}/", {"show_collab_predictions": False})
        (task,) = client.tasks.unlabeled(project)
        with signed_in(studio.url, LOGIN["email"], LOGIN["password"]) as page:
            open_first(page, studio.url, project)
            page.get_by_text("Auto-Annotation").click()
            canvas = page.locator("canvas").first.bounding_box()
            assert canvas is not None
            yield Editor(context, project, page, canvas, task, config)


def labels(done: AnnotatedTask, config: str) -> list[str]:
    """Return the labels that a training would learn; nothing of the annotation is left out."""
    (tag,) = label_config.parse(config)
    assert tags.explain(tag, done.result) == ()
    return [box.label for box in tags.decode(tag, done.result)]


def test_a_click_becomes_the_box_of_the_object(
    label_studio: LabelStudioProcess, settings: Settings, images: ImageSite, small_boxes: Path
) -> None:
    config = f'<View><Image name="image" value="$image"/>{CLICKS}{BOXES}</View>'
    with editor(label_studio, settings, images, small_boxes, config) as smart:
        page, box = smart.page, smart.object_in_the_middle()
        (backend,) = smart.context.label_studio.projects.backends(smart.project)
        assert backend.is_interactive
        page.get_by_text("Auto-Accept Suggestions").click()
        page.get_by_text("dog").first.click()
        page.locator(".lsf-toolbar .lsf-tool_smart").first.click()
        with page.expect_response(re.compile("interactive-annotating")) as response:
            page.mouse.click(*smart.at(0.5, 0.45))
        data = response.value.json()["data"]
        assert (len(data["result"]), data["reason"]) == (1, "")
        page.get_by_text("dog", exact=True).nth(2).wait_for()  # beside the two labels, in the list of regions
        done = smart.submit()
    assert labels(done, config) == ["dog"]
    (region,) = done.result  # the click is gone
    assert {name: region["value"][name] for name in ("x", "width")} == pytest.approx(
        {name: box[name] for name in ("x", "width")}, abs=0.01
    )


def test_a_rough_rectangle_gives_way_to_the_box_that_is_accepted(
    label_studio: LabelStudioProcess, settings: Settings, images: ImageSite, small_boxes: Path
) -> None:
    config = f'<View><Image name="image" value="$image"/>{SMART_BOXES}</View>'
    with editor(label_studio, settings, images, small_boxes, config) as smart:
        page, box = smart.page, smart.object_in_the_middle()
        left, top = box["x"] / 100, box["y"] / 100
        right, bottom = left + box["width"] / 100, top + box["height"] / 100
        page.get_by_text("cat").first.click()
        page.locator(".lsf-toolbar .lsf-tool_smart").first.click()
        page.mouse.move(*smart.at(left - 0.02, top - 0.02))
        page.mouse.down()
        page.mouse.move(*smart.at(left, top), steps=3)
        page.mouse.move(*smart.at(right + 0.02, bottom + 0.02), steps=3)
        with page.expect_response(re.compile("interactive-annotating")) as response:
            page.mouse.up()
        (suggested,) = response.value.json()["data"]["result"]
        page.wait_for_function("Htx.annotationStore.selected.suggestions.size == 1")
        value = suggested["value"]
        across, down = smart.at((value["x"] + value["width"] / 2) / 100, (value["y"] + value["height"]) / 100)
        page.mouse.move(across + 16, down + 26)  # the green tick is right of the middle, 10 pixels below the box
        page.mouse.click(across + 16, down + 26)
        page.wait_for_function("Htx.annotationStore.selected.suggestions.size == 0")
        done = smart.submit()
    assert labels(done, config) == ["cat"]
    (region,) = done.result  # the rough rectangle would be a second one
    assert (region["id"], region["value"]["width"]) == (suggested["id"], pytest.approx(value["width"], abs=0.01))


def test_a_click_becomes_the_mask_that_sam_sees(
    label_studio: LabelStudioProcess, settings: Settings, images: ImageSite, small_boxes: Path
) -> None:
    config = (
        f'<View><Image name="image" value="$image"/>{CLICKS}'
        f'<BrushLabels name="label" toName="image">{LABELS}</BrushLabels></View>'
    )
    with editor(label_studio, settings, images, small_boxes, config) as smart:
        weights = mobile_sam(smart.context.work_dir)
        listing = smart.context.work_dir / approved_weights.LISTING
        listing.write_text(approved_weights.entry(weights.name, file_sha256(weights)))
        page = smart.page
        page.get_by_text("Auto-Accept Suggestions").click()
        page.get_by_text("cat").first.click()
        page.locator(".lsf-toolbar .lsf-tool_smart").first.click()
        with page.expect_response(re.compile("interactive-annotating"), timeout=120_000) as response:
            page.mouse.click(*smart.at(0.5, 0.45))
        assert len(response.value.json()["data"]["result"]) == 1
        page.get_by_text("cat", exact=True).nth(2).wait_for()
        done = smart.submit()
    assert labels(done, config) == ["cat"]
    (region,) = done.result
    assert region["type"] == "brushlabels"
    (mask,) = tags.decode(label_config.parse(config)[0], done.result)
    assert mask.xywh == pytest.approx((0.5, 0.5, 1, 1), abs=0.03)
