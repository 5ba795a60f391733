"""Label Studio's pages in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.support import require


@contextmanager
def chromium_page() -> Iterator[Page]:
    """Give an empty page."""
    chromium = shutil.which("chromium")
    require(chromium is not None, "chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


@contextmanager
def signed_in(url: str, email: str, password: str) -> Iterator[Page]:
    """Give a page of a user who has just logged in."""
    with chromium_page() as page:
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda address: "/user/login" not in address)
        yield page
