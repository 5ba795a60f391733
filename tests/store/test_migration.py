"""The migration of an earlier release's store loses nothing, even if it is killed or runs in several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from backend.errors import ModelError
from backend.store import paths
from backend.store.store import PoolKeys, PoolShard, PoolSigns, Store
from tests.store import old_layout
from tests.store.old_layout import weights, width
from tests.store.test_store import make_prediction

pytestmark = pytest.mark.processes

FORK = multiprocessing.get_context("fork")
TAGS = ("label", "second")
OF_A_VERSION = {"answer_keys.json", "label_marks.json", "label_review.json", "manifest.json", "ranking.npz", "reserved"}


class Stopped(BaseException):
    """Simulates the end of the process."""


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: a killed process loses nothing that it has written."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    made = str(tmp_path / "models") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    fill(made)
    return made


def fill(root: str) -> None:
    """Write the old store, on a folder or an object store."""
    if "://" not in root:
        old_layout.write(Path(root))
        return
    for path, content in old_layout.files():
        with fsspec.open(f"{root}/{path}", "wb") as file:
            file.write(content)


def opened(root: str, tmp_path: Path) -> Store:
    return Store(root, cache=tmp_path / "cache")


def paths_of(root: str) -> set[str]:
    """Return the paths of all files."""
    system, base = fsspec.core.url_to_fs(root)
    return {path.removeprefix(base).lstrip("/") for path in system.find(base)}


def contents(root: str) -> dict[str, bytes]:
    """Return the content of each file by its path, without drafts of killed processes."""
    system, base = fsspec.core.url_to_fs(root)
    paths = {path.removeprefix(base).lstrip("/"): path for path in system.find(base)}
    return {name: system.cat_file(path) for name, path in paths.items() if not name.endswith(".tmp")}


def everything(store: Store) -> list[Any]:
    """Return everything in a store, as text where it holds NaN or arrays."""
    values: list[Any] = [store.project_ids()]
    for project_id, numbers in ((7, (0, 1, 2, 3)), (8, (1,))):
        current, serving = store.current(project_id), store.serving(project_id)
        values += [repr(store.versions(project_id)), current and current.number, serving and serving.number]
        values += [store.pointers.is_chosen(project_id), store.shown(project_id), store.state.signs(project_id)]
        for number in numbers:
            values += [store.state.pool_keys(project_id, number), store.state.review(project_id, number)]
            values += [store.state.marks(project_id, number), repr(store.pools.ranking(project_id, number))]
            for tag in TAGS:
                place = project_id, number
                values.append(repr(store.pools.ranking(*place, tag=tag)))
                values.append(repr([votes for _, votes in store.pools.votes(*place, tag=tag)]))
                for labeled in (False, True):
                    values += [repr(shard) for shard in store.pools.shards(*place, labeled=labeled, tag=tag)]
        for version in store.versions(project_id):
            for model in version.models if version.promoted else ():
                values.append(store.weights(version, model.from_name).read_bytes())
    return values


def shown_width(store: Store, number: int, tag: str, *, labeled: bool = False) -> int:
    """Return the width of the images that a version's tag predicted."""
    task = 200 if labeled else 100
    (stored,) = store.pools.predictions(7, number, [task], labeled=labeled, tag=tag)
    return stored[1].width


def test_the_versions_are_found(root: str, tmp_path: Path) -> None:
    store = opened(root, tmp_path)
    versions = store.versions(7)
    assert [(version.name, version.promoted) for version in versions] == [
        ("yolo11n-v1", True),
        ("yolo11n-v2", True),
        ("yolo11n-v3", False),
    ]
    for version in versions[:2]:
        assert [model.from_name for model in version.models] == list(TAGS)
        assert [model.reason for model in version.models] == ["published: label", "published: second"]
        assert version.reason == "label: published: label; second: published: second"
        assert [model.metrics and model.metrics.map50 for model in version.models] == [0.5, 0.75]
        assert [model.temperature for model in version.models] == [1.5, 1.5]
        assert [model.classes for model in version.models] == [("a", "b"), ("cat",)]
        assert [model.lesson for model in version.models] == ["lesson of label", "lesson of second"]
        for tag in TAGS:
            assert store.weights(version, tag).read_bytes() == weights(version.number, tag)
    assert store.reserve_number(7) == 4


def test_the_queue_is_found(root: str, tmp_path: Path) -> None:
    store = opened(root, tmp_path)
    for number in (0, 1, 2):
        order = store.pools.ranking(7, number)
        assert order is not None
        assert (order.task_ids.tolist(), order.strategy) == ([101, 100], "margin" if number else "random")
        for tag in TAGS:
            assert shown_width(store, number, tag) == width(number, tag)
            assert store.pools.load_pool(7, number, None, tag=tag)[0].task_ids.tolist() == [100, 101]
            assert store.pools.ranking(7, number, tag=tag) is not None
            if number:
                assert shown_width(store, number, tag, labeled=True) == width(number, tag, labeled=True)
                assert [ids.tolist() for ids, _ in store.pools.votes(7, number, tag=tag)] == [[100, 101]]
        assert store.state.pool_keys(7, number) == PoolKeys({tag: f"key of {tag} {number}" for tag in TAGS})
    assert store.state.signs(7) == (
        PoolSigns(1, 0.25, None, "label"),
        PoolSigns(1, 0.25, None, "second"),
        PoolSigns(2, 0.25, 0.75, "label"),
    )
    review = store.state.review(7, 2)
    assert review is not None
    assert (sorted(review.thresholds), review.reviewed) == ([*TAGS], {11: "x"})
    assert store.state.marks(7, 2) == {101}


def test_the_rollback_is_found_and_another_one_works(root: str, tmp_path: Path) -> None:
    store = opened(root, tmp_path)
    current, serving = store.current(7), store.serving(7)
    assert current is not None
    assert serving is not None
    assert (current.number, serving.number, store.shown(7)) == (1, 2, 2)
    assert store.pointers.is_chosen(7)
    assert store.rollback(7, 2).number == 2
    with pytest.raises(ModelError, match="never promoted"):
        store.rollback(7, 3)


def test_a_version_that_names_no_tag_has_that_of_the_config(root: str, tmp_path: Path) -> None:
    store = opened(root, tmp_path)
    version = store.current(8)
    assert version is not None
    assert [(model.from_name, model.task, model.reason) for model in version.models] == [
        ("label", "detect", "published: the first version")
    ]
    assert store.weights(version, "label").read_bytes() == weights(1, "label")
    assert store.pools.load_pool(8, 1, None, tag="label")[0].task_ids.tolist() == [100, 101]
    assert store.pools.ranking(8, 1) is not None
    assert store.state.signs(8) == (PoolSigns(1, 0.5, None, "label"),)


def test_old_files_are_gone_and_the_migration_runs_once(root: str, tmp_path: Path) -> None:
    before = everything(opened(root, tmp_path))
    files = paths_of(root)
    for number in (0, 1, 2):
        folder = f"projects/7/versions/{number}/"
        inside = {path.removeprefix(folder) for path in files if path.startswith(folder)}
        assert {name for name in inside if not name.startswith("tags/")} <= OF_A_VERSION
        assert f"{paths.scored_folder(7, number, 'label')}/pool-000000.npz" in files
    assert "layout" in files
    assert len(files) == len(list(old_layout.files())) + 1, "no file was lost"
    with stopping(root, 0):  # nothing is written any more
        assert everything(opened(root, tmp_path)) == before


# Stopped in the middle


@contextmanager
def stopping(root: str, after: int, stop: Callable[[], None] | None = None) -> Iterator[list[str]]:
    """Call `stop` (raise Stopped) once, before the step that follows `after` steps that change a file system."""
    steps: list[str] = []

    def end() -> None:
        raise Stopped

    def counted(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            steps.append(name)
            if len(steps) == after + 1:
                (stop or end)()
            return change(*args, **options)

        return step

    changes: list[tuple[Any, str]]
    if "://" in root:
        changes = [(MemoryFileSystem, name) for name in ("cp_file", "rm_file", "pipe_file")]
    else:
        changes = [(Path, name) for name in ("replace", "hardlink_to", "unlink")]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in changes:
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        yield steps


def remove(root: str) -> None:
    """Delete a store: all stores share one memory file system, which gets slow."""
    system, base = fsspec.core.url_to_fs(root)
    system.rm(base, recursive=True)


def steps_of(root: str, tmp_path: Path) -> int:
    """Return how many steps a whole migration has."""
    with stopping(root, -1) as steps:
        opened(root, tmp_path).project_ids()
    return len(steps)


def test_a_migration_that_is_stopped_goes_on(tmp_path: Path) -> None:
    """On an object store, the process ends at each step in turn, and the next process finds everything."""
    whole = f"memory://{uuid.uuid4().hex}"
    fill(whole)
    count = steps_of(whole, tmp_path)
    expected = contents(whole)
    assert count > 40
    for after in range(count):
        root = f"memory://{uuid.uuid4().hex}"
        fill(root)
        with stopping(root, after), pytest.raises(Stopped):
            opened(root, tmp_path).project_ids()
        opened(root, tmp_path).project_ids()
        assert contents(root) == expected, after
        remove(root)


def killed(root: str, after: int, tmp_path: Path) -> None:
    with stopping(root, after, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        opened(root, tmp_path).project_ids()


def test_a_process_that_is_killed_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """SIGKILL before each step that changes the folder: a rename, a link, a removal."""
    whole = str(tmp_path / "whole")
    fill(whole)
    count = steps_of(whole, tmp_path)
    expected = contents(whole)
    assert count > 40
    for after in range(count):
        root = str(tmp_path / str(after))
        fill(root)
        child = FORK.Process(target=killed, args=(root, after, tmp_path))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL, after
        opened(root, tmp_path).project_ids()
        assert contents(root) == expected, after


# Several at once


def work(store: Store) -> None:
    """Use the store as an open process does: score, review and clear."""
    store.pools.clear(7, 0)
    store.pools.save_shard(7, 2, PoolShard(0, np.array([100]), (make_prediction(1),)), tag="label")
    store.state.save_pool_keys(7, 2, PoolKeys({"label": "newer"}, pushed=False))
    store.state.save_signs(7, PoolSigns(2, 0.5, 0.5, "label"))
    store.state.save_marks(7, 2, [])


def test_a_slow_migration_undoes_no_write_of_a_faster_process(root: str, tmp_path: Path) -> None:
    """At each step of a migration, another process does a whole migration and then uses the store."""
    count = steps_of(root, tmp_path)
    work(opened(root, tmp_path))
    for after in range(count):
        other = f"memory://{uuid.uuid4().hex}" if "://" in root else str(tmp_path / str(after))
        fill(other)
        done: dict[str, bytes] = {}

        def overtake(other: str = other, done: dict[str, bytes] = done) -> None:
            work(opened(other, tmp_path))
            done.update(contents(other))

        with stopping(other, after, overtake):
            opened(other, tmp_path).project_ids()
        assert done, after
        assert contents(other) == done, after
        remove(other)


def read_all(root: str, tmp_path: Path, barrier: Any, answers: Any) -> None:
    barrier.wait()
    values = []
    with suppress(BaseException):
        values = everything(opened(root, tmp_path))
    answers.put(repr(values))


def test_processes_that_open_a_store_at_once_find_everything(tmp_path: Path) -> None:
    whole = str(tmp_path / "whole")
    fill(whole)
    expected = repr(everything(opened(whole, tmp_path)))
    for turn in range(3):
        root = str(tmp_path / str(turn))
        fill(root)
        barrier, answers = FORK.Barrier(4), FORK.Queue()
        children = [FORK.Process(target=read_all, args=(root, tmp_path, barrier, answers)) for _ in range(4)]
        for child in children:
            child.start()
        results = [answers.get(timeout=60) for _ in children]
        for child in children:
            child.join()
        assert results == [expected] * 4
        assert paths_of(root) == paths_of(whole)


# What is not whole


def test_a_damaged_manifest_costs_its_version_alone_and_is_migrated_once_it_is_restored(tmp_path: Path) -> None:
    root = tmp_path / "models"
    fill(str(root))
    manifest = root / "projects/7/versions/2/manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good[:-50])
    store = opened(str(root), tmp_path)
    assert store.weights(store.version(7, 1), "label").read_bytes() == weights(1, "label")
    with pytest.raises(ModelError, match=r"damaged file.*versions/2/manifest\.json.*roll back"):
        store.version(7, 2)
    manifest.write_bytes(good)
    version = store.version(7, 2)
    assert store.weights(version, "label").read_bytes() == weights(2, "label")
    assert shown_width(store, 2, "label") == width(2, "label")


def test_a_backup_of_an_earlier_release_can_be_restored(tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    fill(root)
    before = everything(opened(root, tmp_path))
    fill(root)  # over what is there
    store = opened(root, tmp_path)
    assert [version.models[0].from_name for version in store.versions(7)] == ["label"] * 3
    assert shown_width(store, 2, "label") == width(2, "label")
    assert everything(store) == before


@pytest.mark.parametrize("config", ["<View/>", "no XML <", None])
def test_without_a_config_that_can_be_read_the_versions_are_there(tmp_path: Path, config: str | None) -> None:
    """Then the base model's pool has no tag name. It is scored again once there is a config."""
    root = tmp_path / "models"
    fill(str(root))
    for project in ("7", "8"):
        path = root / "projects" / project / "project.json"
        record = json.loads(path.read_text())
        record["project"]["label_config"] = config
        path.unlink() if config is None else path.write_text(json.dumps(record))
    store = opened(str(root), tmp_path)
    assert [model.from_name for model in store.version(7, 2).models] == list(TAGS)
    assert shown_width(store, 2, "label") == width(2, "label")
    assert [model.from_name for model in store.version(8, 1).models] == [""]
    assert store.weights(store.version(8, 1), "").read_bytes() == weights(1, "label")
    assert list(store.pools.shards(7, 0, tag="label")) == []
    store.pools.clear(7, 0)
    assert not list((root / "projects/7/versions/0").glob("pool-*.npz"))


def test_a_project_that_was_put_aside_is_migrated_too(tmp_path: Path) -> None:
    root = tmp_path / "models"
    fill(str(root))
    folder = root / "projects/7"
    (folder / "project.json").rename(folder / "project.aside.json")
    store = opened(str(root), tmp_path)
    assert store.project_ids() == (8,)
    assert shown_width(store, 0, "label") == width(0, "label")


def test_a_check_changes_nothing(root: str, tmp_path: Path) -> None:
    """A second run checks the store before it is refused, and the first run may be of an earlier release."""
    before = paths_of(root)
    opened(root, tmp_path).check()
    assert paths_of(root) == before


def test_a_new_store_has_nothing_to_migrate(tmp_path: Path) -> None:
    store = opened(str(tmp_path / "models"), tmp_path)
    assert store.project_ids() == ()
    assert not (tmp_path / "models").exists()
