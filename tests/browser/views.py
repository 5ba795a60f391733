"""Opens views of the page in Chromium, with the checks that every view must pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from backend.types import FloatArray
from tests.browser import chromium_page
from tests.support import ROOT

SCREENSHOTS = ROOT / "screenshots"  # git ignores it; CI keeps it
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


@contextmanager
def open_views(url: str) -> Iterator[Page]:
    """Yield a page whose relative addresses lie under `url`; fail at the end if the console had an error."""
    with unwatched_views(url) as page:
        errors = watch_console(page)
        yield page
        assert not errors, errors


@contextmanager
def unwatched_views(url: str) -> Iterator[Page]:
    """Yield a page whose relative addresses lie under `url`, whatever its console says."""
    with chromium_page() as first:
        browser = first.context.browser
        assert browser is not None
        yield browser.new_context(base_url=url, viewport=WIDE, reduced_motion="reduce").new_page()  # type: ignore[arg-type]


def watch_console(page: Page) -> list[str]:
    """Return the list to which each error in the page's console is added."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def check_view(page: Page, address: str) -> None:
    """Open a view; axe must find nothing serious, nothing may stick out at 400 px, and three screenshots are kept."""
    name = re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-") or "home"
    SCREENSHOTS.mkdir(exist_ok=True)
    page.goto(address)
    draw_charts(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [f"{rule['id']}: {rule['nodes'][0]['html']}" for rule in found if rule["impact"] in SERIOUS]
        assert not serious, (scheme, serious)
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], f"{address} is wider than 400 px"
    page.screenshot(path=SCREENSHOTS / f"{name}-narrow.png", full_page=True)
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def draw_charts(page: Page) -> None:
    """Scroll to each chart of the view, and wait until it is drawn."""
    for chart in page.locator("figure.chart").all():
        if chart.is_visible():
            chart.scroll_into_view_if_needed()
            expect(chart).to_have_attribute("data-drawn", "yes", timeout=30_000)
    page.evaluate("scrollTo(0, 0)")


def place_on_map(canvas: Locator, places: FloatArray, row: int) -> tuple[float, float]:
    """Return where on the page an image of the pool's map lies; `places` (n, 2) are those of all its images."""
    box = canvas.bounding_box()
    assert box is not None
    low, high = places.min(axis=0), places.max(axis=0)
    scale = 0.94 * min(box["width"], box["height"]) / float((high - low).max())
    x, y = (places[row] - (low + high) / 2) * (scale, -scale)
    return box["x"] + box["width"] / 2 + float(x), box["y"] + box["height"] / 2 + float(y)


def lasso(page: Page, corners: Iterable[tuple[float, float]]) -> None:
    """Draw a lasso through these points of the page."""
    (x, y), *others = corners
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(x, y)
    page.mouse.down()
    for corner in others:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()


SERIOUS = ("serious", "critical")
