"""The table of columns: predictions, shards, pools and parts of pools follow each of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.acquisition.aggregation import pool_of
from backend.acquisition.columns import BY_TABLE, pooled
from backend.acquisition.parts import pool_part
from backend.acquisition.pool import Pool, by_label
from backend.storage import LocalFiles
from backend.store.pool_store import PoolStore
from backend.store.shard_codec import PoolShard
from backend.types import COLUMNS, Column, Prediction
from tests import columns
from tests.columns import prediction

ROWS = {column.name: column for column in COLUMNS}
IN_POOLS = [column for column in COLUMNS if column.pooled != "never"]
_NOTHING = np.zeros(0, np.float32)
BLANK = Prediction(1, 1, _NOTHING, _NOTHING, _NOTHING)
NEEDS = frozenset(column.table for column in COLUMNS if column.pooled == "needed")


def ids(column: Column) -> str:
    return column.name


def stored(folder: Path, predictions: Sequence[Prediction | None]) -> list[PoolShard]:
    """Write predictions as a shard, and read them."""
    store = PoolStore(LocalFiles(folder))
    store.save_shard("pool", PoolShard(0, np.arange(len(predictions)), tuple(predictions)))
    return list(store.shards("pool"))


def made(by_way_of: str, folder: Path, predictions: Sequence[Prediction | None]) -> Pool:
    """Return the pool of predictions, made directly or by way of two shards."""
    ids = np.arange(len(predictions), dtype=np.int64)
    if by_way_of == "predictions":
        return pool_of(ids, predictions, None, NEEDS)
    store = PoolStore(LocalFiles(folder))
    store.clear("pool")
    for index, rows in enumerate(np.array_split(ids, 2)):
        store.save_shard("pool", PoolShard(index, rows, tuple(predictions[row] for row in rows)))
    return store.load_pool("pool", None, NEEDS)[0]


def test_the_table_has_a_row_for_each_optional_field_of_a_prediction() -> None:
    required = {"width", "height", "boxes", "class_probs", "confidence"}
    assert set(ROWS) == {field.name for field in fields(Prediction)} - required
    assert len(ROWS) == len(BY_TABLE) == len(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS, ids=ids)
def test_a_shard_keeps_a_column(column: Column, tmp_path: Path) -> None:
    """Values and types survive, also beside a failed task and an image without boxes."""
    predictions = (prediction(3, column), None, prediction(0, column), prediction(2, column))
    (shard,) = stored(tmp_path, predictions)
    for prediction_before, prediction_after in zip(predictions, shard.predictions, strict=True):
        if prediction_before is None or prediction_after is None:
            assert prediction_before is prediction_after
        elif column.pooled == "needed":
            assert getattr(prediction_after, column.name) is None, "it is read by pools alone"
        else:
            columns.assert_same(getattr(prediction_after, column.name), getattr(prediction_before, column.name))


@pytest.mark.parametrize("column", COLUMNS, ids=ids)
def test_a_shard_marks_images_without_a_column(column: Column, tmp_path: Path) -> None:
    (shard,) = stored(tmp_path, (prediction(2), None, prediction(1)))
    (first, _, last) = shard.predictions
    for decoded in (first, last):
        assert decoded is not None
        columns.assert_same(getattr(decoded, column.name), getattr(BLANK, column.name))


@pytest.mark.parametrize("column", IN_POOLS, ids=ids)
@pytest.mark.parametrize("by_way_of", ["predictions", "shards"])
def test_a_pool_has_a_column(column: Column, by_way_of: str, tmp_path: Path) -> None:
    predictions = [prediction(n, column) for n in (3, 0, 2)]
    without_boxes = [prediction(0)] if column.per == "box" else []  # has no row to lack it in
    pool = made(by_way_of, tmp_path, (predictions[0], None, *predictions[1:], *without_boxes))
    values = [np.asarray(getattr(scored, column.name)) for scored in predictions]
    expected = np.stack(values) if column.per == "image" else np.concatenate(values)
    np.testing.assert_array_equal(pool.columns[column.table], expected)


@pytest.mark.parametrize("column", IN_POOLS, ids=ids)
@pytest.mark.parametrize("by_way_of", ["predictions", "shards"])
def test_a_pool_lacks_a_column_that_one_image_lacks(column: Column, by_way_of: str, tmp_path: Path) -> None:
    for predictions in ((prediction(3, column), prediction(1)), (prediction(1), prediction(3, column))):
        assert column.table not in made(by_way_of, tmp_path, predictions).columns


@pytest.mark.parametrize("column", [column for column in IN_POOLS if column.pooled == "needed"], ids=ids)
def test_a_pool_has_a_large_column_only_if_needed(column: Column, tmp_path: Path) -> None:
    predictions = (prediction(3, column),)
    assert pool_of(np.arange(1), predictions, None).columns == {}
    store = PoolStore(LocalFiles(tmp_path))
    store.save_shard("pool", PoolShard(0, np.arange(1), predictions))
    assert store.load_pool("pool", None)[0].columns == {}


@pytest.mark.parametrize("column", IN_POOLS, ids=ids)
def test_parts_of_a_pool_have_their_rows(column: Column) -> None:
    pool = pool_of(np.arange(3), [prediction(n, column) for n in (3, 1, 2)], None, NEEDS)
    part = pool_part(pool, np.array([2, 0]))
    rows = [2, 0] if column.per == "image" else [4, 5, 0, 1, 2]
    np.testing.assert_array_equal(part.columns[column.table], pool.columns[column.table][rows])


@pytest.mark.parametrize("column", IN_POOLS, ids=ids)
def test_a_row_for_each_label_has_the_values_of_its_box(column: Column) -> None:
    pool = pool_of(np.arange(2), [prediction(1, column), prediction(1, column)], None, NEEDS)
    pool = replace(pool, class_probs=np.array([[0.5, 0.9, 0.01], [0.0, 0.0, 0.6]], np.float32))
    rows = [0, 1] if column.per == "image" else [0, 0, 1]
    np.testing.assert_array_equal(by_label(pool).columns[column.table], pool.columns[column.table][rows])


@pytest.mark.parametrize("column", IN_POOLS, ids=ids)
def test_a_column_that_does_not_fit_is_refused(column: Column) -> None:
    pool = pool_of(np.arange(2), [prediction(2, column), prediction(1, column)], None, NEEDS)
    values = pool.columns[column.table]
    bad: list[Any] = [values[1:], values[:, None]]
    if np.issubdtype(values.dtype, np.floating):
        bad += [np.full_like(values, np.nan), np.full_like(values, np.inf)]
    for array in bad:
        with pytest.raises(ValueError, match=column.table):
            replace(pool, columns={column.table: array})


def test_a_column_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'smell' is no column; use one of .*box_variance"):
        Pool(np.arange(1), np.array([0, 0]), np.zeros((0, 2), np.float32), {"smell": np.ones(1)})


def test_empty_pools_have_the_columns_of_strategies(tmp_path: Path) -> None:
    expected = {column.table for column in pooled(NEEDS) if column.empty}
    for by_way_of in ("predictions", "shards"):
        for predictions in ((), (None, None)):
            pool = made(by_way_of, tmp_path, predictions)
            assert set(pool.columns) == expected
            assert all(len(array) == 0 for array in pool.columns.values())
