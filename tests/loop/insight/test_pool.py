"""The map of a pool: how it is drawn and stored, and what the page reads from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import ModelError, NotFoundError
from backend.evaluation.effort import AnnotationEffort, EffortLog, LabelCount
from backend.evaluation.pool_map import PoolMap
from backend.loop.context import Context
from backend.loop.insight import pool, pool_drawing
from backend.store.paths import map_file
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import IntArray, Prediction, Ranking
from tests.support import CONFIG, TWO_TAGS, model_for, publish

COUNT = 40
LABELED = 4  # the first tasks
SPLIT = (
    '<View><Image name="image" value="$image"/><Labels name="names" toName="image"><Label value="cat"/>'
    '<Label value="dog"/></Labels><Rectangle name="label" toName="image"/></View>'
)


def predicted(row: int, boxes: int = 2) -> Prediction:
    """Return a prediction of a cat and a dog; task 30 is far from all others, and 31 repeats 30's thumbnail."""
    rng = np.random.default_rng(row)
    probs = np.array([[0.9, 0.1], [0.2, 0.6]], dtype=np.float32)[:boxes]
    embedding = rng.normal(0, 0.05, 8) + 1
    if row == 30:
        embedding = -embedding
    return Prediction(
        *(64, 64, np.tile(np.array([[0, 0, 10, 10]], dtype=np.float32), (boxes, 1)), probs, probs.max(axis=1)),
        embedding=embedding.astype(np.float32),
        box_embeddings=rng.random((boxes, 6)).astype(np.float32),
        thumbnail=np.random.default_rng(30 if row == 31 else row).integers(0, 256, 192).astype(np.uint8),
    )


@pytest.fixture
def served(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with version 1, 36 scored tasks, 4 labeled ones, one task that failed, and a ranking."""
    context.store.save_project(ProjectRecord(7, CONFIG, '{"RETRAIN_EVERY": 5}', "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    save(context, np.arange(LABELED), labeled=True)
    save(context, np.arange(LABELED, COUNT))
    values, ids = np.linspace(0, 1, COUNT - LABELED, dtype=np.float32), np.arange(LABELED, COUNT)
    context.store.pools.save_ranking(7, 1, Ranking(ids, values, values, ids % 2 == 0, "entropy"))
    return context


def save(context: Context, ids: IntArray, *, labeled: bool = False) -> None:
    predictions = [predicted(row, boxes=0 if row == 39 else 2) for row in ids.tolist()]
    shard = PoolShard(0, np.append(ids, 99 + labeled), (*predictions, None))
    context.store.pools.save_shard(7, 1, shard, labeled=labeled, tag="label")


def drawn(context: Context) -> PoolMap:
    record = context.store.project(7)
    assert record is not None
    made = pool_drawing.pool_map(context, model_for(context, record, accepted=False))
    context.store.maps.save(7, 1, made, tag="label")
    return made


def test_the_map_has_every_image_with_a_prediction(served: Context) -> None:
    made = drawn(served)
    assert made.task_ids.tolist() == list(range(COUNT))
    assert made.labeled.tolist() == [row < LABELED for row in range(COUNT)]
    assert made.classes.tolist() == [*[0] * 39, -1]
    assert np.isnan(made.uncertainty).tolist() == [*[False] * 39, True]
    assert made.uncertainty[0] == pytest.approx(0.971, abs=1e-3), "the entropy of .6, in bits"
    assert made.pool_counts.tolist() == [35, 35]
    assert np.flatnonzero(made.oddness > 1).tolist() == [30]
    assert made.twins[31] == 30
    assert len(made.box_tasks) == 78
    assert made.names == ("cat", "dog")


def test_the_map_survives_the_store_and_is_always_the_same(served: Context) -> None:
    made, again = drawn(served), drawn(served)
    stored = served.store.maps.load(7, 1, tag="label")
    assert stored is not None
    for name in PoolMap.__slots__:
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(made, name), getattr(stored, name))
    assert served.store.maps.exists(7, 1, tag="label")
    assert not served.store.maps.exists(7, 1, tag="other")


def test_a_damaged_map_is_named(served: Context) -> None:
    drawn(served)
    served.store.files.write(map_file(7, 1, "label"), b"no zip")
    with pytest.raises(ModelError, match=r"damaged file.*map\.npz"):
        pool.view(served, 7)


def test_the_states_of_images(served: Context) -> None:
    drawn(served)
    served.progress.note_failures(7, [], {6: "too large", 99: "no file"})
    view = pool.view(served, 7)
    states = [pool.STATES[code] for code in view.states.tolist()]
    assert states[:LABELED] == ["labeled"] * 4
    assert states[4:9] == ["next", "next", "failed", "next", "next"]
    assert states[9:12] == ["unlabeled", "chance", "unlabeled"]
    assert view.counts["next"] == 4
    assert view.failed == 2
    assert view.late == 0


def test_labels_since_the_map_was_drawn_count(served: Context) -> None:
    drawn(served)
    made = AnnotationEffort(1, 4, 1, 3.0, 1, False, False, 0, 0, 0, 0, 2, labels=(LabelCount("label", "dog", 2),))
    other = replace(made, annotation_id=2, labels=(LabelCount("label", "dog", 9),))
    served.store.state.save_effort(7, EffortLog({4: "1 today", 5: "3 today"}, (made, other)))
    view = pool.view(served, 7)
    assert [pool.STATES[code] for code in view.states.tolist()][3:7] != ["labeled"] * 4
    assert view.counts["labeled"] == 2
    assert view.counts["next"] == 5, "the batch moves on"
    assert [(row.label, row.labels, row.predicted) for row in view.balance] == [("cat", 0, 35), ("dog", 2, 35)]


def test_labels_beside_a_shape_tag_count_for_it(served: Context) -> None:
    served.store.save_project(ProjectRecord(7, SPLIT, "", "", "", ""))
    made = AnnotationEffort(1, 4, 1, 3.0, 1, False, False, 0, 0, 0, 0, 2, labels=(LabelCount("names", "dog", 2),))
    served.store.state.save_effort(7, EffortLog({4: "1 today"}, (made,)))
    assert [(row.label, row.labels) for row in pool.view(served, 7).balance] == [("cat", 0), ("dog", 2)]


def test_groups_and_odd_images_are_listed(served: Context) -> None:
    drawn(served)
    view = pool.view(served, 7)
    assert view.groups == ((30, 31),)
    assert (view.group_count, view.repeated, view.odd_count) == (1, 1, 1)
    assert view.odd[0].task_id == 30


def test_before_anything_is_drawn(context: Context) -> None:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    view = pool.view(context, 7, "second")
    assert (view.drawn, view.tags, view.tag, view.late) == (None, ("label", "second"), "second", 0)
    assert [row.label for row in view.balance] == ["cat"]
    assert not pool_drawing.is_missing(context, 7, 0), "without a ranking there is nothing to draw"
    with pytest.raises(NotFoundError, match="no control tag 'third'"):
        pool.view(context, 7, "third")
    with pytest.raises(NotFoundError, match="never set up"):
        pool.view(context, 8)


def test_an_empty_pool_and_predictions_without_embeddings_give_an_empty_map(served: Context) -> None:
    served.store.pools.clear(7, 1)
    assert len(drawn(served)) == 0
    bare = replace(predicted(1), embedding=np.zeros(0, np.float32), box_embeddings=None)
    served.store.pools.save_shard(7, 1, PoolShard(0, np.array([5]), (bare,)), tag="label")
    made = drawn(served)
    assert (len(made), len(made.box_tasks)) == (0, 0)
    assert made.pool_counts.tolist() == [1, 1]
    assert pool.view(served, 7).counts["unlabeled"] == 0


def test_a_ranked_version_without_a_map_is_told(served: Context) -> None:
    assert pool_drawing.is_missing(served, 7, 1)
    drawn(served)
    assert not pool_drawing.is_missing(served, 7, 1)
