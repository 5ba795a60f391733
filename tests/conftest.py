"""The real servers tests run against, started once per session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backend.processes import LabelStudioProcess, label_studio_binary, start_label_studio, start_redis
from tests.support import require

LOGIN = {"email": "admin@example.com", "password": "a-test-password"}


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[LabelStudioProcess]:
    """A real Label Studio with one user; every test makes its own project in it."""
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}: make installs it, or set LABEL_STUDIO_BIN")
    data_dir = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(_fresh_label_studio(binary, pytestconfig), data_dir)
    with start_label_studio(binary, data_dir, **LOGIN) as process:
        yield process


def _fresh_label_studio(binary: Path, config: pytest.Config) -> Path:
    """Return a data directory right after the first start, kept in pytest's cache: migrations take half a minute."""
    assert config.cache is not None
    kept = config.cache.mkdir("label-studio") / f"{binary.stat().st_ino}-{binary.stat().st_mtime_ns}"
    if not kept.is_dir():
        made = Path(tempfile.mkdtemp(dir=kept.parent))
        with start_label_studio(binary, made, **LOGIN):
            pass
        with suppress(OSError):  # another session was faster
            made.rename(kept)
    return kept


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real redis; every test uses its own keys, or flushes."""
    with start_redis(tmp_path_factory.mktemp("redis")) as process:
        yield process.url
