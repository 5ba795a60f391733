"""The page in Chromium: home, Now and Settings, live parts, forms and errors."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from backend.loop.context import Context
from backend.queue.run_state import LabelCounts, TrainingProgress
from backend.store.store import ProjectRecord
from tests.browser.views import check_view, open_views
from tests.support import CONFIG, serve

pytestmark = pytest.mark.browser


@pytest.fixture
def url(context: Context) -> Iterator[str]:
    """The address of a backend with project 7."""
    context.store.save_project(ProjectRecord(7, CONFIG, '{"retrain_every": 30}', "", "", ""))
    with serve(context) as client:
        yield str(client.base_url).rstrip("/")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        pytest.param("/", "home", marks=pytest.mark.screenshots("home")),
        pytest.param("/projects/7/now", "now", marks=pytest.mark.screenshots("now")),
        pytest.param("/projects/7/settings", "settings", marks=pytest.mark.screenshots("settings")),
    ],
)
def test_a_view_is_accessible_and_fits(url: str, address: str, name: str) -> None:
    with open_views(url) as page:
        check_view(page, address, name)


def test_home_without_a_project_shows_the_address_to_copy(context: Context) -> None:
    with serve(context) as client, open_views(str(client.base_url).rstrip("/")) as page:
        check_view(page, "/", "home-empty")
        expect(page.locator("#address")).to_have_text(str(client.base_url).rstrip("/"))
        expect(page.get_by_text("Label Studio answers, and the token works")).to_be_visible()


def test_counts_and_the_training_bar_move_without_a_reload(url: str, context: Context) -> None:
    with open_views(url) as page:
        page.goto("/projects/7/now")
        expect(page.get_by_text("The labels are not counted yet.")).to_be_visible()
        context.progress.set_counts(7, LabelCounts(tasks=50, labeled=12, new=12))
        expect(page.get_by_text("12 of 30 new labels until version 1.")).to_be_visible()
        with context.lock(7, "training"):
            context.progress.set_training(
                7, TrainingProgress("running", "train", 0.25, 40.0, epoch=2, epochs=8, losses={"box_loss": 1.5})
            )
            bar = page.get_by_role("progressbar", name="Progress of the training")
            expect(bar).to_have_attribute("value", "25.0")
            expect(page.get_by_text("epoch 2 of 8, 40 s left")).to_be_visible()
            context.progress.set_training(7, TrainingProgress("running", "evaluate", 0.9, 4.0))
            expect(bar).to_have_attribute("value", "90.0")


def test_a_button_starts_a_training_and_says_so(url: str, context: Context) -> None:
    with open_views(url) as page:
        page.goto("/projects/7/now")
        page.get_by_role("button", name="Train now").click()
        expect(page.get_by_text("The training is queued.")).to_be_visible()
        assert context.progress.training(7).state == "queued"
        page.reload()
        expect(page.get_by_text("The training is queued. It starts")).to_have_count(0)


def test_a_pause_is_shown_with_who_and_when_and_ends_again(url: str, context: Context) -> None:
    with open_views(url) as page:
        page.goto("/projects/7/now")
        expect(page.get_by_text("Nobody has paused, pinned, trained or rolled back here yet.")).to_be_visible()
        page.get_by_role("button", name="Pause the loop").click()
        entry = page.get_by_role("region", name="What people did").get_by_role("row").nth(1)
        expect(entry).to_contain_text("127.0.0.1")
        expect(entry).to_contain_text("pause")
        context.progress.set_counts(7, LabelCounts(tasks=50, labeled=40, new=40))
        expect(
            page.get_by_text("The loop is paused by 127.0.0.1: 40 new labels, and no training starts.")
        ).to_be_visible()
        page.get_by_role("button", name="Resume the loop").click()
        expect(page.get_by_text("40 new labels: the training of version 1 is due.")).to_be_visible()
        check_view(page, "/projects/7/now", "now-journal")


def test_the_settings_of_the_project_come_first(url: str) -> None:
    with open_views(url) as page:
        page.goto("/projects/7/settings")
        row = page.get_by_role("row").filter(has=page.get_by_text("RETRAIN_EVERY", exact=True))
        expect(row).to_contain_text("extra params")
        expect(row).to_contain_text("30")


def test_an_error_is_a_page_with_the_cure(url: str) -> None:
    answer = httpx.get(f"{url}/projects/8/now", headers={"accept": "text/html"}, timeout=60)
    assert answer.status_code == 404
    assert "project 8 was never set up" in answer.text
    assert "What to do:" in answer.text
    assert httpx.get(f"{url}/projects/8/now", timeout=60).json()["error"] == "project 8 was never set up"
