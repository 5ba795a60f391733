"""The view Next in Chromium, beside a real Label Studio: the same next task, and pins change it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.insight.next_tasks import next_tasks
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import ControlTag
from tests.browser.views import check_view, lasso, open_views, place_on_map
from tests.queue_studio import Studio, open_studio
from tests.support import CONFIG, ImageSite, serve, sign_up

pytestmark = [pytest.mark.browser, pytest.mark.label_studio]
TAG: ControlTag = label_config.parse(CONFIG)[0]


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        studio.client.projects.set_sampling(studio.project)
        yield studio


@pytest.fixture
def url(studio: Studio) -> Iterator[str]:
    with serve(studio.context) as client:
        yield str(client.base_url).rstrip("/")


def next_task(client: LabelStudioClient, project: int) -> int:
    """Return the task that Label Studio hands to the client's user, and locks for them."""
    task = client.tasks.next(project)
    assert task is not None
    return task.id


@pytest.fixture
def colleague(label_studio: LabelStudioProcess) -> Iterator[LabelStudioClient]:
    """Another annotator, whose lock on a task does not bind the first one."""
    email, password = f"{uuid.uuid4().hex}@example.com", "another-password"
    with LabelStudioClient(label_studio.url, label_studio.api_key) as admin:
        sign_up(admin, email, password)
    token = personal_access_token(label_studio.url, email, password)
    with LabelStudioClient(label_studio.url, token) as client:
        yield client


def shown(page: Page) -> list[str]:
    return page.locator("article.tile h3 a").all_inner_texts()


@pytest.mark.screenshots("next")
def test_the_first_task_is_label_studios_and_pins_change_it(
    studio: Studio, url: str, colleague: LabelStudioClient
) -> None:
    with open_views(url) as page:
        address = f"/projects/{studio.project}/next"
        check_view(page, address, "next")
        names = shown(page)
        assert len(names) == 4
        assert names[0] == f"Task {next_task(colleague, studio.project)}"
        first = page.locator("article.tile").first
        expect(first.locator("li").first).to_contain_text("class_entropy")
        expect(first.locator(".small")).to_contain_text("place 1, shown as 20.00%")
        picture = first.locator("img")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        assert first.locator("path").count() > 0

        page.locator("article.tile").last.get_by_role("button", name="To the front").click()
        expect(page.locator(".notice")).to_contain_text("is at the front of the queue now")
        studio.settle()
        page.goto(address)
        assert shown(page)[0] == names[-1]
        expect(page.locator("article.tile").first.locator("li").first).to_have_text("pinned to the front")
        assert f"Task {next_task(studio.client, studio.project)}" == names[-1]

        page.locator("article.tile").first.get_by_role("button", name="Unpin").click()
        studio.settle()
        page.goto(address)
        assert shown(page) == names


def test_a_lasso_around_the_last_task_makes_it_label_studios_next(studio: Studio, url: str) -> None:
    last = next_tasks(studio.context, studio.project, TAG).tasks[-1].task_id
    drawn = studio.context.store.maps.load(studio.project, 1, tag="label")
    assert drawn is not None
    with open_views(url) as page:
        page.goto(f"/projects/{studio.project}/pool")
        canvas = page.locator("[data-map][data-loaded=points] canvas.points")
        expect(canvas).to_be_visible()
        x, y = place_on_map(canvas, drawn.places, drawn.task_ids.tolist().index(last))
        lasso(page, ((x - 6, y - 6), (x + 6, y - 6), (x + 6, y + 6), (x - 6, y + 6), (x - 6, y - 4)))
        expect(page.get_by_text("1 task is selected.")).to_be_visible()
        page.get_by_role("button", name="Pin to the front of the queue").click()
        expect(page.get_by_text("1 task goes to the front of the queue")).to_be_visible()
    studio.settle()
    assert next_task(studio.client, studio.project) == last


def test_another_strategy_is_shown_without_writing(studio: Studio, url: str) -> None:
    before = [task.task_id for task in next_tasks(studio.context, studio.project, TAG).tasks]
    with open_views(url) as page:
        page.goto(f"/projects/{studio.project}/next")
        selector = page.get_by_label("Show the order under")
        expect(selector.locator("option[value=bald]")).to_be_disabled()
        expect(selector.locator("option[value=bald]")).to_contain_text("no committee has voted yet")
        selector.select_option("random")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_text("Nothing is written.")).to_be_visible()
        expect(page.get_by_text("rank correlation")).to_be_visible()
        expect(page.get_by_role("button", name="Use random for this project")).to_be_visible()
        assert sorted(shown(page)) == sorted(f"Task {task}" for task in before)
    assert [task.task_id for task in next_tasks(studio.context, studio.project, TAG).tasks] == before


def test_the_button_makes_a_strategy_the_projects(studio: Studio, url: str) -> None:
    studio.client.projects.attach_backend(studio.project, url, "yolo")
    studio.settle()
    with open_views(url) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"/projects/{studio.project}/next?strategy=margin")
        page.get_by_role("button", name="Use margin for this project").click()
        expect(page.locator(".notice").first).to_contain_text("margin orders the queue now")
        studio.settle()
        (attached,) = studio.client.projects.backends(studio.project)
        assert json.loads(attached.extra_params) == {"STRATEGY": "margin"}
        page.goto(f"/projects/{studio.project}/next")
        assert shown(page)[0] == f"Task {next_task(studio.client, studio.project)}"


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        ("best", "unknown strategy 'best'"),
        ("<b>x</b>", "unknown strategy"),
        ("shape", "'shape' needs"),
        ("bald", "needs the votes of a committee, and this pool has none yet"),
    ],
)
def test_a_strategy_that_cannot_be_shown_says_why(studio: Studio, url: str, strategy: str, problem: str) -> None:
    with open_views(url) as page:
        page.goto(f"/projects/{studio.project}/next?strategy={strategy}")
        expect(page.locator(".notice")).to_contain_text(problem)


def test_a_project_without_an_order(studio: Studio, url: str) -> None:
    project = studio.client.projects.create("empty", CONFIG)
    studio.context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
    with open_views(url) as page:
        page.goto(f"/projects/{project}/next")
        expect(page.get_by_text("No task has a place yet.")).to_be_visible()
