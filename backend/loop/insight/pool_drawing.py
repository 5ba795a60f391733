"""Draws the maps of a version's pool after its ranking: one file per control tag in the store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.acquisition.aggregation import top_rows
from backend.acquisition.columns import BY_TABLE
from backend.acquisition.distances import unit
from backend.acquisition.duplicates import twins
from backend.acquisition.pool import Pool
from backend.acquisition.uncertainty import row_uncertainty
from backend.evaluation.agreement import SHOWN
from backend.evaluation.calibration import calibrated
from backend.evaluation.pool_map import PoolMap, drawn_boxes, oddness, plane
from backend.labelstudio import label_config
from backend.labelstudio.regions import class_labels
from backend.loop.context import Context
from backend.loop.served_models import ServedModel, models_for, project_record, require_project
from backend.types import BoolArray, ByteArray, FloatArray, IntArray

log = logging.getLogger(__name__)

BOXES = 20_000  # boxes on a map
_BOX_EMBEDDINGS = BY_TABLE["box_embeddings"]


def draw(context: Context, project_id: int, number: int) -> bool:
    """Draw and store the maps of version `number`; return False if another version serves by now.

    The whole pool is in memory, as for a ranking, but only BOXES embeddings of boxes.
    """
    models = models_for(context, project_record(context, project_id), accepted=False)
    if models[0].number != number:
        return False
    for model in reversed(models):  # the first model last: if its map exists, all do
        drawn = pool_map(context, model)
        context.store.maps.save(project_id, number, drawn, tag=model.key)
        log.info("project %d: the map of %s has %d images", project_id, model.name, len(drawn))
    return True


def is_missing(context: Context, project_id: int, number: int) -> bool:
    """Return whether a ranked version lacks its maps: the job was lost, or an earlier release ranked it."""
    if context.store.pools.ranking(project_id, number) is None:
        return False
    record = require_project(context, project_id)
    first = (
        context.store.version(project_id, number).models[0] if number else label_config.parse(record.label_config)[0]
    )
    return not context.store.maps.exists(project_id, number, tag=first.from_name)


def pool_map(context: Context, model: ServedModel) -> PoolMap:
    """Return the map of a version's pool by one tag's model; images without an embedding are left out.

    Raises as `ScoredPools.load_pool`.
    """
    settings = context.project_settings(context.store.project(model.project_id))
    lowest = settings.model_score_threshold if model.tag.score_threshold is None else model.tag.score_threshold
    parts = []
    for labeled in (True, False):
        pool, _ = context.store.pools.load_pool(model.project_id, model.number, None, labeled=labeled, tag=model.key)
        parts.append(_part(calibrated(pool, model.temperature, model.tag.outcomes), lowest, labeled=labeled))
    counts = np.bincount(parts[1].box_classes, minlength=len(model.classes)).astype(np.int64)
    images, boxes = _joined(parts), _boxes(context, model, min(lowest, SHOWN))
    points = unit(images.embeddings)
    places, explained = plane(points)
    return PoolMap(
        task_ids=images.task_ids,
        places=places,
        labeled=images.labeled,
        classes=images.classes,
        uncertainty=images.uncertainty,
        twins=images.task_ids[_leaders(images.thumbnails)],
        oddness=oddness(points, images.task_ids),
        box_tasks=boxes.task_ids,
        box_places=plane(unit(boxes.embeddings))[0],
        box_classes=boxes.classes,
        box_confidence=boxes.confidence,
        names=_names(model),
        pool_counts=counts,
        explained=explained,
    )


def _leaders(thumbnails: ByteArray) -> IntArray:
    """Return the row of the first near-duplicate of each image, or its own; its own without thumbnails."""
    if not thumbnails.size:
        return np.arange(len(thumbnails))
    return twins(thumbnails, np.random.default_rng(0))


def _names(model: ServedModel) -> tuple[str, ...]:
    """Return the label of each class, or the class's own name where the label config has no label for it."""
    labels = class_labels(model.tag, model.classes)
    return tuple(label or name for label, name in zip(labels, model.classes, strict=True))


@dataclass(frozen=True, slots=True)
class _Part:
    """What the map needs of n images."""

    task_ids: IntArray  # (n,)
    labeled: BoolArray  # (n,)
    classes: IntArray  # (n,)
    uncertainty: FloatArray  # (n,)
    embeddings: FloatArray  # (n, D)
    thumbnails: ByteArray  # (n, 192); (n, 0): not known
    box_classes: IntArray  # of all shown boxes


def _part(pool: Pool, lowest: float, *, labeled: bool) -> _Part:
    """Return a pool's images, none of them if they have no embeddings."""
    count = len(pool) if "embeddings" in pool.columns else 0
    confidence = pool.class_probs.max(axis=1, initial=0.0)
    likeliest = pool.class_probs.argmax(axis=1) if pool.class_probs.size else np.zeros(len(confidence), np.int64)
    is_shown = (confidence >= lowest) | pool.exclusive
    best, has_boxes = top_rows(confidence, pool.offsets, 1), np.diff(pool.offsets) > 0
    classes, uncertainty = np.full(len(pool), -1, dtype=np.int64), np.full(len(pool), np.nan, dtype=np.float32)
    classes[has_boxes] = np.where(is_shown[best], likeliest[best], -1)
    doubts = row_uncertainty(pool)
    most = np.log(max(pool.class_probs.shape[1], 2)) if pool.exclusive else np.log(2)
    uncertainty[has_boxes] = doubts[top_rows(doubts, pool.offsets, 1)] / most
    return _Part(
        task_ids=pool.task_ids[:count],
        labeled=np.full(count, labeled),
        classes=classes[:count],
        uncertainty=uncertainty[:count],
        embeddings=pool.columns.get("embeddings", np.zeros((count, 0), np.float32)),
        thumbnails=pool.columns.get("thumbnails", np.zeros((count, 0), np.uint8)),
        box_classes=likeliest[is_shown].astype(np.int64),
    )


def _joined(parts: Sequence[_Part]) -> _Part:
    """Return the images of all parts by ascending task id; of an image in two parts, that of the first one."""
    filled = [part for part in parts if len(part.task_ids)] or parts[:1]
    columns = {name: [getattr(part, name) for part in filled] for name in _Part.__slots__}
    if len({array.shape[1] for array in columns["thumbnails"]}) > 1:
        columns["thumbnails"] = [array[:, :0] for array in columns["thumbnails"]]
    _, first = np.unique(np.concatenate(columns["task_ids"]), return_index=True)
    boxes = np.concatenate(columns.pop("box_classes"))
    return _Part(**{name: np.concatenate(arrays)[first] for name, arrays in columns.items()}, box_classes=boxes)


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Some boxes of a pool, each with its embedding."""

    task_ids: IntArray
    places: IntArray  # of the box in its image
    classes: IntArray
    confidence: FloatArray
    embeddings: FloatArray

    def __getitem__(self, rows: BoolArray | IntArray) -> _Boxes:
        return _Boxes(*(getattr(self, name)[rows] for name in self.__slots__))


def _boxes(context: Context, model: ServedModel, lowest: float) -> _Boxes:
    """Return at most BOXES boxes of the pool and of labeled images, drawn by a hash; shard by shard."""
    kept = [_no_boxes()]
    for labeled in (False, True):
        parts = context.store.pools.parts(
            model.project_id, model.number, (_BOX_EMBEDDINGS,), labeled=labeled, tag=model.key
        )
        for arrays, is_newest in parts:
            scored = is_newest & ~arrays.header.failed
            embeddings = arrays.part(_BOX_EMBEDDINGS, scored)
            if embeddings is None or not embeddings.size:
                continue
            counts = np.diff(arrays.header.offsets)
            rows = np.repeat(scored, counts)
            places = np.arange(len(rows)) - np.repeat(arrays.header.offsets[:-1], counts)
            boxes = _Boxes(
                np.repeat(arrays.header.task_ids, counts)[rows],
                places[rows],
                arrays.class_probs[rows].argmax(axis=1).astype(np.int64),
                arrays.confidence[rows],
                embeddings.astype(np.float32),
            )
            kept.append(boxes[boxes.confidence >= lowest])
            if sum(len(part.task_ids) for part in kept) > 2 * BOXES:
                kept = [_fewest(kept)]
    return _fewest(kept)


def _no_boxes() -> _Boxes:
    none = np.zeros(0, np.int64)
    return _Boxes(none, none, none, np.zeros(0, np.float32), np.zeros((0, 0), np.float32))


def _fewest(parts: Sequence[_Boxes]) -> _Boxes:
    """Return the boxes of all parts that stay on the map."""
    filled = [part for part in parts if len(part.task_ids)]
    if not filled:
        return _no_boxes()
    joined = _Boxes(*(np.concatenate([getattr(part, name) for part in filled]) for name in _Boxes.__slots__))
    return joined[drawn_boxes(joined.task_ids, joined.places, BOXES)]
