"""The gain of a round of labels: the bandit's rewards, and the recommendation whether to stop labeling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from backend.errors import MediaError
from backend.evaluation import agreement, stopping
from backend.evaluation.basis import is_judged
from backend.evaluation.calibration import calibrated
from backend.geometry.coordinates import label_arrays
from backend.labelstudio import frame_rates, label_config, regions, tags, task_fields, visibility
from backend.loop.context import Context
from backend.loop.served_models import serving_number
from backend.model_versions import Metrics, ModelVersion, TagModel, renamed
from backend.sampling import ranking
from backend.sampling.bandit import Reward
from backend.store.store import PoolSigns
from backend.types import AnnotatedTask, ControlTag, LabeledBox, Prediction

COMPARED = 200  # unlabeled images on which two versions are compared


@dataclass(frozen=True, slots=True)
class _TrainedTag:
    """A control tag, and the model that a version has for it."""

    version: ModelVersion
    tag: ControlTag
    model: TagModel
    key: str  # the tag's name in the version's store


def reward(context: Context, version: ModelVersion) -> Reward | None:
    """Return and store the gain of the labels since the version's parent; None if it cannot be measured.

    It needs a parent that was measured on the same randomly chosen validation images. It also needs the parent's
    ranking, which names the strategy that chose the labels.
    """
    gained = gain(version)
    if version.parent is None or gained is None:
        return None
    order = context.store.pools.ranking(version.project_id, version.parent)
    if order is None or not _is_held_out(version):
        return None
    parent = context.store.version(version.project_id, version.parent)
    new = version.snapshot.annotations.keys() - parent.snapshot.annotations.keys()
    annotated = context.annotated_tasks(version.project_id)
    tasks = [task for task in annotated if task.annotation_id in new]
    if not tasks:
        return None
    pairs = labels_and_disagreement(context, parent, tasks)
    boxes, disagreed = sum(count for count, _ in pairs), _mean(disagreed for _, disagreed in pairs)
    stored = Reward(
        version.number,
        order.strategy,
        len(tasks),
        boxes,
        gained,
        disagreed,
        _judged_on(version),
        gain_interval(version),
    )
    context.store.state.save_reward(version.project_id, stored)
    return stored


def gain(version: ModelVersion) -> float | None:
    """Return a version's gain in mAP50 over its parent, the mean over its tags; None if it cannot be measured.

    A model that was carried over counts as a gain of 0. A model that was not compared with a champion, or on too few
    images, is left out.
    """
    pairs = list(_compared(version))
    gains = [ours.map50 - theirs.map50 for ours, theirs in pairs]
    return sum(gains) / (len(gains) + _carried(version)) if gains else None


def gain_interval(version: ModelVersion) -> tuple[float, float] | None:
    """Return the 95% interval of `gain`; for several tags the means of the ends, None if one is unknown."""
    return _mean_ends([ours.gained for ours, _ in _compared(version)], _carried(version))


def _compared(version: ModelVersion) -> Iterator[tuple[Metrics, Metrics]]:
    """Yield the metrics of each new model that was judged, and those of its champion on the same images."""
    for model in version.models:
        if not model.carried and model.metrics and model.champion_metrics and is_judged(model.metrics):
            yield model.metrics, model.champion_metrics


def _carried(version: ModelVersion) -> int:
    return sum(model.carried for model in version.models)


def _mean_ends(spans: Sequence[tuple[float, float] | None], unchanged: int = 0) -> tuple[float, float] | None:
    """Return the mean of the low and of the high ends, with `unchanged` further intervals of (0, 0)."""
    ends = [span for span in spans if span is not None]
    if not ends or len(ends) < len(spans):
        return None
    count = len(ends) + unchanged
    return sum(low for low, _ in ends) / count, sum(high for _, high in ends) / count


def quality(version: ModelVersion) -> float | None:
    """Return the mAP50 of a version, the mean over its tags; None if no new model of it was judged."""
    measured = [model for model in version.models if is_judged(model.metrics)]
    if all(model.carried for model in measured):
        return None
    return fmean(model.metrics.map50 for model in measured if model.metrics)


def labels_and_disagreement(
    context: Context, parent: ModelVersion, tasks: Iterable[AnnotatedTask]
) -> list[tuple[int, float | None]]:
    """Return, per labeled task, the number of labels and the disagreement of the parent's predictions with them.

    The labels of all tags count, because all took time. The disagreement is 1 − F1@.5, the mean over the tags, and None
    without a prediction.
    """
    record = context.store.project(parent.project_id)
    config = label_config.parse(record.label_config) if record else ()
    trained_tags = _trained_tags(context, parent).values()
    pairs = []
    for task in tasks:
        count = sum(_labels(tag, task) for tag in config)
        disagreed = _mean(_disagreement(context, trained, task, alone=len(config) == 1) for trained in trained_tags)
        pairs.append((count, disagreed))
    return pairs


def _labels(tag: ControlTag, task: AnnotatedTask) -> int:
    """Return how many labels of a tag a task has; none where the rate of its video is unusable.

    A label that several tags learn counts for the tag that answers it, so that it counts once.
    """
    if not tag.frame_rate:
        return sum(box.label not in tag.answered_by_others for box in tags.decode(tag, task.result))
    try:
        tag = frame_rates.of_task(tag, task.task)
    except MediaError:
        return 0
    return len(tags.decode(tag, regions.with_size(task.result, 1, 1)))


def _disagreement(context: Context, trained: _TrainedTag, task: AnnotatedTask, *, alone: bool) -> float | None:
    """Return 1 − F1@.5 of one tag's prediction, None if it cannot be measured.

    It is None for a video, because annotators draw in a few of its frames, and for an unreadable result. With several
    tags (not `alone`) it is None for a task without a choice.
    """
    prediction = _prediction(context, trained, task.task.id, task_fields.source(trained.tag, task.task))
    reading = tags.read(trained.tag, task.result)
    drawn = reading.objects(trained.tag)
    if (
        reading.unreadable
        or visibility.is_hidden(trained.tag, task.result)
        or prediction is None
        or not prediction.one_image
        or not (drawn or alone or trained.tag.task != "classify")
    ):
        return None
    return disagreement(prediction, drawn, trained.model.classes)


def disagreement(prediction: Prediction, boxes: Iterable[LabeledBox], classes: tuple[str, ...]) -> float:
    """Return 1 − F1@.5 between a model's visible boxes of an image and an annotator's; 0 if both are empty."""
    human = list(boxes)
    labels = label_arrays(human, classes, prediction.width, prediction.height)
    hits, count = agreement.agreement(*agreement.shown(prediction), *labels)
    return 1 - 2 * hits / count if count else 0.0


def observe(context: Context, project_id: int, number: int) -> tuple[PoolSigns, ...]:
    """Store and return the signs of a version's pool per tag: its uncertainty, and the agreement with the parent.

    Tags without a model have none; the base model, version 0, has no tag with a model.
    """
    if not number:
        return ()
    version = context.store.version(project_id, number)
    before = _trained_tags(context, context.store.version(project_id, version.parent)) if version.parent else {}
    pool_signs = tuple(
        _signs(context, trained, before.get(name)) for name, trained in _trained_tags(context, version).items()
    )
    for signs in pool_signs:
        context.store.state.save_signs(project_id, signs)
    return pool_signs


def is_observed(context: Context, project_id: int) -> bool:
    """Return whether the signs of the served version's pool are stored; the base model has none."""
    number = serving_number(context, project_id)
    return not number or any(signs.version == number for signs in context.store.state.signs(project_id))


def _signs(context: Context, trained: _TrainedTag, before: _TrainedTag | None) -> PoolSigns:
    """Return the signs of a tag's pool; `before` is the parent version's trained tag."""
    version = trained.version
    pool, _ = context.store.pools.load_pool(version.project_id, version.number, None, tag=trained.key)
    # The order is a hash of the id, so that all versions are compared on the same unlabeled images.
    ids = pool.task_ids[ranking.shuffled(pool.task_ids)[:COMPARED]].tolist()
    # With its source, so that the parent's prediction of other media is not compared.
    sources = context.store.pools.sources(version.project_id, version.number, tag=trained.key)
    pairs = []
    if before is not None:
        for task_id in ids:
            source = sources[task_id] or None
            earlier = _prediction(context, before, task_id, source)
            later = _prediction(context, trained, task_id, source)
            if earlier is not None and later is not None:
                pairs.append((earlier, later))
    stability = agreement.stability([earlier for earlier, _ in pairs], [later for _, later in pairs])
    uncertainty = stopping.mean_uncertainty(calibrated(pool, trained.model.temperature, trained.tag.outcomes))
    return PoolSigns(version.number, uncertainty, stability, trained.key)


def recommendation(context: Context, project_id: int, budget: int) -> stopping.Recommendation:
    """Return whether to stop labeling, from the store and redis alone.

    Only rounds with as many measured tags as the last one are compared: a mean over more tags is no gain of labels.
    """
    signs = {(pool_signs.version, pool_signs.tag): pool_signs for pool_signs in context.store.state.signs(project_id)}
    judged = [(version, quality(version)) for version in context.store.versions(project_id) if _is_held_out(version)]
    measured = [(version, map50) for version, map50 in judged if map50 is not None]
    rounds = []
    for version, map50 in measured:
        if _measured_tags(version) != _measured_tags(measured[-1][0]):
            continue
        labels, mean_signs = version.snapshot.learned_tasks, _mean_signs(version, signs)
        judged_on, interval = _judged_on(version), _interval(version)
        rounds.append(stopping.RoundMeasurements(labels, map50, *mean_signs, judged_on=judged_on, interval=interval))
    counts = context.progress.counts(project_id)
    return stopping.recommend(rounds, labels=counts.labeled if counts else 0, budget=budget)


def _interval(version: ModelVersion) -> tuple[float, float] | None:
    """Return the 95% interval of `quality`; for several tags the means of the ends."""
    return _mean_ends(
        [model.metrics.interval for model in version.models if model.metrics and is_judged(model.metrics)]
    )


def _judged_on(version: ModelVersion) -> int:
    """Return the number of held-out images that a version was judged on; for several tags the smallest number."""
    return min(
        (model.metrics.images for model in version.models if model.metrics and is_judged(model.metrics)), default=0
    )


def _mean_signs(version: ModelVersion, signs: Mapping[tuple[int, str], PoolSigns]) -> tuple[float | None, float | None]:
    """Return the uncertainty and the stability of a version's pool, each the mean over the tags that have it."""
    pairs = [(model, signs.get((version.number, model.from_name))) for model in version.models]
    uncertainty = _mean(of_tag.uncertainty for _, of_tag in pairs if of_tag)
    # A model that was carried over always agrees with itself, so its stability is left out.
    return uncertainty, _mean(of_tag.stability for model, of_tag in pairs if of_tag and not model.carried)


def _trained_tags(context: Context, version: ModelVersion) -> dict[str, _TrainedTag]:
    """Return the tags of the label config that a version has a model for, by their current names.

    Questions about boxes are left out: two versions, or a version and a person, answer about different boxes.
    """
    record = context.store.project(version.project_id)
    tags = label_config.parse(record.label_config) if record else ()
    version = renamed(version, tags)
    models = ((tag, version.model_of(tag)) for tag in tags)
    return {
        tag.from_name: _TrainedTag(version, tag, model, version.key_of(tag.from_name))
        for tag, model in models
        if model and tag.ranks
    }


def _prediction(context: Context, trained: _TrainedTag, task_id: int, source: int | None) -> Prediction | None:
    """Return a model's stored prediction of a task; a multiple choice becomes one object per label."""
    version = trained.version
    prediction = context.store.pools.prediction(version.project_id, version.number, task_id, source, tag=trained.key)
    if prediction is None or not trained.tag.multiple or not len(prediction.boxes):
        return prediction
    return agreement.label_objects(prediction)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _measured_tags(version: ModelVersion) -> int:
    return sum(is_judged(model.metrics) for model in version.models)


def _is_held_out(version: ModelVersion) -> bool:
    """Return whether the version was measured on images that it had not learned from."""
    return bool(version.snapshot.val_tasks) and not set(version.snapshot.val_tasks) & set(version.snapshot.train_tasks)
