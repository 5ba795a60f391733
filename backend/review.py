"""What a round of labels was worth, and whether more are: the bandit's rewards and the stopping recommendation."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import numpy as np

from backend import label_config, ranking, stopping, tags
from backend.bandit import Reward
from backend.calibration import calibrated
from backend.context import Context
from backend.geometry import label_arrays
from backend.store import PoolSigns
from backend.types import AnnotatedTask, LabeledBox, ModelVersion, Prediction

MIN_JUDGED_IMAGES = 10  # on fewer validation images a difference in mAP says nothing
COMPARED = 200  # unlabeled images on which two versions are compared


def reward(context: Context, version: ModelVersion) -> Reward | None:
    """Return what the labels since the version's parent gained, and keep it; None where that cannot be told.

    It takes a parent that was measured on the same randomly chosen validation images, and its ranking, which says whose
    choice the labels were.
    """
    gained = gain(version)
    if version.parent is None or gained is None:
        return None
    order = context.store.ranking(version.project_id, version.parent)
    if order is None or not _is_held_out(version):
        return None
    parent = context.store.version(version.project_id, version.parent)
    fresh = version.snapshot.annotations.keys() - parent.snapshot.annotations.keys()
    annotated = context.label_studio.annotated_tasks(version.project_id)
    tasks = [task for task in annotated if task.annotation_id in fresh]
    if not tasks:
        return None
    found = measure(context, parent, tasks)
    boxes, disagreements = sum(count for count, _ in found), [one for _, one in found if one is not None]
    disagreement = float(np.mean(disagreements)) if disagreements else None
    kept = Reward(version.number, order.strategy, len(tasks), boxes, gained, disagreement)
    context.store.save_reward(version.project_id, kept)
    return kept


def gain(version: ModelVersion) -> float | None:
    """Return what a version gained in mAP50 over its parent, the mean over its tags; None where that cannot be told.

    A model that is the parent's gained nothing. One that was not held against another, or on too few images, is left
    out.
    """
    gains = [
        model.metrics.map50 - model.champion_metrics.map50
        for model in version.models
        if not model.carried and model.metrics and model.champion_metrics
        if model.metrics.images >= MIN_JUDGED_IMAGES
    ]
    return sum(gains) / (len(gains) + sum(model.carried for model in version.models)) if gains else None


def quality(version: ModelVersion) -> float | None:
    """Return the mAP50 of a version, the mean over its tags; None where no new model of it was measured."""
    measured = [model for model in version.models if model.metrics]
    if all(model.carried for model in measured):
        return None
    return fmean(model.metrics.map50 for model in measured if model.metrics)


def measure(context: Context, parent: ModelVersion, tasks: Iterable[AnnotatedTask]) -> list[tuple[int, float | None]]:
    """Return of each labeled task the number of labels, and 1 − F1@.5 of the parent's prediction, None without one.

    The labels are those of all tags, for all of them took time; the prediction is the first tag's.
    """
    record = context.store.project(parent.project_id)
    known = label_config.parse(record.label_config) if record else ()
    found = []
    for task in tasks:
        count = sum(len(tags.decode(tag, task.result)) for tag in known)
        prediction = context.store.prediction(parent.project_id, parent.number, task.task.id)
        drawn = tags.objects(known[0], task.result) if known else ()
        disagreed = None if prediction is None or not known else disagreement(prediction, drawn, parent.classes)
        found.append((count, disagreed))
    return found


def disagreement(prediction: Prediction, boxes: Iterable[LabeledBox], classes: tuple[str, ...]) -> float | None:
    """Return 1 − F1@.5 between the boxes a model shows and a human's; 0 where both say nothing, None of a video."""
    if prediction.tracks is not None:  # its boxes are of many frames
        return None
    human = list(boxes)
    labels = label_arrays(human, classes, prediction.width, prediction.height)
    hits, count = stopping.agreement(*stopping.shown(prediction), *labels)
    return 1 - 2 * hits / count if count else 0.0


def observe(context: Context, project_id: int, number: int) -> PoolSigns:
    """Return how sure a version is of its scored pool, and how far it agrees with its parent, and keep both."""
    version = context.store.version(project_id, number) if number else None
    pool, _ = context.store.load_pool(project_id, number, None)
    parent, temperature = (version.parent, version.models[0].temperature) if version else (None, 1.0)
    # By a hash of the id, so that all versions are compared on the same images, as far as they are unlabeled.
    ids = pool.task_ids[ranking.shuffled(pool.task_ids)[:COMPARED]].tolist()
    both = (
        [] if parent is None else [[context.store.prediction(project_id, n, t) for n in (parent, number)] for t in ids]
    )
    pairs = [(one, other) for one, other in both if one is not None and other is not None]
    agreed = stopping.stability([one for one, _ in pairs], [other for _, other in pairs])
    signs = PoolSigns(number, stopping.mean_uncertainty(calibrated(pool, temperature)), agreed)
    context.store.save_signs(project_id, signs)
    return signs


def recommendation(context: Context, project_id: int, budget: int) -> stopping.Recommendation:
    """Return whether to stop labeling, from the store and redis alone.

    A mean over more tags than before says nothing of what labels gained: only rounds of as many as now are compared.
    """
    signs = {one.version: one for one in context.store.signs(project_id)}
    judged = [(version, quality(version)) for version in context.store.versions(project_id) if _is_held_out(version)]
    measured = [(version, map50) for version, map50 in judged if map50 is not None]
    rounds = []
    for version, map50 in measured:
        if _measured_tags(version) != _measured_tags(measured[-1][0]):
            continue
        seen = signs.get(version.number, PoolSigns(version.number, None, None))
        # The first tag's model agrees with itself whatever the labels could teach.
        agreed = None if version.carried else seen.stability
        rounds.append(stopping.Round(len(version.snapshot.annotations), map50, seen.uncertainty, agreed))
    counts = context.progress.counts(project_id)
    return stopping.recommend(rounds, labels=counts.labeled if counts else 0, budget=budget)


def _measured_tags(version: ModelVersion) -> int:
    return sum(model.metrics is not None for model in version.models)


def _is_held_out(version: ModelVersion) -> bool:
    """Return whether the version was measured on images it had not learned from."""
    return bool(version.snapshot.val_tasks) and not set(version.snapshot.val_tasks) & set(version.snapshot.train_tasks)
