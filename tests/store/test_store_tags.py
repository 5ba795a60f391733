"""The store with several control tags in one project: each has its own model, pool and ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import ModelError
from backend.labelstudio import label_config
from backend.model_versions import ModelVersion, TagModel, renamed
from backend.storage import file_sha256
from backend.store.store import PoolShard, Store
from backend.types import Prediction, Ranking
from backend.yolo.ensemble import nobody
from tests.store.test_store import make_version, weights_file
from tests.support import TWO_TAGS, with_model

LABEL, SECOND = label_config.parse(TWO_TAGS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "models"))


def tag_model(sha256: str, name: str = "second") -> TagModel:
    return TagModel(name, "detect", ("cat",), sha256, "yolo11n.pt", None, None, {}, "published: the first version")


def publish(store: Store, tmp_path: Path, *, weights: bool = True, others: Sequence[str] = ("second",)) -> ModelVersion:
    """Publish the next version, with a model for `label` by default, and one for each of `others`."""
    number = store.reserve_number(7)
    files = {name: weights_file(tmp_path, f"{name} {number}".encode()) for name in ("label", *others)}
    models = [tag_model(file_sha256(files[name]), name) for name in others]
    version = with_model(make_version(files["label"], number), *models)
    if not others:
        version = replace(version, models=version.models[:1])
    if not weights:
        version, files = with_model(version, sha256=""), {name: files[name] for name in others}
    store.publish(version, files)
    return version


def prediction(width: int) -> Prediction:
    nothing = np.zeros((0, 4), dtype=np.float32)
    return Prediction(
        width, 10, nothing, np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(3, np.float32)
    )


def shard(width: int) -> PoolShard:
    return PoolShard(0, np.array([100]), (prediction(width),))


def test_each_tag_has_its_weights(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path, others=("second", "a/../b", "Ünï"))
    for name in ("label", "second", "a/../b", "Ünï"):
        assert store.weights(version, name).read_bytes() == f"{name} 1".encode()
    again = Store(str(tmp_path / "models")).version(7, 1)
    assert [model.from_name for model in again.models] == ["label", "second", "a/../b", "Ünï"]


def test_damaged_weights_of_a_further_tag_are_refused(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    publish(store, tmp_path)
    store.weights(version, "second").write_bytes(b"other")
    with pytest.raises(ModelError, match="damaged: wrong sha256"):
        store.weights(version, "second")
    with pytest.raises(ModelError, match="damaged"):
        store.rollback(7, 1)
    assert store.weights(version, "label").read_bytes() == b"label 1"


def test_a_tag_may_have_no_model_yet(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path, weights=False)
    with pytest.raises(ModelError, match="has no weights for label"):
        store.weights(version, "label")
    with pytest.raises(ModelError, match="has no weights for third"):
        store.weights(version, "third")
    publish(store, tmp_path)
    assert store.rollback(7, 1).number == 1


@pytest.mark.parametrize("files_of", ["nothing", "another file"])
def test_weights_that_are_not_the_manifests_are_refused(store: Store, tmp_path: Path, files_of: str) -> None:
    first = weights_file(tmp_path)
    version = with_model(make_version(first, 1), tag_model("0" * 64))
    files = {"label": first} if files_of == "nothing" else {"label": first, "second": first}
    with pytest.raises(ModelError, match="do not have the sha256 of their manifest"):
        store.publish(version, files)
    assert store.versions(7) == ()


def test_which_model_answers_for_a_tag(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    assert [version.model_of(tag) for tag in (LABEL, SECOND)] == list(version.models)
    assert version.model_of(replace(SECOND, task="segment")) is None  # its weights find boxes
    assert version.model_of(replace(SECOND, from_name="third")) is None
    assert publish(store, tmp_path, weights=False).model_of(LABEL) is None


def test_a_tag_that_was_renamed_has_its_model_and_its_files(store: Store, tmp_path: Path) -> None:
    version = publish(store, tmp_path)
    tags = label_config.parse(TWO_TAGS.replace('name="second"', 'name="new"'))
    of_today = renamed(version, tags)
    assert [model.from_name for model in of_today.models] == ["label", "new"]
    assert of_today.model_of(tags[1]) == replace(version.models[1], from_name="new")
    assert [of_today.key_of(name) for name in ("label", "new", "third")] == ["label", "second", "third"]
    assert store.weights(of_today, "new") == store.weights(version, "second")
    assert renamed(of_today, tags) == of_today
    again = renamed(of_today, label_config.parse(TWO_TAGS.replace('name="second"', 'name="newer"')))
    assert again.key_of("newer") == "second"


def test_a_manifest_does_not_store_current_tag_names(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path)
    assert "stored_names" not in (tmp_path / "models/projects/7/versions/1/manifest.json").read_text()


def test_each_tag_has_its_pool_and_ranking(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path)
    for labeled in (False, True):
        store.pools.save_shard(7, 1, shard(11), labeled=labeled, tag="label")
        store.pools.save_shard(7, 1, shard(22), labeled=labeled, tag="second")
    for tag, width in (("label", 11), ("second", 22)):
        for labeled in (False, True):
            prediction = store.pools.prediction(7, 1, 100, labeled=labeled, tag=tag)
            assert prediction is not None
            assert prediction.width == width
            assert len(store.pools.load_pool(7, 1, None, labeled=labeled, tag=tag)[0]) == 1
    values = np.zeros(1, np.float32)
    store.pools.save_ranking(7, 1, Ranking(np.array([100]), values, values, values > 0, "random"), tag="second")
    assert store.pools.ranking(7, 1) is None
    assert store.pools.ranking(7, 1, tag="second") is not None
    store.pools.save_votes(7, 1, 0, np.array([100]), nobody(1), tag="second")
    assert [len(list(store.pools.votes(7, 1, tag=tag))) for tag in ("label", "second")] == [0, 1]
    store.pools.clear(7, 1)
    assert store.pools.prediction(7, 1, 100, tag="second") is None
    assert store.pools.prediction(7, 1, 100, labeled=True, tag="second") is None
    assert store.pools.ranking(7, 1, tag="second") is None
    assert list(store.pools.votes(7, 1, tag="second")) == []


def test_prune_clears_all_tags(store: Store, tmp_path: Path) -> None:
    versions = [publish(store, tmp_path) for _ in range(2)]
    for version in versions:
        for labeled in (False, True):
            store.pools.save_shard(7, version.number, shard(11), labeled=labeled, tag="second")
    store.prune(7, keep=1)
    with pytest.raises(ModelError, match="missing"):
        store.weights(versions[0], "second")
    assert [store.pools.prediction(7, n, 100, tag="second") is None for n in (1, 2)] == [True, False]
    assert [store.pools.prediction(7, n, 100, labeled=True, tag="second") is None for n in (1, 2)] == [True, False]
    assert store.weights(versions[1], "second").read_bytes() == b"second 2"
