"""Servers on loopback that stand for Label Studio and for other hosts, and a media cache that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from backend.media.cache import MediaCache
from backend.settings import Settings
from tests.media.files import TOKEN, Make
from tests.site import Site


@pytest.fixture
def studio() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def other() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def make(studio: Site, tmp_path: Path) -> Make:
    def cache(**settings: object) -> MediaCache:
        chosen = Settings.model_validate({"label_studio_url": studio.url} | settings)

        def resolve(task_id: int | None, uri: str) -> str:
            return f"{studio.url}/tasks/{task_id}/resolve/?fileuri={quote(uri, safe='')}"

        return MediaCache(tmp_path / "media", chosen, lambda url: TOKEN, resolve)

    return cache
