"""Errors of media: which are errors of one task, and which concern all tasks."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from backend.errors import MachineError, MediaError
from backend.media.cache import MediaFile
from tests.media.files import Make, encoded, failure, noise
from tests.site import Site

pytestmark = pytest.mark.processes


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

    monkeypatch.setattr(Path, "replace", lacking)
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
