"""The views Is it learning? and Versions in Chromium, with pictures of a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from backend.cli.label_studio_process import LabelStudioProcess
from backend.loop.context import Context
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord
from tests.browser import chromium_page
from tests.browser.views import check_view, open_views
from tests.evaluated import evaluation, evaluation_of, judged, labeled_since, publish_evaluated
from tests.support import CONFIG, TWO_TAGS, ImageSite, open_context, publish, serve

pytestmark = pytest.mark.browser

LABELS = ("<b>cat</b>", "שלום חתול", "🐈 &amp;", "x" * 300)
AWKWARD = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    + "".join(f'<Label value="{escape(label)}"/>' for label in LABELS)
    + "</RectangleLabels></View>"
)
# From the right edge of the plot to the left one of the nearest name, in pixels.
LEAST_DISTANCE = """(figure) => Math.min(1000, ...[...figure.querySelectorAll(".annotation-text")].map(
  (name) => name.getBoundingClientRect().left - figure.querySelector(".nsewdrag").getBoundingClientRect().right))"""


@dataclass(frozen=True)
class Site:
    """A backend, and the project that the page shows."""

    context: Context
    url: str
    project: int

    def address(self, view: str, query: str = "") -> str:
        return f"/projects/{self.project}/{view}{query}"


def learn(context: Context, project: int, weights: Path, tasks: Sequence[int], classes: Sequence[str]) -> None:
    """Publish four accepted versions and a rejected one, judged on these tasks."""
    for place, right in enumerate((0.2, 0.5, 0.7, 0.3, 0.8)):
        since = labeled_since(place, chance=2, picked=14) if place else None
        images = judged(tasks, right, classes, seed=place)
        stored, metrics = evaluation(images, classes, learned=20 * (place + 1), since=since)
        promoted, settings = place != 3, {"epochs": 10 + place, "pretrained": not place}
        publish_evaluated(
            *(context, project, weights, stored, metrics),
            **{"promoted": promoted, "classes": classes, "tasks": tasks, "settings": settings},  # type: ignore[arg-type]
        )
    context.store.activate(project, 5)


@pytest.fixture
def site(settings: Settings, label_studio: LabelStudioProcess, images: ImageSite, tiny_weights: Path) -> Iterator[Site]:
    """A project with twelve real pictures, and labels that are hard to show."""
    access = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=access)) as context:
        for number in range(12):
            images.add(f"{number}.png", number)
        client = context.label_studio
        project = client.projects.create("page", AWKWARD)
        client.tasks.upload_images(project, sorted(images.folder.glob("*.png")))
        context.store.save_project(ProjectRecord(project, AWKWARD, "", "", "", ""))
        learn(context, project, tiny_weights, [task.id for task in client.tasks.unlabeled(project)], LABELS)
        with serve(context) as http:
            yield Site(context, str(http.base_url).rstrip("/"), project)


@pytest.fixture
def lone(context: Context) -> Iterator[Site]:
    """A project without any version, and without Label Studio."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    with serve(context) as http:
        yield Site(context, str(http.base_url).rstrip("/"), 7)


@pytest.mark.label_studio
@pytest.mark.screenshots("learning")
def test_is_it_learning_shows_curves_truth_and_wrong_answers_as_pictures(site: Site) -> None:
    with open_views(site.url) as page:
        check_view(page, site.address("learning"), "learning")
        for figure in page.locator("figure.chart").all():
            figure.scroll_into_view_if_needed()
            expect(figure).to_have_attribute("data-drawn", "yes")
            tops = figure.locator(".annotation-text").evaluate_all(
                "names => names.map(name => name.getBoundingClientRect().top).sort((a, b) => a - b)"
            )
            assert all(below - above > 10 for above, below in pairwise(tops)), tops
            assert figure.evaluate(LEAST_DISTANCE) > 0, "a name lies on the plot"
        expect(page.get_by_text("The next 100 labeled images promise")).to_be_visible()
        expect(page.get_by_text("not judged yet (2 images; 10 images are needed)").first).to_be_visible()
        matrix = page.get_by_role("region", name="Confusion matrix")
        expect(matrix.get_by_role("columnheader", name="<b>cat</b>")).to_have_count(1)
        tiles = page.locator(".tile")
        assert 1 < tiles.count() <= 24
        tiles.first.scroll_into_view_if_needed()
        picture = tiles.first.locator("img")
        expect(picture).to_be_visible()
        picture.evaluate("image => image.decode()")  # fails for a picture that cannot be shown
        assert tiles.first.locator("path").count() >= 1
        assert page.locator("main b").count() == 0  # the label's HTML is text


@pytest.mark.label_studio
def test_another_version_can_be_looked_at(site: Site) -> None:
    with open_views(site.url) as page:
        page.goto(site.address("learning"))
        page.get_by_label("Version", exact=True).select_option(label="yolo11n-v4 (rejected)")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_text("Answers of yolo11n-v4 on 12 held-out images.")).to_be_visible()


@pytest.mark.label_studio
@pytest.mark.screenshots("versions")
def test_versions_are_listed_and_two_are_compared(site: Site) -> None:
    with open_views(site.url) as page:
        check_view(page, site.address("versions"), "versions")
        table = page.get_by_role("region", name="Table of versions")
        expect(table.get_by_role("row")).to_have_count(6)
        expect(table.get_by_role("row").nth(1)).to_contain_text("serves")
        expect(table.get_by_role("row").nth(2)).to_contain_text("Rejected: its weights are not kept")
        expect(table.get_by_role("row").nth(1)).to_contain_text("epochs: 13 → 14")
        page.get_by_label("Before").select_option(value="1")
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_text("Per class, on 12 common held-out images")).to_be_visible()
        check_view(page, site.address("versions", "?first=1&second=5"), "versions-compared")
        pairs = page.locator(".pair")
        assert pairs.count() > 1
        pairs.first.scroll_into_view_if_needed()
        pairs.first.locator("img").first.evaluate("image => image.decode()")


@pytest.mark.label_studio
def test_a_roll_back_is_confirmed_and_done(site: Site) -> None:
    with open_views(site.url) as page:
        page.goto(site.address("versions"))
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Roll back to 2").click()
        accepted = site.context.store.current(site.project)
        assert accepted is not None
        assert accepted.number == 5
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Roll back to 2").click()
        expect(page.get_by_text("yolo11n-v2 is accepted.")).to_be_visible()
        expect(page.get_by_role("button", name="Promote 5")).to_be_visible()
        accepted = site.context.store.current(site.project)
        assert accepted is not None
        assert accepted.number == 2
        assert site.context.store.pointers.is_chosen(site.project)


@pytest.mark.label_studio
def test_weights_are_downloaded_as_they_were_published(site: Site, tmp_path: Path, tiny_weights: Path) -> None:
    with open_views(site.url) as page:
        page.goto(site.address("versions"))
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download the weights of yolo11n-v5").click()
        waiting.value.save_as(tmp_path / "weights.pt")
        assert waiting.value.suggested_filename == "yolo11n-v5-label.pt"
    assert file_sha256(tmp_path / "weights.pt") == file_sha256(tiny_weights)


@pytest.mark.parametrize("view", ["learning", "versions"])
def test_without_a_version_the_view_says_so(lone: Site, view: str) -> None:
    with open_views(lone.url) as page:
        check_view(page, lone.address(view), f"{view}-empty")
        expect(page.get_by_text("There is no version yet", exact=False).first).to_be_visible()


@pytest.mark.parametrize("view", ["learning", "versions"])
def test_a_version_without_held_out_images_says_so(lone: Site, tiny_weights: Path, view: str) -> None:
    for _ in range(2):
        publish_evaluated(lone.context, 7, tiny_weights, evaluation_of(None, None), None)
    with open_views(lone.url) as page:
        check_view(page, lone.address(view), f"{view}-unjudged")
        expect(page.get_by_text("no held-out images", exact=False).first).to_be_visible()


def test_several_tags_have_a_switch(lone: Site, tiny_weights: Path) -> None:
    lone.context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    publish(lone.context.store, 7, tiny_weights)
    with open_views(lone.url) as page:
        page.goto(lone.address("learning"))
        expect(page.get_by_text("was trained by an earlier release", exact=False)).to_be_visible()
        page.get_by_role("navigation", name="Control tags").get_by_role("link", name="second").click()
        expect(page.get_by_text("There is no version yet.").first).to_be_visible()


def test_while_label_studio_is_down_all_but_the_pictures_is_there(lone: Site, tiny_weights: Path) -> None:
    stored, metrics = evaluation(judged(range(100, 120), 0.5))
    publish_evaluated(lone.context, 7, tiny_weights, stored, metrics, tasks=range(100, 120))
    with chromium_page() as page:
        page.goto(lone.url + lone.address("learning"))
        expect(page.get_by_role("region", name="Confusion matrix")).to_be_visible()
        expect(page.locator(".tile").first).to_contain_text("Task 1")
    answer = httpx.get(lone.url + "/projects/7/tasks/100/picture", timeout=60)
    assert answer.status_code >= 500
    assert "Traceback" not in answer.text
