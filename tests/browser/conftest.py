"""What the tests of the page promise to leave behind: screenshots."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from tests.browser.views import SCREENSHOTS, missing_screenshots

CLOCK_S = 2.0  # a file system may round the time of a file down


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passes without the screenshots that its marker names; a skipped test owes none."""
    began = time.time()
    result = yield
    names = [name for marker in item.iter_markers("screenshots") for name in marker.args]
    missing = missing_screenshots(names, began - CLOCK_S)
    assert not missing, f"the test left no new {', '.join(missing)} in {SCREENSHOTS}"
    return result
