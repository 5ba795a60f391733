"""Every view of the page has a test that keeps screenshots of it."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.browser
from backend.web.page.site import VIEWS
from tests.browser import views


def marks(name: str, test: object) -> Iterator[pytest.Mark]:
    """Yield the marks of a name on a test function, and on its parameters."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            parameters = (value for value in mark.args[1] if hasattr(value, "marks"))
            yield from (inner.mark for value in parameters for inner in value.marks if inner.name == name)
        elif mark.name == name:
            yield mark


def test_every_view_has_screenshots() -> None:
    kept = []
    for module in pkgutil.iter_modules(tests.browser.__path__, f"{tests.browser.__name__}."):
        if module.name.rpartition(".")[2].startswith("test_"):
            for test in vars(importlib.import_module(module.name)).values():
                kept += [view for mark in marks("screenshots", test) for view in mark.args]
    assert sorted(kept) == sorted(["home", *(view.name for view in VIEWS)])


def test_a_screenshot_that_is_missing_or_of_an_earlier_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "SCREENSHOTS", tmp_path)
    for form in views.FORMS:
        views.screenshot("pool", form).touch()
    os.utime(views.screenshot("pool", "400"), (100, 100))
    assert views.missing_screenshots(["pool"], since=50) == []
    assert views.missing_screenshots(["pool", "next"], since=200) == [
        *("pool-400.png", "next-1280.png", "next-400.png", "next-dark.png")
    ]
