"""What a round of labels was worth, and whether more are: the bandit's rewards and the stopping recommendation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from backend.evaluation import agreement, stopping
from backend.evaluation.basis import is_judged
from backend.evaluation.calibration import calibrated
from backend.geometry.coordinates import label_arrays
from backend.labelstudio import label_config, regions, tags
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
    annotated = context.annotated_tasks(version.project_id)
    tasks = [task for task in annotated if task.annotation_id in fresh]
    if not tasks:
        return None
    found = labels_and_disagreement(context, parent, tasks)
    boxes, disagreed = sum(count for count, _ in found), _mean(one for _, one in found)
    kept = Reward(
        version.number,
        order.strategy,
        len(tasks),
        boxes,
        gained,
        disagreed,
        _judged_on(version),
        gain_interval(version),
    )
    context.store.state.save_reward(version.project_id, kept)
    return kept


def gain(version: ModelVersion) -> float | None:
    """Return what a version gained in mAP50 over its parent, the mean over its tags; None where that cannot be told.

    A model that is the parent's gained nothing. One that was not held against another, or on too few images, is left
    out.
    """
    pairs = list(_compared(version))
    gains = [ours.map50 - theirs.map50 for ours, theirs in pairs]
    return sum(gains) / (len(gains) + _carried(version)) if gains else None


def gain_interval(version: ModelVersion) -> tuple[float, float] | None:
    """Return the 95% interval of `gain`; of several tags the means of the ends, None where one is not known."""
    return _mean_ends([ours.gained for ours, _ in _compared(version)], _carried(version))


def _compared(version: ModelVersion) -> Iterator[tuple[Metrics, Metrics]]:
    """Yield the metrics of each new model that was judged, and of its champion on the same images."""
    for model in version.models:
        if not model.carried and model.metrics and model.champion_metrics and is_judged(model.metrics):
            yield model.metrics, model.champion_metrics


def _carried(version: ModelVersion) -> int:
    return sum(model.carried for model in version.models)


def _mean_ends(spans: Sequence[tuple[float, float] | None], unchanged: int = 0) -> tuple[float, float] | None:
    """Return the mean low and the mean high end; `unchanged` more are 0."""
    ends = [span for span in spans if span is not None]
    if not ends or len(ends) < len(spans):
        return None
    count = len(ends) + unchanged
    return sum(low for low, _ in ends) / count, sum(high for _, high in ends) / count


def quality(version: ModelVersion) -> float | None:
    """Return the mAP50 of a version, the mean over its tags; None where no new model of it was judged."""
    measured = [model for model in version.models if is_judged(model.metrics)]
    if all(model.carried for model in measured):
        return None
    return fmean(model.metrics.map50 for model in measured if model.metrics)


def labels_and_disagreement(
    context: Context, parent: ModelVersion, tasks: Iterable[AnnotatedTask]
) -> list[tuple[int, float | None]]:
    """Return of each labeled task the number of labels, and 1 − F1@.5 of the parent's predictions, None without any.

    The labels are those of all tags, for all of them took time; the other is the mean over the tags.
    """
    record = context.store.project(parent.project_id)
    known = label_config.parse(record.label_config) if record else ()
    trained_tags = _trained_tags(context, parent).values()
    found = []
    for task in tasks:
        count = sum(len(tags.decode(tag, _with_size(tag, task.result))) for tag in known)
        disagreed = _mean(_disagreement(context, trained, task, alone=len(known) == 1) for trained in trained_tags)
        found.append((count, disagreed))
    return found


def _with_size(tag: ControlTag, result: tags.Result) -> tags.Result:
    return regions.with_size(result, 1, 1) if tag.frame_rate else result


def _disagreement(context: Context, trained: _TrainedTag, task: AnnotatedTask, *, alone: bool) -> float | None:
    """Return 1 − F1@.5 of one tag; beside other tags (not `alone`) a task without a choice is none of its business.

    None of a video, for annotators draw in a few of its frames, and none of a result that cannot be learned from.
    """
    found = _prediction(context, trained, task.task.id, trained.tag.source(task.task))
    reading = tags.read(trained.tag, task.result)
    drawn = reading.objects(trained.tag)
    if (
        reading.unreadable
        or found is None
        or found.tracks is not None
        or not (drawn or alone or trained.tag.task != "classify")
    ):
        return None
    return disagreement(found, drawn, trained.model.classes)


def disagreement(prediction: Prediction, boxes: Iterable[LabeledBox], classes: tuple[str, ...]) -> float:
    """Return 1 − F1@.5 between the boxes a model shows of an image and a human's; 0 where both say nothing."""
    human = list(boxes)
    labels = label_arrays(human, classes, prediction.width, prediction.height)
    hits, count = agreement.agreement(*agreement.shown(prediction), *labels)
    return 1 - 2 * hits / count if count else 0.0


def observe(context: Context, project_id: int, number: int) -> tuple[PoolSigns, ...]:
    """Return, tag by tag, how sure a version is of its scored pool and how far it agrees with its parent, and keep it.

    Of each tag that it has a model for; the base model, version 0, has none.
    """
    if not number:
        return ()
    version = context.store.version(project_id, number)
    before = _trained_tags(context, context.store.version(project_id, version.parent)) if version.parent else {}
    found = tuple(
        _signs(context, trained, before.get(name)) for name, trained in _trained_tags(context, version).items()
    )
    for signs in found:
        context.store.state.save_signs(project_id, signs)
    return found


def is_observed(context: Context, project_id: int) -> bool:
    """Return whether it is kept what the served version's pool says; the base model's says nothing."""
    number = serving_number(context, project_id)
    return not number or any(signs.version == number for signs in context.store.state.signs(project_id))


def _signs(context: Context, trained: _TrainedTag, before: _TrainedTag | None) -> PoolSigns:
    """Return what a tag's pool says; `before` is the parent's model."""
    version = trained.version
    pool, _ = context.store.load_pool(version.project_id, version.number, None, tag=trained.key)
    # By a hash of the id, so that all versions are compared on the same images, as far as they are unlabeled.
    ids = pool.task_ids[ranking.shuffled(pool.task_ids)[:COMPARED]].tolist()
    # Of one that showed something else when the parent was asked, the parent says nothing.
    sources = context.store.sources(version.project_id, version.number, tag=trained.key)
    asked = [(task_id, sources[task_id] or None) for task_id in ids]
    both = [] if before is None else [[_prediction(context, one, *of) for one in (before, trained)] for of in asked]
    pairs = [(one, other) for one, other in both if one is not None and other is not None]
    agreed = agreement.stability([one for one, _ in pairs], [other for _, other in pairs])
    sure = stopping.mean_uncertainty(calibrated(pool, trained.model.temperature, trained.tag.outcomes))
    return PoolSigns(version.number, sure, agreed, trained.key)


def recommendation(context: Context, project_id: int, budget: int) -> stopping.Recommendation:
    """Return whether to stop labeling, from the store and redis alone.

    A mean over more tags than before says nothing of what labels gained: only rounds of as many as now are compared.
    """
    signs = {(one.version, one.tag): one for one in context.store.state.signs(project_id)}
    judged = [(version, quality(version)) for version in context.store.versions(project_id) if _is_held_out(version)]
    measured = [(version, map50) for version, map50 in judged if map50 is not None]
    rounds = []
    for version, map50 in measured:
        if _measured_tags(version) != _measured_tags(measured[-1][0]):
            continue
        labels, said = version.snapshot.learned_tasks, _mean_signs(version, signs)
        judged_on, interval = _judged_on(version), _interval(version)
        rounds.append(stopping.Round(labels, map50, *said, judged_on=judged_on, interval=interval))
    counts = context.progress.counts(project_id)
    return stopping.recommend(rounds, labels=counts.labeled if counts else 0, budget=budget)


def _interval(version: ModelVersion) -> tuple[float, float] | None:
    """Return the 95% interval of `quality`; of several tags the means of the ends."""
    return _mean_ends(
        [model.metrics.interval for model in version.models if model.metrics and is_judged(model.metrics)]
    )


def _judged_on(version: ModelVersion) -> int:
    """Return on how many held-out images a version was judged, of several tags the fewest."""
    return min(
        (model.metrics.images for model in version.models if model.metrics and is_judged(model.metrics)), default=0
    )


def _mean_signs(version: ModelVersion, signs: Mapping[tuple[int, str], PoolSigns]) -> tuple[float | None, float | None]:
    """Return the uncertainty of a version's pool and its stability, each the mean over the tags that tell it."""
    told = [(model, signs.get((version.number, model.from_name))) for model in version.models]
    uncertainty = _mean(one.uncertainty for _, one in told if one)
    # A model that was carried over agrees with itself whatever the labels could teach.
    return uncertainty, _mean(one.stability for model, one in told if one and not model.carried)


def _trained_tags(context: Context, version: ModelVersion) -> dict[str, _TrainedTag]:
    """Return the tags of the label config that a version has a model for, by their current names."""
    record = context.store.project(version.project_id)
    tags = label_config.parse(record.label_config) if record else ()
    version = renamed(version, tags)
    models = ((tag, version.model_of(tag)) for tag in tags)
    return {
        tag.from_name: _TrainedTag(version, tag, model, version.key_of(tag.from_name)) for tag, model in models if model
    }


def _prediction(context: Context, trained: _TrainedTag, task_id: int, source: int | None) -> Prediction | None:
    """Return what a model predicted of an image, or of a video."""
    version = trained.version
    found = context.store.prediction(version.project_id, version.number, task_id, source, tag=trained.key)
    return agreement.label_objects(found) if found is not None and trained.tag.multiple and len(found.boxes) else found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _measured_tags(version: ModelVersion) -> int:
    return sum(is_judged(model.metrics) for model in version.models)


def _is_held_out(version: ModelVersion) -> bool:
    """Return whether the version was measured on images it had not learned from."""
    return bool(version.snapshot.val_tasks) and not set(version.snapshot.val_tasks) & set(version.snapshot.train_tasks)
