"""The store: versions that appear whole or not at all, pools and rankings, on a folder and on an fsspec URL."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import stat
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import numpy as np
import pytest

from backend.errors import BusyError, ModelError, NotFoundError, StoreError
from backend.evaluation.held_out_report import EvaluationReport, HeldOutAnswers, LearnedLabels
from backend.evaluation.judged_images import PictureAnswers
from backend.model_versions import Metrics, ModelVersion, TagModel, TrainingSnapshot
from backend.sampling.bandit import Reward
from backend.sampling.stream_admission import StreamState
from backend.storage import LocalFiles, file_sha256
from backend.store import paths, shard_codec
from backend.store.shard_codec import ShardArrays
from backend.store.shard_codec import read as read_shard
from backend.store.store import PoolShard, PoolSigns, ProjectRecord, Store, StoredEvaluation, version_name
from backend.types import Column, Prediction, Ranking
from tests.support import with_model

RECORD = ProjectRecord(7, '<View label="é"/>', '{"RETRAIN_EVERY": 5}', "http://ls", "http://me:9090", "")


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "models") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(root: str, tmp_path: Path) -> Store:
    return Store(root, cache=tmp_path / "cache")


@pytest.fixture
def reopen(root: str, tmp_path: Path) -> Callable[[], Store]:
    """Return the store as another process opens it."""
    return lambda: Store(root, cache=tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "models"))


def weights_file(tmp_path: Path, content: bytes = b"weights") -> Path:
    path = tmp_path / f"{uuid.uuid4().hex}.pt"
    path.write_bytes(content)
    return path


def make_version(weights: Path, number: int, *, promoted: bool = True, project_id: int = 7) -> ModelVersion:
    metrics = Metrics(0.1 + 0.2, 1e-17, {"a": float("nan"), "b": 0.5}, 3, 4, 5)
    hyper = {"epochs": 3, "lr": 0.01, "names": ["x"], "nothing": None}
    model = TagModel(
        *("label", "detect", ("a", "b"), file_sha256(weights), "yolo11n.pt", metrics, None, hyper, "first version")
    )
    return ModelVersion(
        project_id=project_id,
        number=number,
        name=version_name("yolo11n.pt", number),
        parent=None if number == 1 else number - 1,
        snapshot=TrainingSnapshot(project_id, "hash", {11: "2025-01-01T00:00:00Z", 12: "x"}, (1, 2), (3,)),
        software={"ultralytics": "8"},
        timings={"train": 1.25},
        created=datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        promoted=promoted,
        reason="first version",
        models=(model,),
    )


def publish(store: Store, tmp_path: Path, *, promoted: bool = True) -> ModelVersion:
    number = store.reserve_number(7)
    weights = weights_file(tmp_path, f"weights {number}".encode())
    current = store.current(7)
    version = replace(make_version(weights, number, promoted=promoted), parent=current.number if current else None)
    store.publish(version, {"label": weights})
    return version


def make_prediction(n: int, seed: int = 0, *, variance: bool = True) -> Prediction:
    rng = np.random.default_rng(seed)
    return Prediction(
        width=640,
        height=480,
        boxes=rng.random((n, 4), dtype=np.float32) * 100,
        class_probs=rng.random((n, 3), dtype=np.float32),
        confidence=rng.random(n, dtype=np.float32),
        embedding=rng.random(5, dtype=np.float32),
        box_variance=rng.random((n, 4), dtype=np.float32) if variance else None,
        shape_confidence=rng.random(n, dtype=np.float32),
        thumbnail=rng.integers(0, 256, 192).astype(np.uint8),
    )


def same(first: Prediction | None, second: Prediction | None) -> bool:
    if first is None or second is None:
        return first is second
    fields = ("boxes", "class_probs", "confidence", "embedding", "box_variance", "shape_confidence", "thumbnail")
    pairs = [(getattr(first, field), getattr(second, field)) for field in fields]
    return (first.width, first.height) == (second.width, second.height) and all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in pairs
    )


def make_shard(index: int, *predictions: Prediction | None, first: int = 100) -> PoolShard:
    return PoolShard(index, np.arange(first, first + len(predictions)), predictions)


def make_ranking(n: int = 4, explored: tuple[int, ...] = (1,), first: int = 100) -> Ranking:
    marks = np.zeros(n, dtype=np.bool_)
    marks[list(explored)] = True
    numbers = np.linspace(0, 1, n, dtype=np.float32)
    return Ranking(np.arange(first, first + n), numbers, numbers * np.float32(3), marks, "entropy")


def equal(first: Ranking | None, second: Ranking) -> bool:
    fields = ("task_ids", "priority", "acquisition", "explored")
    return (
        first is not None
        and first.strategy == second.strategy
        and all(
            getattr(first, field).dtype == getattr(second, field).dtype
            and np.array_equal(getattr(first, field), getattr(second, field))
            for field in fields
        )
    )


def path_of(store: Store, name: str, number: int = 1) -> Path:
    return Path(store.files.where(f"projects/7/versions/{number}/{name}"))


def of_tag(store: Store, name: str, number: int = 1) -> Path:
    """Return the path of a control tag's file, after creating its folder."""
    path = Path(store.files.where(f"{paths.tag_folder(7, number, 'label')}/{name}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# Projects and the secret


def test_an_empty_store(store: Store) -> None:
    assert store.project(7) is None
    assert store.project_ids() == ()
    assert store.versions(7) == ()
    assert store.current(7) is None
    assert store.serving(7) is None
    assert store.pools.ranking(7, 0) is None
    assert store.pools.prediction(7, 0, 1, tag="label") is None
    store.prune(7, keep=1)
    store.pools.clear(7, 0)


def test_projects(store: Store, reopen: Callable[[], Store]) -> None:
    store.save_project(RECORD)
    store.save_project(replace(RECORD, configured="abc"))
    store.save_project(replace(RECORD, project_id=12))
    store.reserve_number(99)
    assert reopen().project(7) == replace(RECORD, configured="abc")
    assert reopen().project_ids() == (7, 12)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1}', b'{"format": 2, "project": {}}', b"\xff\xfe"])
def test_a_damaged_project_file_is_named(local: Store, damage: bytes) -> None:
    local.save_project(RECORD)
    path = Path(local.files.where("projects/7/project.json"))
    path.write_bytes(damage)
    with pytest.raises(ModelError, match=r"damaged file.*project\.json"):
        local.project(7)


def test_the_secret_is_stable_and_private(local: Store, tmp_path: Path) -> None:
    secret = local.secret()
    assert len(secret) >= 32
    assert Store(str(tmp_path / "models")).secret() == secret == local.secret()
    assert stat.S_IMODE((tmp_path / "models" / "secret").stat().st_mode) == 0o600
    assert Store(str(tmp_path / "other")).secret() != secret


def test_the_secret_on_a_remote_root(store: Store, reopen: Callable[[], Store]) -> None:
    assert store.secret() == reopen().secret()


def _ask(root: str, start: Any, answers: Any) -> None:
    store = Store(root)
    start.wait()
    answers.put((store.secret(), [store.reserve_number(7) for _ in range(20)]))


@pytest.mark.processes
def test_two_processes_share_a_secret_and_no_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_ask, args=(str(tmp_path / "m"), start, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (secret, first), (other_secret, second) = answers.get(timeout=60), answers.get(timeout=60)
    for worker in workers:
        worker.join(60)
    assert secret == other_secret
    assert sorted(first + second) == list(range(1, 41))


def test_many_threads_share_a_secret(local: Store) -> None:
    barrier, secrets_read = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        secrets_read.append(local.secret())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets_read) == 8
    assert len(set(secrets_read)) == 1


# Versions


def test_the_evaluations_of_pruned_and_rejected_versions_stay(
    store: Store, reopen: Callable[[], Store], tmp_path: Path
) -> None:
    weights, evaluation = weights_file(tmp_path), evaluated()
    for number, promoted in enumerate((True, False, True), 1):
        parent = 1 if number > 1 else None
        version = replace(make_version(weights, store.reserve_number(7)), promoted=promoted, parent=parent)
        store.publish(version, {"label": weights}, {"label": evaluation})
    store.prune(7, keep=1)
    reopened = reopen()
    for number in (1, 2, 3):
        assert reopened.evaluations.report(7, number, "label") == evaluation.report
        assert reopened.evaluations.answers(7, number, "label") == evaluation.answers
    with pytest.raises(ModelError, match="missing"):
        reopened.weights(reopened.version(7, 1), "label")


def evaluated() -> StoredEvaluation:
    report = EvaluationReport(("cat",), LearnedLabels(2, 3, {"cat": 3}), None, None)
    return StoredEvaluation(report, HeldOutAnswers((PictureAnswers(7, 0, 1, 0, 0),), None))


@pytest.mark.parametrize(
    ("base", "number", "name"),
    [("yolo11n.pt", 3, "yolo11n-v3"), ("models/my.best.pt", 0, "my.best-v0"), ("yolo26s.yaml", 1, "yolo26s-v1")],
)
def test_version_name(base: str, number: int, name: str) -> None:
    assert version_name(base, number) == name


def test_numbers_are_never_used_twice(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    store.pools.save_shard(7, 0, make_shard(0, make_prediction(1)), tag="label")
    assert publish(store, tmp_path).number == 1
    assert store.reserve_number(7) == 2  # a training that dies
    assert publish(reopen(), tmp_path).number == 3
    store.rollback(7, 1)
    store.prune(7, keep=1)
    assert reopen().reserve_number(7) == 4
    assert reopen().reserve_number(8) == 1


def test_a_manifest_survives_the_round_trip(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    reread = reopen().version(7, 1)
    assert repr(reread.models[0].metrics) == repr(version.models[0].metrics)  # NaN is not equal to itself
    assert with_model(reread, metrics=None) == with_model(version, metrics=None)
    assert reread.created.utcoffset() == timedelta(0)
    assert repr(reopen().current(7)) == repr(reread) == repr(reopen().versions(7)[0])


def test_times_are_kept_in_utc(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    weights = weights_file(tmp_path)
    noon = datetime(2025, 5, 5, 12, tzinfo=timezone(timedelta(hours=2)))
    store.publish(replace(make_version(weights, 1), created=noon), {"label": weights})
    assert reopen().version(7, 1).created == noon
    assert reopen().version(7, 1).created.hour == 10


def test_weights_come_back_checked(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    assert store.weights(version, "label").read_bytes() == b"weights 1"
    assert reopen().weights(version, "label").read_bytes() == b"weights 1"
    assert reopen().weights(version, "label").suffix == ".pt"


def test_damaged_weights_are_named_and_never_given_out(
    store: Store, reopen: Callable[[], Store], root: str, tmp_path: Path
) -> None:
    publish(store, tmp_path)
    version = publish(store, tmp_path)
    with fsspec.open(f"{root}/{paths.weights_file(7, 2, 'label')}", "wb") as file:
        file.write(b"weights X")
    with pytest.raises(ModelError, match=r"yolo11n-v2 are damaged.*versions/2/tags/\w+/weights\.pt.*roll back"):
        reopen().weights(version, "label")
    assert reopen().rollback(7, 1).number == 1
    with pytest.raises(ModelError, match="damaged"):
        reopen().rollback(7, 2)
    current = reopen().current(7)
    assert current is not None
    assert current.number == 1


def test_a_damaged_local_copy_of_remote_weights_is_fetched_again(tmp_path: Path) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}", cache=tmp_path / "cache")
    version = publish(store, tmp_path)
    store.weights(version, "label").write_bytes(b"damaged")
    assert store.weights(version, "label").read_bytes() == b"weights 1"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{version.models[0].sha256}.pt"]


def test_missing_weights(local: Store, tmp_path: Path) -> None:
    version = publish(local, tmp_path)
    of_tag(local, "weights.pt").unlink()
    with pytest.raises(ModelError, match=r"yolo11n-v1 are missing.*roll back"):
        local.weights(version, "label")


def test_a_version_without_a_manifest_does_not_exist(local: Store, tmp_path: Path) -> None:
    version = publish(local, tmp_path)
    number = local.reserve_number(7)
    of_tag(local, "weights.pt", number).write_bytes(b"killed between weights and manifest")
    assert [published.number for published in local.versions(7)] == [1]
    assert local.current(7) is not None
    with pytest.raises(NotFoundError, match=r"no version 2.*published versions: 1"):
        local.version(7, 2)
    with pytest.raises(NotFoundError):
        local.weights(replace(version, number=2), "label")
    with pytest.raises(NotFoundError):
        local.rollback(7, 2)


def test_killed_before_the_pointer_moved(local: Store, tmp_path: Path) -> None:
    publish(local, tmp_path)
    version = publish(local, tmp_path)
    Path(local.files.where("projects/7/current/2")).unlink()
    local.publish(version, {"label": weights_file(tmp_path, b"weights 2")})  # the job runs again
    current = local.current(7)
    assert current is not None
    assert current.number == 2


def test_the_manifest_is_written_last(local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename = Path.replace

    def record(self: Path, target: Path) -> Path:
        order.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", record)
    publish(local, tmp_path)
    assert order == ["weights.pt", "manifest.json"]


def test_a_failed_write_keeps_the_old_file(local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local.save_project(RECORD)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device \[.*models.* Fix: make room"):
        local.save_project(replace(RECORD, hostname="new"))
    monkeypatch.undo()
    assert local.project(7) == RECORD
    assert [path.name for path in (tmp_path / "models/projects/7").iterdir()] == ["project.json"]


def test_publishing_refuses_other_weights_and_a_taken_number(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    other = weights_file(tmp_path, b"other")
    with pytest.raises(ModelError, match="sha256"):
        store.publish(with_model(make_version(other, 2), sha256="0" * 64), {"label": other})
    with pytest.raises(ModelError, match="yolo11n-v1 is published already"):
        store.publish(with_model(make_version(other, 1), metrics=None), {"label": other})
    assert store.version(7, 1).models[0].sha256 == version.models[0].sha256
    assert len(store.versions(7)) == 1


def test_a_rejected_challenger_is_shown_but_never_current(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path)
    rejected = publish(store, tmp_path, promoted=False)
    current = store.current(7)
    assert current is not None
    assert current.number == 1
    assert [version.promoted for version in store.versions(7)] == [True, False]
    with pytest.raises(ModelError, match="never promoted"):
        store.rollback(7, rejected.number)
    with pytest.raises(ModelError, match="missing"):
        store.weights(rejected, "label")


def test_rollback_and_on(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    for _ in range(3):
        publish(store, tmp_path)
    store.rollback(7, 2)
    current = reopen().current(7)
    assert current is not None
    assert current.number == 2
    publish(store, tmp_path)
    current = reopen().current(7)
    assert current is not None
    assert current.number == 4


def test_serving_follows_activation_only(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    publish(store, tmp_path)
    assert reopen().serving(7) is None
    store.activate(7, 1)
    publish(store, tmp_path)
    serving = reopen().serving(7)
    assert serving is not None
    assert serving.number == 1
    store.activate(7, 0)
    assert reopen().serving(7) is None
    with pytest.raises(NotFoundError):
        store.activate(7, 9)


@pytest.mark.parametrize("name", ["manifest.json", "../../current/1"])
def test_damaged_json_is_named(local: Store, tmp_path: Path, name: str) -> None:
    publish(local, tmp_path)
    path_of(local, name).write_text('{"format": 1, "number": "one"}')
    with pytest.raises(ModelError, match=f"damaged file.*{Path(name).name}"):
        Store(str(tmp_path / "models")).current(7)


def test_projects_stay_apart(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path)
    store.pools.save_shard(7, 1, make_shard(0, make_prediction(1)), tag="label")
    assert store.current(8) is None
    assert store.pools.prediction(8, 1, 100, tag="label") is None
    assert len(store.pools.load_pool(8, 1, None, tag="label")[0]) == 0


def test_prune_keeps_the_newest_the_current_and_the_serving(store: Store, tmp_path: Path) -> None:
    for _ in range(5):
        version = publish(store, tmp_path)
        store.pools.save_shard(7, version.number, make_shard(0, make_prediction(1)), tag="label")
        store.pools.save_ranking(7, version.number, make_ranking())
    store.pools.save_shard(7, 0, make_shard(0, make_prediction(1)), tag="label")
    store.activate(7, 2)
    store.rollback(7, 1)
    store.prune(7, keep=2)
    assert [version.number for version in store.versions(7)] == [1, 2, 3, 4, 5]
    assert [len(store.pools.load_pool(7, number, None, tag="label")[0]) for number in range(6)] == [0, 1, 1, 0, 1, 1]
    assert [store.pools.ranking(7, number) is not None for number in range(1, 6)] == [True, True, False, True, True]
    with pytest.raises(ModelError, match="missing"):
        store.weights(store.version(7, 3), "label")
    assert store.weights(store.version(7, 1), "label").exists()


def test_prune_clears_dead_trainings_but_not_the_one_under_way(local: Store, tmp_path: Path) -> None:
    dead = local.reserve_number(7)
    of_tag(local, "weights.pt", dead).write_bytes(b"x")
    publish(local, tmp_path)
    running = local.reserve_number(7)
    of_tag(local, "weights.pt", running).write_bytes(b"x")
    local.prune(7, keep=1)
    assert not of_tag(local, "weights.pt", dead).exists()
    assert of_tag(local, "weights.pt", running).exists()
    assert local.weights(local.version(7, 2), "label").exists()


# Scored pools


def test_predictions_come_back_identical(store: Store, reopen: Callable[[], Store]) -> None:
    predictions = (make_prediction(3), None, make_prediction(0, 1), make_prediction(2, 2, variance=False))
    store.pools.save_shard(7, 0, make_shard(0, *predictions), tag="label")
    for at, prediction in enumerate(predictions):
        assert same(reopen().pools.prediction(7, 0, 100 + at, tag="label"), prediction)
    assert reopen().pools.prediction(7, 0, 99, tag="label") is None
    assert reopen().pools.prediction(7, 0, 104, tag="label") is None
    (shard,) = reopen().pools.shards(7, 0, tag="label")
    assert shard.task_ids.tolist() == [100, 101, 102, 103]
    assert all(same(stored, original) for stored, original in zip(shard.predictions, predictions, strict=True))


def test_predictions_of_many_tasks_read_each_shard_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one at a time, tasks that are spread over shards would read a shard each."""
    usual, replaced = make_prediction(1), make_prediction(2, 2)
    for index in range(12):
        store.pools.save_shard(
            7, 0, PoolShard(index, np.arange(index, 48, 12), (usual, None, usual, usual)), tag="label"
        )
    store.pools.save_shard(7, 0, PoolShard(12, np.array([5]), (replaced,)), tag="label")
    opened: list[str] = []

    def read(file: BinaryIO, where: str, columns: Sequence[Column]) -> ShardArrays:
        opened.append(where)
        return read_shard(file, where, columns)

    monkeypatch.setattr(shard_codec, "read", read)
    stored = dict(store.pools.predictions(7, 0, [*range(40), 99], tag="label"))
    assert stored.keys() == {*range(12), *range(24, 40)}
    assert same(stored[5], replaced)
    assert same(stored[4], usual)
    assert len(opened) == len(set(opened)) == 13
    assert dict(store.pools.predictions(7, 0, [7, 30], tag="label")).keys() == {7, 30}
    assert len(opened) == 13  # the shards are in memory
    assert (
        dict(store.pools.predictions(7, 0, [], tag="label"))
        == dict(store.pools.predictions(7, 0, [1], labeled=True, tag="label"))
        == {}
    )


def test_load_pool_merges_the_shards(store: Store) -> None:
    first, second, third = make_prediction(3, 1), make_prediction(0, 2), make_prediction(2, 3)
    store.pools.save_shard(7, 4, make_shard(0, first, None, first=100), tag="label")
    store.pools.save_shard(7, 4, make_shard(1, second, third, None, first=200), tag="label")
    weights = np.array([1, 2, 3], dtype=np.float32)
    pool, failed = store.pools.load_pool(7, 4, weights, tag="label")
    assert failed == (101, 202)
    assert pool.task_ids.tolist() == [100, 200, 201]
    assert pool.offsets.tolist() == [0, 3, 3, 5]
    assert np.array_equal(pool.class_probs, np.concatenate([first.class_probs, third.class_probs]))
    assert np.array_equal(pool.columns["embeddings"], [first.embedding, second.embedding, third.embedding])
    assert pool.class_weights is weights


def test_a_pool_is_in_memory_once(local: Store) -> None:
    for index in range(20):
        local.pools.save_shard(
            7, 1, make_shard(index, *[make_prediction(200, at) for at in range(50)], first=100 * index), tag="label"
        )
    local.pools.prediction(7, 1, 100, tag="label")
    tracemalloc.start()
    pool, _ = local.pools.load_pool(7, 1, None, tag="label")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pool) == 1000
    assert peak < 1.6 * (pool.class_probs.nbytes + pool.columns["box_variance"].nbytes)


def test_load_pool_of_nothing(store: Store) -> None:
    pool, failed = store.pools.load_pool(7, 0, np.ones(3, dtype=np.float32), tag="label")
    assert (len(pool), failed, pool.columns.get("embeddings")) == (0, (), None)
    store.pools.save_shard(7, 0, make_shard(0, None, None), tag="label")
    pool, failed = store.pools.load_pool(7, 0, np.ones(3, dtype=np.float32), tag="label")
    assert (len(pool), failed) == (0, (100, 101))


def test_a_model_that_finds_nothing_and_has_no_embedding(store: Store) -> None:
    nothing = Prediction(
        8,
        9,
        np.zeros((0, 4), np.float32),
        np.zeros((0, 0), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
    )
    store.pools.save_shard(7, 0, make_shard(0, nothing, nothing), tag="label")
    pool, _ = store.pools.load_pool(7, 0, None, tag="label")
    assert pool.offsets.tolist() == [0, 0, 0]
    assert "embeddings" not in pool.columns
    assert same(store.pools.prediction(7, 0, 101, tag="label"), nothing)


def test_the_shard_with_the_highest_index_wins_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_prediction(3, 1), make_prediction(1, 2)
    store.pools.save_shard(7, 1, make_shard(2, old, old, None), tag="label")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600_000_000_000)  # set back by an hour
    store.pools.save_shard(7, 1, make_shard(9, new, first=101), tag="label")
    store.pools.save_shard(7, 1, make_shard(10, new, first=102), tag="label")
    pool, failed = store.pools.load_pool(7, 1, None, tag="label")
    assert sorted(pool.task_ids.tolist()) == [100, 101, 102]
    assert failed == ()
    assert np.diff(pool.offsets)[np.argsort(pool.task_ids)].tolist() == [3, 1, 1]
    assert same(store.pools.prediction(7, 1, 101, tag="label"), new)
    assert same(store.pools.prediction(7, 1, 100, tag="label"), old)
    tasks = [task for shard in store.pools.shards(7, 1, tag="label") for task in shard.task_ids.tolist()]
    assert sorted(tasks) == [100, 101, 102]


def test_a_prediction_is_valid_for_the_data_that_was_shown(store: Store) -> None:
    first, second = make_prediction(3, 1), make_prediction(1, 2)
    store.pools.save_shard(
        7, 1, replace(make_shard(0, first, second, None), sources=np.array([11, 22, 33])), tag="label"
    )
    assert same(store.pools.prediction(7, 1, 100, tag="label"), first)
    assert same(store.pools.prediction(7, 1, 100, 11, tag="label"), first)
    assert store.pools.prediction(7, 1, 100, 12, tag="label") is None
    shown = {100: 12, 101: 22}
    assert [task for task, _ in store.pools.predictions(7, 1, [100, 101, 102], shown, tag="label")] == [101]
    assert store.pools.sources(7, 1, tag="label") == {100: 11, 101: 22, 102: 33}
    store.pools.save_shard(7, 2, make_shard(0, first), tag="label")  # as by an earlier release, which did not say
    assert same(store.pools.prediction(7, 2, 100, 11, tag="label"), first)
    with pytest.raises(ValueError, match="sources"):
        replace(make_shard(0, first), sources=np.array([1, 2]))


def test_a_shard_of_an_earlier_release_has_no_sources(local: Store) -> None:
    local.pools.save_shard(7, 1, make_shard(0, make_prediction(3, 1)), tag="label")
    path = of_tag(local, "pool-000000.npz")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "sources"}
    np.savez(path, allow_pickle=False, **arrays)
    assert local.pools.prediction(7, 1, 100, 5, tag="label") is not None
    assert local.pools.sources(7, 1, tag="label") == {100: 0}


def test_a_shard_saved_twice_is_there_once(store: Store) -> None:
    for _ in range(2):
        store.pools.save_shard(7, 1, make_shard(0, make_prediction(3), None), tag="label")
    pool, failed = store.pools.load_pool(7, 1, None, tag="label")
    assert (len(pool), len(pool.class_probs), failed) == (1, 3, (101,))


def test_look_ups_find_shards_of_other_processes(local: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "models"))
    assert local.pools.prediction(7, 1, 100, tag="label") is None
    for seed in range(5):
        other.pools.save_shard(7, 1, make_shard(0, make_prediction(2, seed)), tag="label")
        assert same(local.pools.prediction(7, 1, 100, tag="label"), make_prediction(2, seed))
        other.pools.save_shard(7, 1, make_shard(seed + 1, make_prediction(1, seed), first=200 + seed), tag="label")
        assert same(local.pools.prediction(7, 1, 200 + seed, tag="label"), make_prediction(1, seed))
    other.pools.clear(7, 1)
    assert local.pools.prediction(7, 1, 100, tag="label") is None


def test_look_ups_do_not_read_a_shard_per_task(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        local.pools.save_shard(
            7, 1, make_shard(index, *[make_prediction(2, at) for at in range(20)], first=100 * index), tag="label"
        )
    opened: list[str] = []
    read = LocalFiles.open

    def record(self: LocalFiles, path: str) -> BinaryIO:
        opened.append(path)
        return read(self, path)

    monkeypatch.setattr(LocalFiles, "open", record)
    for index in range(3):
        for at in range(20):
            assert same(local.pools.prediction(7, 1, 100 * index + at, tag="label"), make_prediction(2, at))
    assert len(opened) == 6  # the header of each once, then each once


def test_look_ups_from_many_threads(local: Store) -> None:
    for index in range(12):
        local.pools.save_shard(7, 1, make_shard(index, make_prediction(2, index), first=index), tag="label")
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for task in np.random.default_rng(seed).integers(0, 12, 60).tolist():
            if not same(local.pools.prediction(7, 1, task, tag="label"), make_prediction(2, task)):
                wrong.append(task)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_next_shard_and_clear(store: Store) -> None:
    assert store.pools.next_shard(7, 1, tag="label") == 0
    store.pools.save_shard(7, 1, make_shard(4, make_prediction(1)), tag="label")
    store.pools.save_ranking(7, 1, make_ranking())
    assert store.pools.next_shard(7, 1, tag="label") == 5
    store.pools.clear(7, 1)
    assert store.pools.next_shard(7, 1, tag="label") == 0
    assert store.pools.ranking(7, 1) is None
    assert len(store.pools.load_pool(7, 1, None, tag="label")[0]) == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickle"])
def test_a_damaged_shard_is_named(local: Store, damage: str) -> None:
    local.pools.save_shard(7, 1, make_shard(0, *[make_prediction(20, at) for at in range(5)]), tag="label")
    path = of_tag(local, "pool-000000.npz")
    data = bytearray(path.read_bytes())
    if damage == "pickle":
        with path.open("wb") as file:
            np.savez(file, written=np.array([object()], dtype=object))
    else:
        data[data.index(b"class_probs.npy") + 200] ^= 0xFF  # in the numbers: in a header of the zip it may do no harm
        path.write_bytes({"empty": b"", "cut": bytes(data[: len(data) // 2]), "flipped": bytes(data)}[damage])
    with pytest.raises(ModelError, match=r"damaged file.*pool-000000\.npz.*score the project again"):
        local.pools.load_pool(7, 1, None, tag="label")


def test_a_pool_rewritten_while_it_is_read(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the shard each time after its header was read, and before its arrays are."""
    local.pools.save_shard(7, 1, make_shard(0, make_prediction(2)), tag="label")
    open_file, opened = LocalFiles.open, itertools.count(1)

    def overtaken(files: LocalFiles, path: str) -> BinaryIO:
        if path.endswith("pool-000000.npz") and next(opened) % 2 == 0:
            local.pools.save_shard(7, 1, make_shard(0, make_prediction(5)), tag="label")
        return open_file(files, path)

    monkeypatch.setattr(LocalFiles, "open", overtaken)
    with pytest.raises(BusyError, match="pool changed"):
        local.pools.load_pool(7, 1, None, tag="label")
    assert local.pools.prediction(7, 1, 100, tag="label") is None
    assert next(opened) == 5


def test_a_shard_must_fit_its_tasks() -> None:
    with pytest.raises(ValueError, match="2 predictions"):
        PoolShard(0, np.arange(3), (None, None))


# Rankings


def test_rankings_come_back_identical(store: Store, reopen: Callable[[], Store]) -> None:
    store.pools.save_ranking(7, 0, make_ranking())
    store.pools.save_ranking(7, 1, make_ranking(0, explored=()))
    assert equal(reopen().pools.ranking(7, 0), make_ranking())
    assert equal(reopen().pools.ranking(7, 1), make_ranking(0, explored=()))


def test_other_processes_read_a_new_ranking(local: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "models"))
    assert local.pools.ranking(7, 1) is None
    for n in range(1, 5):
        other.pools.save_ranking(7, 1, make_ranking(n, explored=()))
        assert equal(local.pools.ranking(7, 1), make_ranking(n, explored=()))


def test_a_damaged_ranking_is_named(local: Store) -> None:
    local.pools.save_ranking(7, 1, make_ranking())
    path_of(local, "ranking.npz").write_bytes(b"not a zip file")
    with pytest.raises(ModelError, match=r"damaged file.*ranking\.npz"):
        local.pools.ranking(7, 1)


def test_a_file_changed_behind_our_back_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"good")
    times = path.stat()
    time.sleep(0.1)  # so old that its sum is remembered
    good = file_sha256(path)
    assert file_sha256(path) == good
    path.write_bytes(b"evil")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    time.sleep(0.1)
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert file_sha256(path) != good


# What the rounds taught


def test_the_stream_state_is_kept(store: Store, reopen: Callable[[], Store]) -> None:
    assert store.state.stream(7) == StreamState()
    state = StreamState(0.7, 12, 5, 2, 9)
    store.state.save_stream(7, state)
    assert reopen().state.stream(7) == state
    assert store.state.stream(8) == StreamState()


def test_rewards_are_kept_by_version_and_signs_by_tag_too(store: Store, reopen: Callable[[], Store]) -> None:
    assert (store.state.rewards(7), store.state.signs(7)) == ((), ())
    for version in (2, 1, 2):
        store.state.save_reward(7, Reward(version, "entropy", 20, 100, 0.01 * version, None))
        store.state.save_signs(7, PoolSigns(version, 0.5, None, "second"))
        store.state.save_signs(7, PoolSigns(version, 0.5, None, tag="label"))
    store.state.save_reward(7, Reward(2, "margin", 20, 100, 0.5, 0.25))
    store.state.save_signs(7, PoolSigns(2, None, 0.99, tag="label"))
    again = reopen()
    assert again.state.rewards(7) == (
        Reward(1, "entropy", 20, 100, 0.01, None),
        Reward(2, "margin", 20, 100, 0.5, 0.25),
    )
    assert again.state.signs(7) == (
        PoolSigns(1, 0.5, None, tag="label"),
        PoolSigns(1, 0.5, None, "second"),
        PoolSigns(2, None, 0.99, tag="label"),
        PoolSigns(2, 0.5, None, "second"),
    )


@pytest.mark.parametrize(("file", "name"), [("stream", "stream"), ("rewards", "rewards"), ("pool_signs", "signs")])
def test_a_damaged_small_file_is_named(local: Store, tmp_path: Path, file: str, name: str) -> None:
    local.state.save_stream(7, StreamState())
    (tmp_path / "models/projects/7" / f"{file}.json").write_text("{}x")
    with pytest.raises(ModelError, match=f"damaged file.*{file}.json.*delete the file"):
        getattr(local.state, name)(7)


# Two writers at once


def test_of_two_successors_of_one_version_the_first_is_accepted(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path)
    late = weights_file(tmp_path, b"late")
    version = replace(make_version(late, store.reserve_number(7)), parent=1)
    publish(store, tmp_path)
    with pytest.raises(BusyError, match="version 3 was accepted while the successor of version 1 was made"):
        store.publish(version, {"label": late})
    current = store.current(7)
    assert current is not None
    assert current.number == 3
    assert [published.number for published in store.versions(7)] == [1, 3]


def test_the_loser_of_the_last_moment_leaves_no_version(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have written their manifest; the pointer can be moved from their parent once."""
    publish(store, tmp_path)
    late, write = weights_file(tmp_path, b"late"), store.files.write
    version = replace(make_version(late, store.reserve_number(7)), parent=1)

    def overtaken(path: str, data: bytes) -> None:
        write(path, data)
        with monkeypatch.context() as patched:
            patched.setattr(store.files, "write", write)
            publish(store, tmp_path)

    with monkeypatch.context() as patched:
        patched.setattr(store.files, "write", overtaken)
        with pytest.raises(BusyError, match="was accepted while"):
            store.publish(version, {"label": late})
    assert [published.number for published in store.versions(7)] == [1, 3]
    current = store.current(7)
    assert current is not None
    assert current.number == 3


def test_of_many_moves_of_a_pointer_one_wins(tmp_path: Path) -> None:
    first = Store(str(tmp_path / "models"))
    publish(first, tmp_path)

    def move(number: int) -> bool:
        try:
            Store(str(tmp_path / "models")).pointers.point_on("current", 7, 1, number)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(move, range(2, 10))) == 1


def test_tokens_are_given_once(tmp_path: Path) -> None:
    def take(_: int) -> int:
        return Store(str(tmp_path / "models")).tokens.take(7, "push")

    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(take, range(40)))
    assert len(set(tokens)) == 40
    assert Store(str(tmp_path / "models")).tokens.newest(7, "push") == max(tokens)
    assert Store(str(tmp_path / "models")).tokens.newest(7, "training") == 0
    folder = tmp_path / "models/projects/7/fences/push"
    assert str(max(tokens)) in {path.name for path in folder.iterdir()}


def test_a_store_with_single_pointer_files_is_read_and_goes_on(local: Store, tmp_path: Path) -> None:
    """As earlier releases wrote them."""
    publish(local, tmp_path)
    folder = tmp_path / "models/projects/7"
    (folder / "current/1").rename(folder / "current.json")
    (folder / "current").rmdir()
    current = local.current(7)
    assert current is not None
    assert current.number == 1
    publish(local, tmp_path)
    current = local.current(7)
    assert current is not None
    assert current.number == 2
