"""Media are fetched from a real HTTP server on loopback, which stands for Label Studio, other hosts and attackers."""

from __future__ import annotations

import base64
import errno
import io
import re
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.addresses import origin_of
from backend.errors import LabelStudioAuthError, LabelStudioError, MachineError, MediaError, SettingError
from backend.media import deadline, safe_http
from backend.media.cache import MediaCache, MediaFile
from backend.media.images import UPRIGHT
from backend.media.safe_http import is_public
from backend.media.uris import shortened
from backend.settings import Settings
from tests.site import Site
from tests.support import require_program

pytestmark = pytest.mark.processes

TOKEN = {"Authorization": "Bearer of-the-token"}


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


Make = Callable[..., MediaCache]


@pytest.fixture
def make(studio: Site, tmp_path: Path) -> Make:
    def cache(**settings: object) -> MediaCache:
        chosen = Settings.model_validate({"label_studio_url": studio.url} | settings)

        def resolve(task_id: int | None, uri: str) -> str:
            return f"{studio.url}/tasks/{task_id}/resolve/?fileuri={quote(uri, safe='')}"

        return MediaCache(tmp_path / "media", chosen, lambda url: TOKEN, resolve)

    return cache


def encoded(pixels: npt.NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def quadrants(width: int = 32, height: int = 16) -> npt.NDArray[np.uint8]:
    """Return quarters of red, green / blue, white, which show all eight orientations, and survive JPEG."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return pixels


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """Return a PNG that Pillow cannot write, or with a wrong size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def read_rgb(file: MediaFile) -> npt.NDArray[np.uint8]:
    """Return the pixels as ultralytics reads them: by OpenCV, in colour."""
    image = cv2.imread(str(file.path), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.dtype == np.uint8
    assert image.shape == (file.height, file.width, 3)
    return np.asarray(image[:, :, ::-1], np.uint8)


def failure(cache: MediaCache, uri: object, task_id: int | None = None) -> MediaError:
    """Return the error of a fetch that must fail; every error has a fix, and nothing stays in the cache's folder."""
    before = set((cache.root).iterdir())
    with pytest.raises(MediaError) as caught:
        cache.fetch(uri, task_id)
    assert caught.value.fix
    assert set((cache.root).iterdir()) == before
    return caught.value


# --- addresses ---------------------------------------------------------------------------------------------------


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


# --- the SSRF guard ----------------------------------------------------------------------------------------------


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


# --- what servers answer -----------------------------------------------------------------------------------------


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


# --- errors of a task, and errors of all tasks --------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["http://xn--a/", "http://xn--/a.png", "https://xn--nxasmq6b./xn--a"])
def test_a_name_that_cannot_be_decoded(make: Make, uri: str) -> None:
    assert "task 3" in failure(make(), uri, 3).where


def test_an_unforeseen_error_is_an_error_of_the_task(
    make: Make, studio: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One strange file does not stop the others, and the log has the traceback."""
    studio.put("/data/a.png", encoded(noise(3, 5)))
    cache = make()
    download = cache.http.download

    def failing_download(url: str, *args: object) -> str:
        if "odd" in url:
            raise ZeroDivisionError("of a codec")
        return download(url, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.http, "download", failing_download)
    bad, good = cache.fetch_many([("/data/odd.png", 1), ("/data/a.png", 2)])
    assert isinstance(bad, MediaError)
    assert isinstance(good, MediaFile)
    assert "ZeroDivisionError: of a codec" in bad.what
    assert bad.where == "task 1: /data/odd.png"
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_lack_of_the_machine_is_no_error_of_a_task(
    make: Make, studio: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    studio.put("/data/a.png", encoded(noise(3, 5)))
    cache = make()

    def lacking(*args: object) -> str:
        raise error

    monkeypatch.setattr(cache, "_publish", lacking)
    with pytest.raises(MachineError) as caught:
        list(cache.fetch_many([("/data/a.png", 1), ("/data/a.png", 2)]))
    assert caught.value.fix
    assert "task" not in caught.value.where


def test_too_many_open_files_are_no_error_of_a_task(make: Make, studio: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    studio.put("/data/a.png", encoded(noise(3, 5)))
    monkeypatch.setattr("socket.create_connection", lacking)
    with pytest.raises(MachineError, match="open no more connections"):
        make().fetch("/data/a.png")


@pytest.mark.parametrize("ending", ["\n", "\r", "\x1b[2J", "\u2028", "\x85"])
def test_an_address_ends_no_line_of_a_log(make: Make, ending: str) -> None:
    text = str(failure(make(), f"/data/a.png{ending}2026-11-29 12:00:00 ERROR forged", 3))
    assert text.isprintable()
    assert "forged" in text


@pytest.mark.parametrize("body", [b"", b"no picture"])
def test_errors_name_no_path_of_the_server(make: Make, studio: Site, tmp_path: Path, body: bytes) -> None:
    studio.put("/data/a", body)
    assert str(tmp_path) not in str(failure(make(), "/data/a"))
    with pytest.raises(MediaError) as caught:
        make().fetch_video("/data/a")
    assert str(tmp_path) not in str(caught.value)


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_oversize(make: Make, studio: Site, chunked: bool) -> None:
    body = noise(100, 100).tobytes()
    if chunked:  # no length is announced: the limit holds while streaming
        studio.put("/a.png", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), Transfer_Encoding="chunked")
    else:
        studio.put("/a.png", body)
    error = failure(make(max_media_mb=0.02), "/a.png")
    assert error.what == "larger than 0.02 MB"
    assert "MAX_MEDIA_MB" in error.fix


def test_inline_oversize(make: Make) -> None:
    uri = "data:image/png;base64," + base64.b64encode(encoded(noise(100, 100))).decode()
    assert "larger than" in failure(make(max_media_mb=0.02), uri).what
    assert make(max_media_mb=0.05).fetch(uri).width == 100


def test_too_many_pixels_are_refused_before_decoding(make: Make, studio: Site) -> None:
    studio.put("/bomb.png", png(40_000, 40_000, 8, 2, b""))
    error = failure(make(), "/bomb.png")
    assert error.what == "40000x40000 pixels are more than 100 megapixels"
    assert "MAX_MEGAPIXELS" in error.fix


@pytest.mark.parametrize("size", [(10_000, 9_000), (20_000, 9_000)], ids=["Pillow would warn", "Pillow would refuse"])
def test_our_pixel_limit_alone_decides(make: Make, studio: Site, size: tuple[int, int]) -> None:
    studio.put("/large.png", png(*size, 8, 0, b""))
    problem = failure(make(max_megapixels=180), "/large.png").what
    assert "truncated" in problem
    assert "bomb" not in problem


# --- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("JPEG", 1), ("JPEG", 3), ("PNG", 1), ("PNG", 3), ("WEBP", 3), ("BMP", 3)],
)
def test_plain_images_are_stored_untouched(make: Make, studio: Site, kind: str, channels: int) -> None:
    pixels = noise(3, 5, channels)
    body = encoded(pixels[:, :, 0] if channels == 1 else pixels, kind)
    studio.put("/a.jpg", body)
    file = make().fetch("/a.jpg")
    assert file.path.read_bytes() == body
    assert file.path.suffix == {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}[kind]
    assert (file.width, file.height) == (5, 3)
    read_rgb(file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_one_pixel(make: Make, studio: Site, kind: str) -> None:
    studio.put("/a", encoded(np.full((1, 1, 3), 200, np.uint8), kind))
    file = make().fetch("/a")
    assert (file.width, file.height) == (1, 1)
    assert np.abs(read_rgb(file).astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, *UPRIGHT, 9])
def test_exif_orientations_become_upright(make: Make, studio: Site, kind: str, orientation: int) -> None:
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, UPRIGHT.get(orientation))
    image = Image.fromarray(quadrants())
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    turned = image if inverse is None else image.transpose(inverse)
    turned.save(buffer, kind, exif=exif)
    studio.put("/a", buffer.getvalue())
    file = make().fetch("/a")
    assert (file.width, file.height) == (32, 16)
    corners = read_rgb(file)[[2, 2, 13, 13], [2, 29, 2, 29]].astype(int)
    assert np.abs(corners - quadrants()[[2, 2, 13, 13], [2, 29, 2, 29]]).max() < 20


def test_the_browser_sees_the_same_size(make: Make, studio: Site, tmp_path: Path) -> None:
    """We follow Chromium, which applies the orientation of JPEG, PNG and AVIF but not of WEBP, and ignores XMP."""
    chromium = require_program("chromium")
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for kind in ("JPEG", "PNG", "WEBP", "AVIF"):
        studio.put(f"/{kind}", encoded(quadrants(), kind, exif=exif))
    studio.put("/XMP", encoded(quadrants(), "JPEG", xmp=xmp))
    paths = ["/JPEG", "/PNG", "/WEBP", "/AVIF", "/XMP"]
    script = "onload=()=>document.body.innerHTML=[...document.images].map(i=>i.naturalWidth+'x'+i.naturalHeight)"
    page = "".join(f"<img src='{path}'>" for path in paths) + f"<script>{script}</script>"
    url = studio.put("/page", page.encode(), Content_Type="text/html")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([str(chromium), *options, url], capture_output=True, text=True, timeout=60, check=True).stdout
    files = [make().fetch(path) for path in paths]
    for file in files:
        read_rgb(file)
    assert re.findall(r"\d+x\d+", dom) == [f"{file.width}x{file.height}" for file in files]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # a warning of Pillow; the image must be usable
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"]
)
def test_broken_exif_is_ignored(make: Make, studio: Site, exif: bytes) -> None:
    studio.put("/a.jpg", encoded(quadrants(), "JPEG", exif=exif))
    assert make().fetch("/a.jpg").width == 32


def test_cmyk_jpeg(make: Make, studio: Site) -> None:
    buffer = io.BytesIO()
    Image.fromarray(quadrants()).convert("CMYK").save(buffer, "JPEG", quality=100)
    studio.put("/a.jpg", buffer.getvalue())
    file = make().fetch("/a.jpg")
    assert file.path.suffix == ".png"
    assert np.abs(read_rgb(file).astype(int)[[2, 13], [2, 29]] - [[255, 0, 0], [255, 255, 255]]).max() < 10


def test_16_bit_gray_is_scaled_not_clipped(make: Make, studio: Site) -> None:
    values = np.array([[0, 256, 257, 4096, 32768, 65535]], np.uint16)
    studio.put("/a.png", png(6, 1, 16, 0, b"\0" + values.astype(">u2").tobytes()))
    assert read_rgb(make().fetch("/a.png"))[0, :, 0].tolist() == [0, 1, 1, 16, 128, 255]


def test_16_bit_rgb_becomes_8_bit(make: Make, studio: Site) -> None:
    values = np.array([[[0, 32768, 65535]]], ">u2")
    studio.put("/a.png", png(1, 1, 16, 2, b"\0" + values.tobytes()))
    file = make().fetch("/a.png")
    assert file.path.read_bytes()[24] == 8
    assert read_rgb(file)[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_tiffs_are_stretched(make: Make, studio: Site, dtype: type) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[-100, 0, 100]], dtype)).save(buffer, "TIFF")
    studio.put("/a.tif", buffer.getvalue())
    assert read_rgb(make().fetch("/a.tif"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "transparent P", "transparent RGB"])
def test_modes_become_rgb_on_white(make: Make, studio: Site, mode: str) -> None:
    """The left pixel is black, the right one white: transparent if the mode allows it, else opaque."""
    image = Image.fromarray(np.array([[[0, 0, 0, 255], [0, 0, 9, 0]]], np.uint8))
    options: dict[str, object] = {}
    if mode in ("P", "1"):
        image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    elif mode == "transparent P":
        image = Image.fromarray(np.array([[0, 1]], np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 9])
        options["transparency"] = 1
    elif mode == "transparent RGB":
        image = image.convert("RGB")
        options["transparency"] = (0, 0, 9)
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    studio.put("/a.png", buffer.getvalue())
    file = make().fetch("/a.png")
    assert read_rgb(file)[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    with Image.open(file.path) as stored:
        assert stored.mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame(make: Make, studio: Site, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0))]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    studio.put("/a", buffer.getvalue())
    file = make().fetch("/a")
    assert file.path.suffix == ".png"
    assert np.abs(read_rgb(file).astype(int)[4, 4] - [255, 0, 0]).max() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated(make: Make, studio: Site, kind: str, keep: float) -> None:
    body = encoded(noise(64, 64), kind)
    studio.put("/a", body[: int(len(body) * keep)])
    assert "truncated or damaged" in failure(make(), "/a").what


@pytest.mark.parametrize(
    "body", [b"", b"not a picture", b"<html>log in</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"]
)
def test_not_an_image(make: Make, studio: Site, body: bytes) -> None:
    studio.put("/a.jpg", body, Content_Type="text/html; charset=utf-8")
    assert failure(make(), "/a.jpg").what == "not an image (the server calls it text/html)"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damage before it fails
def test_damaged_files_never_raise_anything_else(make: Make, studio: Site) -> None:
    """With flipped bytes, a small file of each format gives an image or a MediaError."""
    rng = np.random.default_rng(1)
    cache = make()
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(noise(8, 8), kind), np.uint8)
        for number in range(8):
            body = whole.copy()
            body[rng.integers(0, len(body), 4)] = rng.integers(0, 256, 4)
            path = f"/{kind}{number}"
            studio.put(path, body.tobytes())
            result = next(cache.fetch_many([(path, None)]))
            assert isinstance(result, MediaError) or read_rgb(result).size


# --- the cache ---------------------------------------------------------------------------------------------------


def test_the_second_fetch_needs_no_network(make: Make, studio: Site) -> None:
    studio.put("/a.png", encoded(noise(3, 5, 4)))
    first = make().fetch("/a.png")
    assert make().fetch("/a.png", 9) == first
    assert len(studio.requests) == 1


def test_another_label_studio_is_another_image(make: Make, studio: Site, other: Site) -> None:
    studio.put("/a.png", encoded(noise(3, 5)))
    other.put("/a.png", encoded(noise(4, 6)))
    assert make().fetch("/a.png").width == 5
    assert make(label_studio_url=other.url).fetch("/a.png").width == 6


def test_the_cache_identifies_a_file_by_its_address_alone(make: Make, studio: Site) -> None:
    """A known limit: a file that is overwritten at its address stays the old one in the cache.

    Another query in the address, or an empty cache, fetches the new one.
    """
    cache = make()
    url = studio.put("/data/local-files/a.png", encoded(noise(8, 8)))
    newer = studio.put("/data/local-files/a.png?v=2", encoded(noise(16, 16)))
    assert cache.fetch(url).width == 8
    studio.put("/data/local-files/a.png", encoded(noise(16, 16)))
    assert cache.fetch(url).width == 8
    assert cache.fetch(newer).width == 16
    for path in cache.root.iterdir():
        path.unlink()
    assert cache.fetch(url).width == 16


def test_a_damaged_cache_file_is_fetched_again(make: Make, studio: Site) -> None:
    studio.put("/a.png", encoded(noise(3, 5)))
    file = make().fetch("/a.png")
    file.path.write_bytes(b"")
    assert make().fetch("/a.png") == file
    assert file.path.stat().st_size
    assert len(studio.requests) == 2


def test_files_appear_whole_or_not_at_all(
    make: Make, studio: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before the rename leaves neither a file with a final name nor a temporary file."""
    studio.put("/a.png", encoded(noise(3, 5)))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(MachineError, match="No space left"):
            make().fetch("/a.png")
    assert list((tmp_path / "media").iterdir()) == []
    assert make().fetch("/a.png").width == 5


def test_many_threads_ask_for_one_image(make: Make, studio: Site, tmp_path: Path) -> None:
    studio.put("/a.png", encoded(noise(200, 300)))
    cache = make()
    with ThreadPoolExecutor(16) as pool:
        files = set(pool.map(lambda _: cache.fetch("/a.png"), range(64)))
    assert len(files) == 1
    assert len(studio.requests) == 1
    assert list((tmp_path / "media").iterdir()) == [files.pop().path]


def test_two_processes_may_store_the_same_image(make: Make, studio: Site, tmp_path: Path) -> None:
    """Two caches share no lock, like two processes; the last rename wins, and both results are valid."""
    studio.put("/a.png", encoded(noise(200, 300)))
    caches = [make() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        files = set(pool.map(lambda cache: cache.fetch("/a.png"), caches))
    assert len(files) == 1
    assert list((tmp_path / "media").iterdir()) == [files.pop().path]


def test_fetch_many_keeps_the_order_and_isolates_failures(make: Make, studio: Site) -> None:
    for number in range(1, 100, 2):
        studio.put(f"/{number}.png", encoded(noise(1, number)))
    results = list(make().fetch_many([(f"/{number}.png", number) for number in range(100)]))
    assert [result.width for result in results if isinstance(result, MediaFile)] == list(range(1, 100, 2))
    errors = [result.where for result in results if isinstance(result, MediaError)]
    assert errors == [f"task {number}: /{number}.png" for number in range(0, 100, 2)]


def test_fetch_many_of_nothing(make: Make) -> None:
    assert list(make().fetch_many([])) == []


def test_fetch_many_reads_ahead_a_bounded_number(make: Make, studio: Site) -> None:
    requested = 0

    def endless() -> Iterator[tuple[object, int | None]]:
        nonlocal requested
        while True:
            requested += 1
            yield None, requested

    results = make().fetch_many(endless())
    assert [next(results).where for _ in range(3)] == ["task 1", "task 2", "task 3"]  # type: ignore[union-attr]
    results.close()  # type: ignore[attr-defined]
    assert requested <= 40


def test_origins_differ_by_default_port_only_when_it_differs() -> None:
    assert origin_of(httpx.URL("https://Ls.Example:443/a")) == ("https", "ls.example", 443)
