"""The media cache keeps to its size, even if processes die: unused files go first, and never files in use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.media import cache_space
from backend.media.cache import MediaCache
from backend.media.cache_space import CacheSpace
from backend.settings import Settings
from tests.site import Site
from tests.support import ROOT

pytestmark = pytest.mark.processes

SIZE = 1000


@pytest.fixture(autouse=True)
def without_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_space, "GRACE_S", 0.0)


def fill(folder: Path, ages: Sequence[int]) -> list[Path]:
    """Write files that were used `ages` hours ago."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{age}.png" for age in ages]
    for path, age in zip(paths, ages, strict=True):
        path.write_bytes(bytes(SIZE))
        os.utime(path, (time.time() - 3600 * age,) * 2)
    return paths


def left(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.png"))


def test_files_used_least_recently_are_deleted_first(tmp_path: Path) -> None:
    paths = fill(tmp_path / "media", range(1, 21))
    space = CacheSpace(tmp_path / "media", 10 * SIZE)
    assert space.touch(paths[19])
    assert space.make_room() == 11 * SIZE
    assert left(tmp_path / "media") == [*range(1, 9), 20]
    assert not space.touch(paths[10])


def test_files_whose_urls_expire_are_deleted_last(tmp_path: Path) -> None:
    *_, oldest = fill(tmp_path / "media", range(1, 11))
    expiring = oldest.rename(oldest.with_name(f"{cache_space.EXPIRING}a.png"))
    assert CacheSpace(tmp_path / "media", 9 * SIZE).make_room() == 2 * SIZE
    assert expiring.exists()
    assert not (tmp_path / "media" / "9.png").exists()
    assert CacheSpace(tmp_path / "media", SIZE).make_room() == 8 * SIZE
    assert not expiring.exists()


def test_nothing_is_deleted_while_there_is_room(tmp_path: Path) -> None:
    fill(tmp_path / "media", range(1, 11))
    assert CacheSpace(tmp_path / "media", 10 * SIZE).make_room() == 0
    assert len(left(tmp_path / "media")) == 10


JOB = """
import sys, pathlib, time
from backend.media.cache_space import CacheSpace
space = CacheSpace(pathlib.Path(sys.argv[1]), 1)
with space.in_use():
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.png")):
        assert space.touch(path)
    print("uses", flush=True)
    time.sleep(600)
"""


def test_the_files_of_a_running_job_stay_until_it_dies(tmp_path: Path) -> None:
    """The job is another process, and it is killed, so it cannot remove its mark."""
    fill(tmp_path / "media", range(1, 11))
    job = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path / "media")], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == b"uses\n"
        fill(tmp_path / "media", range(101, 111))
        space = CacheSpace(tmp_path / "media", SIZE)
        space.make_room()
        assert left(tmp_path / "media") == list(range(1, 11))
    finally:
        job.send_signal(signal.SIGKILL)
        job.communicate()
    space.make_room()
    assert left(tmp_path / "media") == []


def test_a_half_written_file_is_deleted_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name, age in ((".old", 25), (".new", 1)):
        (tmp_path / "media" / name).write_bytes(bytes(SIZE))
        os.utime(tmp_path / "media" / name, (time.time() - 3600 * age,) * 2)
    CacheSpace(tmp_path / "media", SIZE).make_room()
    assert [path.name for path in (tmp_path / "media").iterdir()] == [".new"]


def test_a_cache_keeps_to_its_size(tmp_path: Path) -> None:
    """There are 200 images of 30 kB and room for 1 MB; each image is fetched again after it was deleted."""
    from tests.media.files import encoded, noise

    site = Site()
    try:
        for number in range(200):
            site.put(f"/data/{number}.png", encoded(noise(100, 100)))
        settings = Settings(label_studio_url=site.url, media_cache_gb=0.001)
        cache = MediaCache(tmp_path / "media", settings, lambda url: {}, lambda task, uri: uri)
        for number in range(200):
            cache.fetch(f"/data/{number}.png", number)
        assert sum(path.stat().st_size for path in (tmp_path / "media").iterdir()) < 1.1e6
        assert cache.fetch("/data/0.png", 0).width == 100
        with cache.in_use():
            files = [cache.fetch(f"/data/{number}.png", number) for number in range(200)]
            assert all(file.path.is_file() for file in files)
    finally:
        site.close()
