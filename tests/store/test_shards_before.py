"""Shards of an earlier release: their content is read back, and today's code writes the same bytes."""

from __future__ import annotations

import io
from dataclasses import fields

import numpy as np
import pytest

from backend.acquisition.columns import pooled
from backend.store import shard_codec
from backend.types import COLUMNS, Prediction
from tests.columns import assert_same
from tests.store import shards_before


@pytest.mark.parametrize("name", shards_before.shards())
def test_a_shard_of_an_earlier_release_is_read(name: str) -> None:
    shard = shards_before.shards()[name]
    with (shards_before.FOLDER / f"{name}.npz").open("rb") as file:
        arrays = shard_codec.read(file, name)
    assert arrays.header.task_ids.tolist() == shard.task_ids.tolist()
    for row, before in enumerate(shard.predictions):
        after = arrays.prediction(row)
        if before is None or after is None:
            assert after is before
            continue
        for field in fields(Prediction):
            if field.name not in ("box_embeddings", "keypoints"):
                assert_same(getattr(after, field.name), getattr(before, field.name))
        if before.keypoints is not None:
            assert_same(after.keypoints, before.keypoints)


def test_its_box_embeddings_are_read_for_pools() -> None:
    shard = shards_before.shards()["boxes"]
    with (shards_before.FOLDER / "boxes.npz").open("rb") as file:
        arrays = shard_codec.read(file, "boxes", pooled(frozenset({"box_embeddings"})))
    (column,) = (column for column in COLUMNS if column.name == "box_embeddings")
    part = arrays.part(column, ~arrays.header.failed)
    expected = [
        prediction.box_embeddings
        for prediction in shard.predictions
        if prediction is not None and prediction.box_embeddings is not None
    ]
    np.testing.assert_array_equal(part, np.concatenate(expected))


@pytest.mark.parametrize("name", shards_before.shards())
def test_the_same_arrays_are_written_today(name: str) -> None:
    """So the earlier release can read them; it ignores unknown arrays."""
    shard = shards_before.shards()[name]
    before = np.load(shards_before.FOLDER / f"{name}.npz")
    after = np.load(io.BytesIO(shard_codec.encode(shard)))
    assert set(before.files) <= set(after.files)
    for array in set(before.files) - {"written"}:
        assert_same(after[array], before[array])


def test_a_shard_without_an_array_of_a_column_has_none_of_it() -> None:
    """As a release wrote it that did not have the column yet."""
    before = np.load(shards_before.FOLDER / "outlines.npz")
    arrays = {name: before[name] for name in before.files if name not in ("thumbnails", "shape_confidence")}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    file.seek(0)
    prediction = shard_codec.read(file, "outlines").prediction(0)
    assert prediction is not None
    assert (prediction.shape_confidence, prediction.thumbnail.shape) == (None, (0,))
    assert prediction.outlines is not None
