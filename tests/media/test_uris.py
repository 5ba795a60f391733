"""URIs in a task's data: which of them are fetched, from where, and how messages show them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from backend.media.uris import shortened
from tests.media.files import TOKEN, Make, encoded, failure, noise
from tests.site import Site

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "path",
    ["/data/upload/1/a.png", "/storage-data/uploaded/?filepath=a.png", "/data/local-files/?d=a.png"],
)
def test_root_relative_paths_come_from_label_studio_with_the_token(make: Make, studio: Site, path: str) -> None:
    studio.put(path, encoded(noise(3, 5)))
    assert make().fetch(path).width == 5
    assert studio.requests == [(path, TOKEN["Authorization"])]


def test_a_path_with_spaces_and_accents_is_percent_encoded(make: Make, studio: Site) -> None:
    studio.put("/data/local-files/?d=my%20imgs/%C3%A9.png", encoded(noise(3, 5)))
    assert make().fetch(" /data/local-files/?d=my imgs/é.png ").height == 3


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a b.png", "gs://bucket/a.png", "azure-blob://c/a.png", "S3://bucket/a.png"]
)
def test_cloud_uris_go_through_label_studio(make: Make, studio: Site, other: Site, uri: str) -> None:
    signed = other.put("/a.png?X-Amz-Signature=secret", encoded(noise(3, 5)))
    resolve = f"/tasks/7/resolve/?fileuri={quote(uri, safe='')}"
    studio.put(resolve, status=303, Location=signed)
    assert make(allowed_hosts=f"127.0.0.1:{other.port}").fetch(uri, 7).width == 5
    assert studio.requests == [(resolve, TOKEN["Authorization"])]
    assert other.requests == [("/a.png?X-Amz-Signature=secret", None)]


@pytest.mark.parametrize("scheme", ["data:image/png;base64,", "DATA:image/png;name=a;base64,"])
def test_inline_images(make: Make, studio: Site, scheme: str) -> None:
    payload = base64.b64encode(encoded(noise(3, 5))).decode()
    assert make().fetch(scheme + payload[:8] + "\n" + quote(payload[8:])).width == 5
    assert studio.requests == []


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        (None, "the task has no image"),
        ("", "the task has no image"),
        ("   ", "the task has no image"),
        (12, "int is no image URL"),
        (["/a.png"], "list is no image URL"),
        ("file:///etc/passwd", "not an address"),
        ("ftp://example.org/a.png", "not an address"),
        ("images/a.png", "not an address"),
        ("C:\\images\\a.png", "not an address"),
        ("data:text/plain;base64,AAAA", "not of a base64 image"),
        ("data:image/svg+xml,<svg/>", "not of a base64 image"),
        ("data:image/png;base64,?*", "not base64"),
        ("data:image/png;base64,", "not an image"),
        ("http://", "not fetched"),
        ("http://[::1", "not a valid URL"),
        ("http://127.0.0.1:99999/a.png", "not a valid URL"),
        ("/a\x00b.png", "not a valid URL"),
        ("/a\ud800b.png", "not a valid URL"),
    ],
)
def test_addresses_that_cannot_be_fetched(make: Make, studio: Site, uri: object, problem: str) -> None:
    error = failure(make(), uri, 5)
    assert problem in error.what
    assert error.where.startswith("task 5")
    assert studio.requests == []


def test_a_path_without_a_label_studio(make: Make) -> None:
    assert "LABEL_STUDIO_URL" in failure(make(label_studio_url=""), "/a.png").fix


@pytest.mark.parametrize(
    ("uri", "short"),
    [
        ("https://me:pw@host.example/a.jpg?X-Signature=secret#frag", "https://host.example/a.jpg"),
        ("/data/local-files/?d=pets/a.jpg&token=secret", "/data/local-files/?d=pets/a.jpg"),
        ("data:image/png;base64,SECRET", "data:image/png;base64,…"),
        ("http://h/" + "a" * 500 + ".jpg", "http://h/" + "a" * 71 + "…" + "a" * 35 + ".jpg"),
        ("", ""),
    ],
)
def test_messages_show_no_secrets(uri: str, short: str) -> None:
    assert shortened(uri) == short
