"""URIs of media with random changes: each gives a file, or an error of its task alone.

They are fetched as images and as videos, and used as targets of redirects. No name is looked up, and no host is asked
but a server of this process.
"""

from __future__ import annotations

import io
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import quote

from PIL import Image

from backend.errors import MediaError
from backend.media import deadline
from backend.media.cache import MediaCache
from backend.settings import Settings
from tests.fuzz import Report, measure
from tests.site import Site

SEEDS = (
    "{site}/a.png",
    "/data/upload/1/a.png",
    "/data/local-files/?d=pets/a b.png",
    "/storage-data/uploaded/?filepath=a.png",
    "/tasks/7/resolve/?fileuri=czM6Ly9i",
    "http://images.example/a.png?X-Amz-Signature=0123#part",
    "https://me:secret@images.example:8443/path/a.png",
    "http://xn--nxasmq6b.example/a.png",
    "http://[2001:db8::1]:80/a.png",
    "//images.example/a.png",
    "s3://bucket/key/a.png",
    "azure-blob://container/a.png",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC",
)
PIECES = (
    *("xn--", "xn--a", "xn--\u00e9", "..", "../", "%2e%2e%2f", "%00", "%", "%zz", "\\", "//", "@", ":", ":0", ":99999"),
    *(
        "[",
        "]",
        "[::1",
        "[v1.a]",
        "#",
        "?",
        ";",
        "\n",
        "\r\n",
        "\t",
        "\x00",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e",
        "\ufeff",
    ),
    *(
        "\ud800",
        "\udfff",
        "\u00df",
        "\u0130",
        "\u3002",
        "\uff0e",
        "\u0301",
        "\U0001f600",
        "a" * 64,
        "." * 70,
        "9" * 400,
    ),
    *(
        "0x7f.1",
        "127.1",
        "localhost",
        "data:",
        "file://",
        "http:",
        "HTTPS://",
        " ",
        "\u00a0",
        "{}",
        "$(x)",
        "<a>",
        "''",
    ),
)
LONGEST = 20_000  # characters; repetition must not make a case too large


def run(cases: int, seed: int) -> Report:
    """Fetch mutated URIs: each gives a file, or a MediaError with the task's id and a cure, in one line."""
    site = Site()
    try:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(deadline, "getaddrinfo", _resolved):
            cache = _cache(site, Path(folder))
            draw = random.Random(seed)
            return measure(mutated(cases, site.url, draw), lambda uri: _fetch(cache, site, uri, draw.random()))
    finally:
        site.close()


def mutated(cases: int, site: str, draw: random.Random) -> Iterator[str]:
    """Yield addresses with one to six changes each."""
    for _ in range(cases):
        uri = draw.choice(SEEDS).format(site=site)
        for _ in range(draw.randint(1, 6)):
            uri = _changed(uri, draw)[:LONGEST]
        yield uri


def _changed(uri: str, draw: random.Random) -> str:
    at, end = sorted((draw.randint(0, len(uri)), draw.randint(0, len(uri))))
    end = min(end, at + 12)
    other = draw.choice(SEEDS)
    return draw.choice(
        (
            uri[:at] + draw.choice(PIECES) + uri[at:],
            uri[:at] + draw.choice(PIECES) + uri[end:],
            uri[:at] + chr(draw.choice((draw.randint(0, 255), draw.randint(0, 0x10FFFF)))) + uri[at:],
            uri[:at] + uri[end:],
            uri[:at] + uri[at:end] * draw.randint(2, 40) + uri[end:],
            uri[:at] + other[draw.randint(0, len(other)) :],
            uri[:at] + uri[at:end].swapcase() + uri[end:],
            uri[:at] + quote(uri[at:end].encode("utf-8", "replace")) + uri[end:],
        )
    )


def _fetch(cache: MediaCache, site: Site, uri: object, chance: float) -> str:
    """Fetch a URI in one of three ways and return how that ended."""
    assert isinstance(uri, str)
    if chance < 0.2:
        site.put("/redirect", status=302, Location=uri.encode("utf-8", "replace").decode("latin-1"))
        result = next(cache.fetch_many([(f"{site.url}/redirect", 7)]))
    elif chance < 0.3:
        try:
            cache.fetch_video(uri, 7)
        except MediaError as error:
            return _refused(error)
        return "videos"
    else:
        result = next(cache.fetch_many([(uri, 7)]))
    return _refused(result) if isinstance(result, MediaError) else "images"


def _refused(error: MediaError) -> str:
    text = str(error)
    assert error.where.startswith("task 7"), text
    assert error.fix, text
    assert text.isprintable(), repr(text)
    assert "the file cannot be read" not in text, text  # the message of errors that we did not foresee
    assert str(Path(tempfile.gettempdir())) not in text, text
    return "refused"


def _cache(site: Site, folder: Path) -> MediaCache:
    body = io.BytesIO()
    Image.new("RGB", (5, 3)).save(body, "PNG")
    for path in ("/a.png", "/data/upload/1/a.png", "/storage-data/uploaded/?filepath=a.png"):
        site.put(path, body.getvalue())

    def resolve(task_id: int | None, uri: str) -> str:
        return f"{site.url}/tasks/{task_id}/resolve/?fileuri={quote(uri, safe='')}"

    return MediaCache(folder, Settings(label_studio_url=site.url), lambda url: {"Authorization": "secret"}, resolve)


def _resolved(host: str, port: int, *args: object, **options: object) -> list[tuple[object, ...]]:
    """Stand in for the name service: like the real one it encodes the name, but it only resolves IP addresses."""
    host.encode("idna")
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
