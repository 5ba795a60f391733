"""The loop as people see it: an admin connects the backend, an annotator labels, and the page follows by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import writer
from backend.datasets.writer import Split
from tests.browser import open_first, signed_in
from tests.browser.views import watch_console
from tests.squares import CLASSES, IMGSZ, Learned, squares
from tests.studio_database import LOGIN
from tests.world import World, await_true, label, open_world

pytestmark = [pytest.mark.browser, pytest.mark.label_studio]

PICTURES = 26
EVERY = 24  # a quality needs 10 held-out images: with this share less than 1 draw in 1,000 has fewer
TRAINING_MS = 240_000


@pytest.fixture
def world(label_studio: LabelStudioProcess, tmp_path: Path, learned: Learned) -> Iterator[World]:
    """A backend whose base weights know such pictures, so that a short training gives a version with a quality."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    drawn = squares(pictures, PICTURES, seed=3)
    data_yaml = writer.write(Split(drawn, drawn[:1], held_out=False), CLASSES, tmp_path / "data")
    (tmp_path / "models").mkdir()
    shutil.copy(learned.trained.weights, tmp_path / "models" / "yolo11n.pt")
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(EVERY),
        "EXPLORE_SHARE": "1",
        "VAL_SHARE": "0.7",
        "TRAIN_STEPS": "80",
        "MAX_EPOCHS": "100",
    }
    with open_world(label_studio, tmp_path, data_yaml, settings) as world:
        yield world


def connect(page: Page, world: World, project: int) -> None:
    """Connect the backend on Label Studio's own page."""
    page.goto(f"{world.studio.url}/projects/{project}/settings/ml")
    page.locator("button", has_text="Connect Model").first.click()
    page.fill("input[name=title]", "yolo")
    page.fill("input[name=url]", world.url)
    page.locator("button", has_text="Validate and Save").click()
    await_true(lambda: world.store.project(project) is not None, "the set-up", patience_s=60)


def held_out_images(world: World, project: int) -> int:
    report = world.store.evaluations.report(project, 1, "label")
    assert report is not None
    assert report.held_out is not None
    return report.held_out.images


def test_the_page_follows_the_loop_without_a_reload(world: World) -> None:
    project = world.client.projects.create("birds <b>of</b> prey", world.config)
    world.client.tasks.upload_images(project, [file.path for file in world.data.train])
    with signed_in(world.studio.url, **LOGIN) as studio_page:
        page = studio_page.context.new_page()
        errors = watch_console(page)
        page.goto(world.url)
        expect(page.get_by_role("heading", name="Connect your first project in three steps")).to_be_visible()

        connect(studio_page, world, project)
        expect(page.get_by_role("link", name="birds <b>of</b> prey")).to_be_visible(timeout=30_000)
        page.get_by_role("link", name="birds <b>of</b> prey").click()
        page.evaluate("window.untouched = true")
        expect(page.get_by_text(f"0 of {EVERY} new labels until version 1.")).to_be_visible(timeout=60_000)

        label(world, project, EVERY - 1)
        expect(page.get_by_text(f"{EVERY - 1} of {EVERY} new labels until version 1.")).to_be_visible(timeout=30_000)
        open_first(studio_page, world.studio.url, project)
        studio_page.get_by_test_id("bottombar-submit-button").click()
        bar = page.get_by_role("progressbar", name="Progress of the training")
        expect(bar).to_be_visible(timeout=TRAINING_MS)
        expect(page.get_by_text("yolo11n-v1", exact=True)).to_be_visible(timeout=TRAINING_MS)
        assert page.evaluate("window.untouched"), "the page was loaded again"
        page.get_by_role("link", name="Is it learning?").click()
        expect(page.get_by_text("Answers of yolo11n-v1 on")).to_be_visible()
        curve = page.locator("figure.chart").first
        curve.scroll_into_view_if_needed()
        expect(curve).to_have_attribute("data-drawn", "yes", timeout=60_000)  # the workers are busy meanwhile
        points = page.evaluate("document.querySelector('.js-plotly-plot').data.map(line => [line.name, [...line.x]])")
        assert [EVERY - held_out_images(world, project)] in [x for _, x in points], points
        assert not errors, errors
