"""Opens views of the page in Chromium, with the checks that every view must pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from backend.types import FloatArray
from tests.browser import chromium_page
from tests.support import ROOT

SCREENSHOTS = ROOT / "screenshots"  # git ignores it
FORMS = ("1280", "400", "dark")  # of screenshots: two widths in pixels, and dark at the larger one
_LOAD_PICTURES = """() => Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode().catch(() => {});  // some have no picture
}))"""
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
        view = {"base_url": url, "viewport": WIDE, "reduced_motion": "reduce"}
        with closing(browser.new_context(**view)) as context:  # type: ignore[arg-type]
            yield context.new_page()


def watch_console(page: Page) -> list[str]:
    """Return the list to which each error in the page's console is added."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def screenshot(name: str, form: str) -> Path:
    """Return the file of a screenshot: `name` is that of a view, with its state behind it, `form` is one of FORMS."""
    return SCREENSHOTS / f"{name}-{form}.png"


def missing_screenshots(names: Iterable[str], since: float) -> list[str]:
    """Return the files of these views' screenshots that are not there, or older than `since` (s after the epoch)."""
    paths = [screenshot(name, form) for name in names for form in FORMS]
    return [path.name for path in paths if not path.is_file() or path.stat().st_mtime < since]


def check_view(page: Page, address: str, name: str) -> None:
    """Open a view; axe must find nothing serious, nothing may stick out at 400 px, and screenshots are kept."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.goto(address)
    draw_everything(page)
    for scheme, form in (("light", "1280"), ("dark", "dark")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page).response["violations"]
        serious = [f"{rule['id']}: {rule['nodes'][0]['html']}" for rule in found if rule["impact"] in SERIOUS]
        assert not serious, (scheme, serious)
        page.screenshot(path=screenshot(name, form), full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], f"{address} is wider than 400 px"
    page.screenshot(path=screenshot(name, "400"), full_page=True)
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def draw_everything(page: Page) -> None:
    """Wait until each chart of the view is drawn, and each picture is there."""
    for chart in page.locator("figure.chart").all():
        if chart.is_visible():
            chart.scroll_into_view_if_needed()
            expect(chart).to_have_attribute("data-drawn", "yes", timeout=30_000)
    page.evaluate(_LOAD_PICTURES)
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
