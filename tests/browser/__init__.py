"""Label Studio's pages in a real Chromium."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing, contextmanager

from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from backend.labelstudio.client.connection import LabelStudioClient
from backend.types import AnnotatedTask
from tests.support import require_program
from tests.world import await_true

EXPECT_MS = 30_000  # playwright's 5 s are too few where other programs use the machine


@contextmanager
def chromium_page() -> Iterator[Page]:
    """Yield an empty page with cookies and a cache of its own."""
    _, browser = _chromium()
    with closing(browser.new_context(viewport={"width": 1400, "height": 900})) as context:
        yield context.new_page()  # it may open more pages


@functools.cache
def _chromium() -> tuple[Playwright, Browser]:
    """Start Chromium once per process, because a start takes more processor time than most tests."""
    chromium = require_program("chromium")
    expect.set_options(timeout=EXPECT_MS)
    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(
        executable_path=chromium,
        args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
    )
    return playwright, browser


def close_chromium() -> None:
    """End Chromium if this process has started it."""
    if _chromium.cache_info().currsize:
        playwright, browser = _chromium()
        browser.close()
        playwright.stop()
        _chromium.cache_clear()


@contextmanager
def signed_in(url: str, email: str, password: str) -> Iterator[Page]:
    """Yield a page of a user who has just logged in."""
    with chromium_page() as page:
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda address: "/user/login" not in address)
        yield page


def open_first(page: Page, url: str, project: int) -> None:
    """Open the first task of a project for labeling."""
    page.goto(f"{url}/projects/{project}/data")
    page.get_by_role("button", name="Label All Tasks").click()
    page.get_by_test_id("bottombar-submit-button").wait_for()


def submit(page: Page, client: LabelStudioClient, project: int) -> AnnotatedTask:
    """Submit the open task, the only one of its project, without changes; return the stored annotation."""
    page.get_by_test_id("bottombar-submit-button").click()
    await_true(lambda: any(client.annotations.task_ids(project)), "the annotation", patience_s=120)
    page.goto("about:blank")
    (annotated,) = client.annotations.annotated_tasks(project)
    return annotated
