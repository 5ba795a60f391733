"""Media are fetched from a real HTTP server on loopback, limited, converted and cached."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.errors import MachineError, MediaError
from backend.media.cache import MediaFile
from backend.media.images import UPRIGHT
from tests.media.files import Make, encoded, failure, noise, png, quadrants, read_rgb
from tests.site import Site
from tests.support import require_program

pytestmark = pytest.mark.processes


# Limits


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


# Images


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


@pytest.mark.parametrize("body", [b"", b"not a picture", b"<html>log in</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_not_an_image(make: Make, studio: Site, body: bytes) -> None:
    studio.put("/a.jpg", body, Content_Type="text/html; charset=utf-8")
    assert failure(make(), "/a.jpg").what == "not an image (the server calls it text/html)"


def test_a_drawing_is_named(make: Make, studio: Site) -> None:
    studio.put("/a.jpg", b"<svg/>", Content_Type="text/html; charset=utf-8")
    assert failure(make(), "/a.jpg").what == "not a readable image: it is an SVG drawing"


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


# The cache


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


def signed(site: Site, signature: str, pixels: npt.NDArray[np.uint8], end: datetime, status: int = 200) -> str:
    """Let a site serve an image under a signed URL, and return the URL."""
    query = f"Expires={int(end.timestamp())}&Signature={signature}&AWSAccessKeyId=AK"
    return site.put(f"/bucket/a.png?{query}", encoded(pixels), status=status)


PAST, FUTURE = datetime(2020, 5, 4, 3, 2, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


def test_a_renewed_url_of_a_task_is_the_same_image(make: Make, other: Site) -> None:
    cache = make(allowed_hosts="127.0.0.1")
    first = cache.fetch(signed(other, "first", noise(3, 5), PAST), 7)
    assert cache.fetch(signed(other, "second", noise(4, 6), FUTURE), 7) == first
    assert cache.fetch(signed(other, "first", noise(1, 1), PAST, status=403), 7) == first
    assert len(other.requests) == 1


def test_the_path_of_a_signed_url_alone_gives_no_right_to_the_file(make: Make, other: Site) -> None:
    """Who may write tasks of another project could name the path of this one's image, with any signature."""
    cache = make(allowed_hosts="127.0.0.1")
    cache.fetch(signed(other, "right", noise(3, 5), FUTURE), 7)
    for task_id in (8, None):
        assert "refuses access" in failure(cache, signed(other, "forged", noise(1, 1), FUTURE, 403), task_id).what
    unsigned_url = other.put("/bucket/a.png", status=403)
    assert "refuses access" in failure(cache, unsigned_url, 7).what


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_named_with_its_end_and_the_cure(make: Make, other: Site, status: int) -> None:
    error = failure(make(allowed_hosts="127.0.0.1"), signed(other, "old", noise(1, 1), PAST, status), 7)
    assert error.what == "the signed URL expired on 2020-05-04 at 03:02 UTC, and the media cache lacks the file"
    assert "cloud storage" in error.fix
    assert error.where.startswith("task 7: ")
    assert "Signature" not in str(error)


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
