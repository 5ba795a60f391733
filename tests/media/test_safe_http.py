"""Downloads from a real HTTP server on loopback, which stands for Label Studio, other hosts and attackers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from backend.errors import LabelStudioAuthError, LabelStudioError, SettingError
from backend.media import deadline, safe_http
from backend.media.cache import MediaCache
from backend.media.safe_http import is_public
from backend.settings import Settings
from backend.urls.origin import origin_of
from tests.media.files import TOKEN, Make, encoded, failure, noise
from tests.site import Site

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::8.8.8.8", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::10.0.0.1", False),
        ("2002:a00:1::1", False),
        ("64:ff9b::10.0.0.1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "LOCALHOST."]
)
def test_private_addresses_are_refused(make: Make, other: Site, host: str) -> None:
    other.put("/a.png", encoded(noise(3, 5)))
    error = failure(make(), f"http://{host}:{other.port}/a.png")
    assert "private address" in error.what or "no address found" in error.what
    assert other.requests == []


def test_the_fix_for_a_private_address_works(make: Make, other: Site) -> None:
    url = other.put("/a.png", encoded(noise(3, 5)))
    fix = failure(make(), url).fix
    allowed = fix.removeprefix("if it may be read, add ").split()[0]
    assert make(allowed_hosts=f"elsewhere:1, {allowed.upper()}").fetch(url).width == 5


@pytest.mark.parametrize(("allowed", "ok"), [("127.0.0.1", True), ("127.0.0.1:1", False), ("localhost", False)])
def test_allowed_hosts(make: Make, other: Site, allowed: str, ok: bool) -> None:
    url = other.put("/a.png", encoded(noise(3, 5)))
    cache = make(allowed_hosts=allowed)
    if ok:
        assert cache.fetch(url).width == 5
    else:
        failure(cache, url)


def test_one_private_address_among_public_ones_is_refused(
    make: Make, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(deadline, "getaddrinfo", lambda *args, **kwargs: addresses)
    assert "private address" in failure(make(), f"http://rebind.example:{other.port}/a.png").what


def test_the_checked_address_is_the_one_connected_to(make: Make, other: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once, so that a second, different answer (DNS rebinding) has no effect."""
    other.put("/a.png", encoded(noise(3, 5)))
    answers = iter([[(2, 1, 6, "", ("127.0.0.9", other.port)), (2, 1, 6, "", ("127.0.0.1", other.port))]])
    monkeypatch.setattr(deadline, "getaddrinfo", lambda *args, **kwargs: next(answers))
    monkeypatch.setattr(safe_http, "is_public", lambda address: True)
    assert make().fetch(f"http://rebind.example:{other.port}/a.png").width == 5  # 127.0.0.9 refuses, the next answers
    assert other.requests == [("/a.png", None)]


def test_an_unknown_host(make: Make) -> None:
    assert "no address found" in failure(make(), "http://no-such-host.invalid/a.png").what


@pytest.mark.parametrize("location", ["http://{other}/a.png", "//{other}/a.png"])
def test_a_redirect_to_a_private_address_is_refused(make: Make, studio: Site, other: Site, location: str) -> None:
    other.put("/a.png", encoded(noise(3, 5)))
    studio.put("/data/a.png", status=302, Location=location.format(other=f"127.0.0.1:{other.port}"))
    assert "private address" in failure(make(), "/data/a.png").what
    assert other.requests == []


def test_a_path_with_two_slashes_names_another_host(make: Make, other: Site) -> None:
    other.put("/a.png", encoded(noise(3, 5)))
    assert "private address" in failure(make(), f"//127.0.0.1:{other.port}/a.png").what
    assert other.requests == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.org/a"])
def test_a_redirect_to_another_scheme_is_refused(make: Make, studio: Site, location: str) -> None:
    studio.put("/a.png", status=302, Location=location)
    assert "not fetched" in failure(make(), "/a.png").what


def test_the_token_stays_with_label_studio_and_redirects_are_followed(make: Make, studio: Site, other: Site) -> None:
    """The redirects go from Label Studio to another host and back, the last one with a relative address."""
    studio.put("/data/1", status=301, Location=f"{other.url}/2")
    other.put("/2", status=307, Location=f"{studio.url}/data/3")
    studio.put("/data/3", status=308, Location="4.png")
    studio.put("/data/4.png", encoded(noise(3, 5)))
    assert make(allowed_hosts="127.0.0.1").fetch("/data/1").width == 5
    assert {sent for _, sent in studio.requests} == {TOKEN["Authorization"]}
    assert other.requests == [("/2", None)]


def test_another_scheme_is_another_origin(studio: Site, tmp_path: Path) -> None:
    studio.put("/a.png", encoded(noise(3, 5)))
    settings = Settings(label_studio_url=studio.url.replace("http:", "https:"))
    MediaCache(tmp_path, settings, lambda url: TOKEN, lambda task, uri: uri).fetch(f"{studio.url}/a.png")
    assert studio.requests == [("/a.png", None)]


@pytest.mark.parametrize(("hops", "ok"), [(5, True), (6, False)])
def test_the_number_of_redirects_is_limited(make: Make, studio: Site, hops: int, ok: bool) -> None:
    for hop in range(hops):
        studio.put(f"/{hop}", status=302, Location=f"/{hop + 1}")
    studio.put(f"/{hops}", encoded(noise(3, 5)))
    if ok:
        assert make().fetch("/0").width == 5
    else:
        assert "more than 5 redirects" in failure(make(), "/0").what
        assert len(studio.requests) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"label_studio_url": "localhost:8080"},
        {"label_studio_url": "http://"},
        {"label_studio_url": "http://h:port"},
        {"allowed_hosts": "http://minio:9000"},
        {"allowed_hosts": "minio:port"},
        {"allowed_hosts": "minio/bucket"},
    ],
)
def test_settings_that_cannot_be_read(make: Make, settings: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        make(**settings)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, "the token cannot read this"),
        (403, "the token cannot read this"),
        (404, "not found"),
        (410, "not found"),
        (429, "failed with 429"),
        (500, "failed with 500"),
        (503, "failed with 503"),
        (204, "unexpected status 204"),
        (302, "unexpected status 302"),
    ],
)
def test_statuses(make: Make, studio: Site, status: int, problem: str) -> None:
    studio.put("/data/a.png?sig=secret", status=status)
    error = failure(make(), "/data/a.png?sig=secret", 3)
    assert problem in error.what
    assert error.where == "task 3: /data/a.png"
    assert "secret" not in str(error)


def test_another_host_that_refuses_is_not_about_the_token(make: Make, other: Site) -> None:
    url = other.put("/a.png", status=403)
    assert "refuses access" in failure(make(allowed_hosts="127.0.0.1"), url).what


def test_connection_refused(make: Make, other: Site) -> None:
    other.close()
    assert "refused" in failure(make(allowed_hosts="127.0.0.1"), other.url + "/a.png").what


def test_time_out(make: Make, studio: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_http, "READ_S", 0.1)
    studio.put("/a.png", b"only the start", Content_Length="100")
    monkeypatch.setattr(BaseHTTPRequestHandler, "finish", lambda self: threading.Event().wait(0.5))
    assert "in time" in failure(make(), "/a.png").what


def test_a_dripping_server_is_cut_off(make: Make, studio: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_http, "TOTAL_S", -1.0)
    studio.put("/a.png", encoded(noise(3, 5)))
    assert "in time" in failure(make(), "/a.png").what


def test_a_body_that_breaks_off(make: Make, studio: Site) -> None:
    studio.put("/a.png", b"only the start", Content_Length="100")
    assert "broke" in failure(make(), "/a.png").what


def test_a_refused_token_is_no_error_of_a_task(studio: Site, tmp_path: Path) -> None:
    def expired(url: str) -> dict[str, str]:
        raise LabelStudioAuthError("the token is expired", fix="make a new one")

    cache = MediaCache(tmp_path, Settings(label_studio_url=studio.url), expired, lambda task, uri: uri)
    with pytest.raises(LabelStudioAuthError, match="expired"):
        list(cache.fetch_many([("/data/a.png", 4)]))


def test_a_label_studio_that_is_down_is_no_error_of_a_task(make: Make, studio: Site) -> None:
    studio.close()
    with pytest.raises(LabelStudioError, match="cannot be reached"):
        list(make().fetch_many([("/data/a.png", 4)]))


def test_origins_differ_by_default_port_only_when_it_differs() -> None:
    assert origin_of(httpx.URL("https://Ls.Example:443/a")) == ("https", "ls.example", 443)
