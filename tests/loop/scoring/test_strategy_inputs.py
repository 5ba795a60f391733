"""The inputs of a strategy beside the boxes of a stored pool: votes, losses, labeled images, calibrated confidences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.acquisition.learning_loss import image_loss
from backend.acquisition.pool import Committee
from backend.errors import ModelError
from backend.labelstudio import label_config
from backend.loop import served_models
from backend.loop.context import Context
from backend.loop.scoring import strategy_inputs
from backend.loop.scoring.past_predictions import PastModel
from backend.model_versions import Calibration, ModelVersion
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import FloatArray, IntArray, LabeledBox, Prediction
from tests.support import CONFIG, model_for, publish, with_model

RECORD = ProjectRecord(7, CONFIG, "", "", "", "")
IDS = np.array([10, 11, 12])


def predicted(score: float, class_id: int = 0) -> Prediction:
    """Return a prediction with one box, the left half of an image of 100 x 50 px."""
    probs = np.zeros((1, 2), dtype=np.float32)
    probs[0, class_id] = score
    box = np.array([[0, 0, 50, 50]], dtype=np.float32)
    embedding = np.array([score, 1 - score], dtype=np.float32)
    thumbnail, vectors = np.full(192, round(score * 100), dtype=np.uint8), embedding[None] * 3
    return Prediction(100, 50, box, probs, probs.max(axis=1), embedding, box_embeddings=vectors, thumbnail=thumbnail)


def votes(*values: float, members: int = 2) -> Committee:
    """Return the votes on one anchor per image; member t votes the value plus t/10."""
    n = len(values)
    probs = np.array([[[value + t / 10] for value in values] for t in range(members)], dtype=np.float32)
    return Committee(np.arange(n + 1), probs, np.zeros((members, n, 4), np.float32))


@pytest.fixture
def project(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with version 1, its pool of three tasks and one labeled task."""
    context.store.save_project(RECORD)
    publish(context.store, 7, tiny_weights)
    context.store.pools.save_shard(
        7, 1, PoolShard(0, IDS, tuple(predicted(score) for score in (0.2, 0.5, 0.9))), tag="label"
    )
    context.store.pools.save_shard(7, 1, PoolShard(1, np.array([1]), (predicted(0.7),)), labeled=True, tag="label")
    return context


def recalibrated(context: Context, weights: Path, temperature: float) -> ModelVersion:
    """Publish version 2 with another temperature and the pool of version 1."""
    first = context.store.version(7, 1)
    number = context.store.reserve_number(7)
    calibrated = with_model(first, sha256=file_sha256(weights), calibration=Calibration(temperature, 50))
    version = replace(calibrated, number=number, name=f"yolo11n-v{number}", parent=first.number)
    context.store.publish(version, {"label": weights})
    for shard in context.store.pools.shards(7, 1, tag="label"):
        context.store.pools.save_shard(7, number, shard, tag="label")
    return version


def test_the_pool_comes_with_quality_and_labeled_images(project: Context) -> None:
    pool = strategy_inputs.pool_for(project, RECORD, model_for(project, RECORD, accepted=True), "class_entropy")
    assert pool.task_ids.tolist() == IDS.tolist()
    assert (pool.map50, pool.batch) == (0.5, 20)
    assert pool.columns["thumbnails"][:, 7].tolist() == [20, 50, 90]
    assert pool.labeled_thumbnails is not None
    assert pool.labeled_thumbnails[:, 7].tolist() == [70]
    assert pool.labeled_embeddings is not None
    np.testing.assert_allclose(pool.labeled_embeddings, [[0.7, 0.3]], atol=1e-6)
    assert (pool.committee, pool.labeled_losses) == (None, None)
    assert "box_embeddings" not in pool.columns


def test_the_pool_has_box_embeddings_if_the_strategy_needs_them(project: Context) -> None:
    pool = strategy_inputs.pool_for(project, RECORD, model_for(project, RECORD, accepted=True), "ppal")
    np.testing.assert_allclose(pool.columns["box_embeddings"][:, 0], [0.6, 1.5, 2.7], atol=1e-2)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.9), (2.0, 0.75)])
def test_confidences_are_calibrated(project: Context, tiny_weights: Path, temperature: float, expected: float) -> None:
    recalibrated(project, tiny_weights, temperature)
    model = model_for(project, RECORD, accepted=True)
    assert model.temperature == temperature
    pool = strategy_inputs.pool_for(project, RECORD, model, "entropy")
    assert pool.class_probs[2, 0] == pytest.approx(expected)


def test_votes_are_in_the_order_of_the_pool(project: Context) -> None:
    """The votes of two shards are joined; task 11 has no votes, task 99 is no longer in the pool."""
    for index, (ids, shard_votes) in enumerate([([12, 99], votes(0.3, 0.4)), ([10], votes(0.1))]):
        project.store.pools.save_votes(7, 1, index, np.array(ids), shard_votes, tag="label")
    pool = strategy_inputs.pool_for(project, RECORD, model_for(project, RECORD, accepted=True), "bald")
    assert pool.committee is not None
    assert pool.committee.offsets.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(pool.committee.member_probs[:, :, 0], [[0.1, 0.3], [0.2, 0.4]], atol=1e-6)


def test_votes_of_different_committees_are_refused(project: Context) -> None:
    project.store.pools.save_votes(7, 1, 0, IDS[:2], votes(0.3, 0.4), tag="label")
    project.store.pools.save_votes(7, 1, 1, IDS[2:], votes(0.1, members=3), tag="label")
    with pytest.raises(ModelError, match=r"different committees.*yolo-backend score 7"):
        strategy_inputs.pool_for(project, RECORD, model_for(project, RECORD, accepted=True), "bald")


@pytest.mark.parametrize("stored", [[], [(IDS[:0], votes())]])
def test_without_votes_no_image_has_any(stored: list[tuple[IntArray, Committee]]) -> None:
    assert strategy_inputs.joined_votes(stored, IDS).offsets.tolist() == [0, 0, 0, 0]


def test_votes_are_cleared_with_the_pool(project: Context) -> None:
    project.store.pools.save_votes(7, 1, 0, IDS, votes(0.3, 0.4, 0.5), tag="label")
    project.store.pools.clear(7, 1)
    assert list(project.store.pools.votes(7, 1, tag="label")) == []
    assert list(project.store.pools.shards(7, 1, labeled=True, tag="label")) == []


def left_half(label: str) -> tuple[LabeledBox, ...]:
    return (LabeledBox(label, (0.25, 0.5, 0.5, 1.0)),)


def arrays(class_id: int) -> tuple[FloatArray, IntArray]:
    return np.array([[0, 0, 50, 50]], dtype=np.float32), np.array([class_id])


def past(*versions: ModelVersion) -> list[PastModel]:
    """Return the first tag's models of these versions."""
    return [
        PastModel(7, version.number, "label", version.models[0].classes, version.learned_task_ids("label"))
        for version in versions
    ]


def test_the_loss_is_that_of_the_newest_version_that_has_not_learned_from_the_task(
    project: Context, tiny_weights: Path
) -> None:
    """Version 1 learned from task 1, version 2 also from 10. Task 10 was in the pool of version 1, task 11 in both."""
    second = recalibrated(project, tiny_weights, 1.0)
    second = replace(second, snapshot=replace(second.snapshot, train_tasks=(1, 10)))
    versions = past(second, project.store.version(7, 1))
    project.store.pools.save_shard(
        7, 2, PoolShard(0, np.array([11]), (predicted(0.4, class_id=1),)), labeled=True, tag="label"
    )
    cats = dict.fromkeys((1, 10, 11, 99), left_half("cat"))
    sources = dict.fromkeys(cats, 1)
    losses = strategy_inputs.losses_of_labels(project, versions, cats, sources)
    assert losses.keys() == {10, 11}
    assert losses[10] == pytest.approx(image_loss(predicted(0.2), *arrays(0))) == pytest.approx(0.8)
    assert losses[11] == pytest.approx(image_loss(predicted(0.4, class_id=1), *arrays(0))) == pytest.approx(1.4)
    continued = with_model(second, learned=(1, 10, 11))  # it started from a version that had learned from task 11
    others = strategy_inputs.losses_of_labels(project, [*past(continued), versions[1]], cats, sources)
    assert others[11] != pytest.approx(losses[11])


def test_a_label_of_a_class_that_the_model_lacks_costs_no_loss(project: Context) -> None:
    versions = past(project.store.version(7, 1))
    losses = strategy_inputs.losses_of_labels(project, versions, {10: left_half("horse")}, {10: 1})
    assert losses == {10: pytest.approx(0.2)}  # only its extra box costs


@pytest.mark.parametrize(("kind", "size", "members"), [("augmented", 2, 2), ("augmented", 8, 4), ("perturbed", 3, 3)])
def test_the_settings_choose_the_committee(project: Context, kind: str, size: int, members: int) -> None:
    extra = f'{{"COMMITTEE": "{kind}", "COMMITTEE_SIZE": {size}}}'
    record = replace(RECORD, extra_params=extra)
    model = model_for(project, record, accepted=True)
    assert len(served_models.committee_for(project, project.project_settings(record), model)) == members


def test_snapshots_are_the_newest_versions_up_to_the_models_own(project: Context, tiny_weights: Path) -> None:
    settings = project.settings.model_copy(update={"committee": "snapshots", "committee_size": 2})
    with pytest.raises(ModelError, match="needs two published versions, there are 1"):
        served_models.committee_for(project, settings, model_for(project, RECORD, accepted=True))
    publish(project.store, 7, tiny_weights, promoted=False)
    for _ in range(2):
        publish(project.store, 7, tiny_weights)
    model = model_for(project, RECORD, accepted=True)
    assert [version.number for version, _ in served_models.voting_models(project, model, 2)] == [4, 3]
    assert [version.number for version, _ in served_models.voting_models(project, replace(model, number=3), 8)] == [
        3,
        1,
    ]
    assert len(served_models.committee_for(project, settings, model)) == 2


def test_without_weights_there_is_no_committee(context: Context) -> None:
    without_weights = served_models.ServedModel(
        7, 0, "yolo11n-v0", (), None, 1.0, None, 64, "cpu", label_config.parse(CONFIG)[0], "label"
    )
    with pytest.raises(ModelError, match="needs a trained version"):
        served_models.committee_for(context, context.settings, without_weights)
