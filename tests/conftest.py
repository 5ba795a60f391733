"""The real servers and models of the tests, started or trained once per session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

from backend.cli.label_studio_process import LabelStudioProcess, label_studio_binary, start_label_studio
from backend.cli.redis_process import redis_binary, start_redis
from backend.loop.context import Context
from backend.settings import Settings
from tests import needs, prompted, squares
from tests.browser import close_chromium
from tests.studio_database import LOGIN, fresh_label_studio
from tests.support import IMGSZ, ImageSite, open_context, require, serve_images, tiny_yolo

hypothesis.settings.register_profile("same", derandomize=True)  # what CI says depends on the code alone
hypothesis.settings.register_profile("random", print_blob=True)  # `make test-slow` looks for what nobody thought of
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A test has a marker for each real part that it needs: it asks for one of these fixtures, or its file names the marker.
MARKED_FIXTURES = {
    "label_studio": {"label_studio", "validating_label_studio"},
    "redis": {"redis_url"},
    "torch": {"tiny_weights", "classifier", "learned"},
}
SLOWEST_FILES = 10  # named at the end
LACKING = "lacking.txt"  # in pytest's cache folder: the tests skipped for want of a package, for `pytest @FILE`


def pytest_configure(config: pytest.Config) -> None:
    """Hide Debian's programs from the tests and from all that they start, if asked to."""
    if needs.hidden():
        folder = Path(tempfile.mkdtemp(prefix="programs-"))
        config.add_cleanup(lambda: shutil.rmtree(folder))
        os.environ["PATH"] = needs.hide(folder, os.environ["PATH"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests by the real parts they need; where workers share them, the files that take longest come first."""
    for item in items:
        for marker, fixtures in MARKED_FIXTURES.items():
            if not fixtures.isdisjoint(getattr(item, "fixturenames", ())):
                item.add_marker(marker)
    if hasattr(config, "workerinput"):
        slow_parts = ("label_studio", "browser", "torch", "redis")
        waits = {item.path: 0 for item in items}
        for item in items:
            waits[item.path] += any(item.get_closest_marker(part) for part in slow_parts)
        items.sort(key=lambda item: waits[item.path] == 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the files whose tests took longest, with their set-up."""
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.location[0]] += report.duration  # type: ignore[assignment]
    terminalreporter.section(f"slowest {SLOWEST_FILES} files")
    for path, duration in seconds.most_common(SLOWEST_FILES):
        terminalreporter.write_line(f"{duration:7.1f} s  {path}")


def pytest_sessionfinish() -> None:
    """End the Chromium that all tests of this process share."""
    close_chromium()


def pytest_report_header() -> str:
    """Name the redis that the tests run against."""
    return f"redis: {redis_binary()}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all what was skipped and why, and leave the names of the tests that want a package."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    cache = getattr(config, "cache", None)  # -p no:cacheprovider leaves the attribute out
    if reporter is None or cache is None:
        return
    skipped = [report for report in reporter.stats.get("skipped", ()) if isinstance(report.longrepr, tuple)]
    tests = dict.fromkeys(report.nodeid for report in skipped if needs.package(report.longrepr[2]))
    (cache.mkdir("needs") / LACKING).write_text("".join(f"{test}\n" for test in tests))
    if skipped:
        reporter.write_line(needs.last_line(report.longrepr[2] for report in skipped))


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioProcess]:
    """A real Label Studio with one user; every test makes its own project in it."""
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}: make installs it, or set LABEL_STUDIO_BIN")
    data_dir = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(fresh_label_studio(binary), data_dir)
    with start_label_studio(binary, data_dir, **LOGIN) as process:
        yield process


@pytest.fixture(scope="session")
def validating_label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioProcess]:
    """A Label Studio that validates predictions: one refused row costs a whole import."""
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}: make installs it, or set LABEL_STUDIO_BIN")
    data_dir = tmp_path_factory.mktemp("validating-label-studio") / "data"
    shutil.copytree(fresh_label_studio(binary), data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("fflag_feat_utc_210_prediction_validation_15082025", "1")
        with start_label_studio(binary, data_dir, **LOGIN) as process:
            yield process


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real redis; every test uses its own keys, or flushes."""
    with start_redis(tmp_path_factory.mktemp("redis")) as process:
        yield process.url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """An empty redis."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained YOLO11n that finds boxes."""
    return tiny_yolo(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained classifier that tells pictures apart."""
    return tiny_yolo(tmp_path_factory.mktemp("weights") / "tiny-cls.pt", task="classify")


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> squares.Learned:
    """A model that learned its few pictures well enough to be judged."""
    return squares.learn(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text encoder in the place of CLIP, whose weights cannot be had here."""
    monkeypatch.setattr("backend.yolo.open_vocabulary.text_vectors", prompted.encode)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[ImageSite]:
    """A web server of images."""
    with serve_images(tmp_path / "images") as site:
        yield site


@pytest.fixture
def settings(redis: Redis, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a backend with an empty store and an empty redis, and no Label Studio."""
    return Settings(
        model_dir=str(tmp_path / "models"),
        redis_url=redis_url,
        allowed_hosts="127.0.0.1",
        imgsz=IMGSZ,
        device="cpu",
        model_score_threshold=0.05,  # the tiny weights are not sure of anything
    )


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    with open_context(settings) as context:
        yield context
