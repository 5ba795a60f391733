"""Which paths of Label Studio get our token, which opens all that its user may see."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import MediaError
from backend.media.cache import MediaCache
from backend.media.token_places import is_media
from backend.settings import Settings
from tests.site import Site

TOKEN = "Bearer of-the-token"

MEDIA = [
    "/data/upload/1/a.png",
    "/data/upload/1/a%20b%25.png",
    "/data/local-files/?d=..%2Fa.png",
    "/storage-data/uploaded/?filepath=/api/users/",
    "/tasks/7/resolve/?fileuri=czM6",
]
ELSEWHERE = [
    "/api/users/",
    "/api/projects/1/export",
    "/data",
    "/database/a.png",
    "/tasks/8/resolve/?fileuri=czM6",
    "/tasks/7/resolve/../../../api/users/",
    "/tasks/7/",
    "/data/../api/users/",
    "/data/./../api/users/",
    "/data/%2e%2e/api/users/",
    "/data/.%2E/api/users/",
    "/data/%252e%252e/api/users/",
    "/data/..%2fapi/users/",
    "/data/..%5capi/users/",
    "/data/..\\api/users/",
    "/data//api/users/",
    "//data/a.png",
    "/DATA/a.png",
]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def cache_of(site: Site, folder: Path, prefix: str = "") -> MediaCache:
    settings = Settings(label_studio_url=site.url + prefix)
    return MediaCache(folder, settings, lambda url: {"Authorization": TOKEN}, lambda task, uri: uri)


@pytest.mark.parametrize("path", MEDIA)
def test_media_get_the_token(path: str) -> None:
    assert is_media(path.partition("?")[0], "", 7)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_other_paths_do_not(path: str) -> None:
    assert not is_media(path.partition("?")[0], "", 7)


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize("way", ["named", "redirected", "joined"])
def test_no_task_and_no_redirect_takes_the_token_elsewhere(site: Site, tmp_path: Path, path: str, way: str) -> None:
    site.put("/data/a.png", status=302, Location=path if way == "joined" else site.url + path)
    with pytest.raises(MediaError):
        cache_of(site, tmp_path).fetch("/data/a.png" if way != "named" else site.url + path, 7)
    sent = [(requested, token) for requested, token in site.requests if requested != "/data/a.png"]
    assert all(token is None or is_media(requested.partition("?")[0], "", 7) for requested, token in sent)
    assert not [requested for requested, token in sent if token and ("api" in requested or "/8/" in requested)]


def test_a_refusal_says_where_the_token_goes(site: Site, tmp_path: Path) -> None:
    site.put("/api/users/", status=401)
    with pytest.raises(MediaError) as caught:
        cache_of(site, tmp_path).fetch("/api/users/", 7)
    assert "its media alone" in caught.value.what
    assert "/data/" in caught.value.fix


@pytest.mark.parametrize(
    ("uri", "token"), [("/ls/data/a.png", TOKEN), ("/data/a.png", None), ("/lsx/data/a.png", None)]
)
def test_a_label_studio_under_a_path_of_its_own(site: Site, tmp_path: Path, uri: str, token: str | None) -> None:
    body = io.BytesIO()
    Image.new("RGB", (5, 3)).save(body, "PNG")
    site.put(uri, body.getvalue())
    assert cache_of(site, tmp_path, "/ls").fetch(uri, 7).width == 5
    assert site.requests == [(uri, token)]
