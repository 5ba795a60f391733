"""What Label Studio's own editor says of an annotation: how long it took, and what became of each predicted box."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.connection import PredictionRow
from backend.labelstudio.regions import region_id
from backend.loop.context import Context
from backend.loop.insight import effort
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Region
from tests.browser import open_first, signed_in, submit
from tests.studio_database import LOGIN
from tests.support import CONFIG, open_context, publish

pytestmark = [pytest.mark.label_studio, pytest.mark.browser]

PLACES = {0: (5, 5), 1: (55, 5), 2: (5, 55), 3: (55, 55)}  # row -> x, y in percent


def region(task_id: int, row: int) -> Region:
    """Return a region of a cat as version 1 writes it."""
    x, y = PLACES[row]
    value = {"x": x, "y": y, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
    name = region_id(f"{task_id}/yolo11n-v1", "label", row)
    return Region(name, "rectanglelabels", "label", "image", value, 0.5, 400, 300)


def point(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return the place on the screen of a point of the image, given in percent."""
    box = page.locator(".konvajs-content").first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100


def correct(page: Page) -> None:
    """Keep the first box, move the second, relabel the third, delete the fourth, and draw a fifth."""
    page.mouse.click(*point(page, 70, 20))
    page.mouse.move(*point(page, 70, 20))
    page.mouse.down()
    page.mouse.move(*point(page, 73, 26), steps=5)
    page.mouse.up()
    page.keyboard.press("Escape")
    page.mouse.click(*point(page, 20, 70))
    page.locator(".lsf-label", has_text="dog").first.click()
    page.keyboard.press("Escape")
    page.mouse.click(*point(page, 70, 70))
    page.keyboard.press("Backspace")
    page.locator(".lsf-label", has_text="dog").first.click()
    page.mouse.move(*point(page, 40, 40))
    page.mouse.down()
    page.mouse.move(*point(page, 50, 50), steps=5)
    page.mouse.up()


def test_the_editor_tells_what_became_of_each_box(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, tmp_path: Path
) -> None:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    Image.fromarray(np.full((300, 400, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    with (
        open_context(settings.model_copy(update=keys)) as context,
        signed_in(label_studio.url, LOGIN["email"], LOGIN["password"]) as page,
    ):
        project = _project(context, tiny_weights, tmp_path / "grey.png")
        begun = time.monotonic()
        open_first(page, label_studio.url, project)
        correct(page)
        submit(page, context.label_studio, project)
        spent = time.monotonic() - begun
        assert not effort.measure(context, project)
        (entry,) = context.store.state.effort(project).efforts
        (made,) = context.label_studio.annotations.submitted(project, [entry.task_id])
        origins = sorted(item.get("origin") for item in made.result)
    assert (entry.kept, entry.moved, entry.relabeled, entry.deleted, entry.added) == (1, 1, 1, 1, 1), origins
    assert entry.version == 1
    assert entry.seconds is not None
    assert 0 < entry.seconds < spent


def _project(context: Context, weights: Path, picture: Path) -> int:
    client = context.label_studio
    project = client.projects.create("corrections", CONFIG)
    client.tasks.upload_images(project, [picture])
    (task,) = client.tasks.unlabeled(project)
    context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
    version = publish(context.store, project, weights)
    regions = tuple(region(task.id, row) for row in PLACES)
    client.prediction_import.run(project, version.name, [PredictionRow(task.id, 0.0, regions)])
    client.projects.set_model_version(project, version.name)
    return project
