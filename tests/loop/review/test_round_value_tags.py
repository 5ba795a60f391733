"""The gain of a round of labels with several control tags: the mean over the tags with a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.evaluation import agreement, stopping
from backend.evaluation.calibration import calibrated
from backend.loop.context import Context
from backend.loop.review import round_value
from backend.model_versions import Calibration, Metrics, ModelVersion, TagModel, TrainingSnapshot
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import PoolSigns
from backend.types import AnnotatedTask, Json, Outcomes, Task
from tests.loop.review.test_label_review import HERE, RIGHT, human, predicted
from tests.loop.review.test_label_review_tags import SCHEMA, SECOND_PREDICTION, SECOND_RIGHT, SURE_OF_GOOD, TURNED
from tests.loop.test_tags_together import (
    BOXES_AND_CHOICE,
    RENAMED,
    SECOND,
    TWO_BOXES,
    pool,
    predict,
    publish_both,
    put_base,
    rank,
    setup,
    two_boxes,
)
from tests.support import ImageSite, publish, tiny_yolo

QUALITY = Metrics(0.5, 0.3, {}, images=12, boxes=20, detections=30)
SEVERAL = (
    '<View><Image name="image" value="$image"/><Choices name="quality" toName="image" choice="multiple">'
    '<Choice value="good"/><Choice value="bad"/><Choice value="dull"/></Choices></View>'
)
OTHER_WAY_ROUND = TWO_BOXES.replace(SECOND, "").replace("<RectangleLabels", SECOND + "<RectangleLabels", 1)


def beside(name: str, weights: Path, classes: tuple[str, ...] = ("cat", "dog")) -> TagModel:
    """Return a model of boxes for a further tag."""
    return TagModel(name, "detect", classes, file_sha256(weights), "yolo11n.pt", None, None, {}, "published")


def follow(context: Context, parent: ModelVersion, models: Sequence[TagModel], weights: Sequence[Path]) -> ModelVersion:
    """Publish and serve the next version, whose tags have these models, all measured on held-out images."""
    number = context.store.reserve_number(7)
    files = dict(zip([model.from_name for model in models], weights, strict=True))
    measured = [replace(model, sha256=file_sha256(files[model.from_name]), metrics=QUALITY) for model in models]
    version = replace(
        parent,
        number=number,
        name=f"yolo11n-v{number}",
        parent=parent.number,
        snapshot=TrainingSnapshot(7, "hash", dict.fromkeys(range(20 * number), ""), (1,), (2,)),
        models=tuple(measured),
    )
    context.store.publish(version, files)
    context.store.activate(7, number)
    return version


def observe(context: Context, version: ModelVersion, tasks: Sequence[Task]) -> dict[str, PoolSigns]:
    """Score a pool with the served version and return its signs, by the tag's name in the store."""
    rank(context, tasks)
    return {signs.tag: signs for signs in round_value.observe(context, 7, version.number)}


def stopping_sign(context: Context, name: str) -> stopping.Sign:
    """Return the sign to stop with this name."""
    return next(sign for sign in round_value.recommendation(context, 7, budget=0).signs if sign.name == name)


# Signs of the pool, with real models


@pytest.mark.parametrize("learning", [False, True])
def test_the_stability_of_a_carried_model_is_ignored_and_that_of_the_other_tag_counts(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, tmp_path: Path, learning: bool
) -> None:
    """The model of the boxes is carried over for three versions. That of the choices is the same, or changes once."""
    setup(context, BOXES_AND_CHOICE)
    version, tasks = publish_both(context, tiny_weights, classifier), pool(images, 8)
    observe(context, version, tasks)
    other = tiny_yolo(tmp_path / "other.pt", seed=3, task="classify")
    for quality in (classifier, other if learning else classifier, classifier):
        label, choices = version.models
        version = follow(context, version, [replace(label, carried=True), choices], (tiny_weights, quality))
        assert observe(context, version, tasks)["label"].stability == 1.0
    answers = [
        [
            prediction.class_probs.argmax()
            for number in (2, 3)
            if (prediction := context.store.pools.prediction(7, number, task.id, tag="quality"))
        ]
        for task in tasks
    ]
    same = float(np.mean([earlier == later for earlier, later in answers]))
    assert (same < 0.98) is learning
    stability = stopping_sign(context, "stability")
    assert stability.met is not learning
    assert f"at least F1 {same:.3f} over 3 rounds" in stability.reason


def test_the_uncertainty_of_a_version_is_the_mean_over_its_tags(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    """Each tag has its own temperature. A model that was carried over counts too, because it may be unsure."""
    setup(context, BOXES_AND_CHOICE)
    label, choices = publish_both(context, tiny_weights, classifier).models
    models = [
        replace(label, calibration=Calibration(3.0), carried=True),
        replace(choices, calibration=Calibration(0.5)),
    ]
    version = follow(context, context.store.version(7, 1), models, (tiny_weights, classifier))
    signs = observe(context, version, pool(images, 6))
    expected = []
    calibrations: tuple[tuple[str, float, Outcomes], ...] = (("label", 3.0, "objects"), ("quality", 0.5, "one"))
    for tag, temperature, outcomes in calibrations:
        stored_pool, _ = context.store.pools.load_pool(7, version.number, None, tag=tag)
        uncertainty = stopping.mean_uncertainty(calibrated(stored_pool, temperature, outcomes))
        assert uncertainty is not None
        assert signs[tag].uncertainty == uncertainty
        expected.append(uncertainty)
    assert f"{expected[0]:.2f}" != f"{expected[1]:.2f}"
    assert stopping_sign(context, "uncertainty").reason.startswith(
        f"the mean uncertainty of the pool is {np.mean(expected):.2f}"
    )


def test_base_weights_have_no_signs_and_are_not_compared(
    context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    setup(context, TWO_BOXES)
    put_base(context, "yolo11n.pt", tiny_weights)
    first = publish(context.store, 7, tiny_weights)
    context.store.activate(7, first.number)
    tasks = pool(images, 3)
    assert observe(context, first, tasks).keys() == {"label"}
    models = [replace(first.models[0], from_name="label"), beside("second", tiny_weights)]
    signs = observe(context, follow(context, first, models, (tiny_weights, tiny_weights)), tasks)
    assert {tag: tag_signs.stability for tag, tag_signs in signs.items()} == {"label": 1.0, "second": None}
    assert signs["label"].uncertainty == signs["second"].uncertainty


@pytest.mark.parametrize(
    ("schema", "names"), [(RENAMED, ("animals", "second")), (OTHER_WAY_ROUND, ("second", "label"))]
)
def test_a_tag_is_compared_with_itself_whatever_its_name_and_place(
    context: Context, tiny_weights: Path, images: ImageSite, tmp_path: Path, schema: str, names: tuple[str, str]
) -> None:
    other = tiny_yolo(tmp_path / "other.pt", seed=3)
    setup(context, TWO_BOXES)
    weights = {"label": tiny_weights, "animals": tiny_weights, "second": other}
    before = two_boxes(context, tiny_weights)
    models = {model.from_name: model for model in before.models}
    version, tasks = follow(context, before, before.models, (tiny_weights, other)), pool(images, 4)
    signs = observe(context, version, tasks)
    assert signs["second"].stability is None, "no earlier version has scored a pool"
    setup(context, schema)
    tag_models = [replace(models.get(name, models["label"]), from_name=name) for name in names]
    signs = observe(context, follow(context, version, tag_models, [weights[name] for name in names]), tasks)
    assert {tag: tag_signs.stability for tag, tag_signs in signs.items()} == dict.fromkeys(names, 1.0)


def test_stored_signs_of_the_first_tag_alone_still_count(context: Context, tiny_weights: Path) -> None:
    setup(context, TWO_BOXES)
    version = two_boxes(context, tiny_weights)
    for number in range(2, 5):
        version = follow(context, version, version.models, (tiny_weights, tiny_weights))
        context.store.state.save_signs(7, PoolSigns(number, 0.05, 0.99, tag="label"))
    assert stopping_sign(context, "uncertainty").met
    assert stopping_sign(context, "stability").met
    context.store.state.save_signs(7, PoolSigns(4, 0.25, 0.75, "second"))
    assert stopping_sign(context, "uncertainty").reason.startswith("the mean uncertainty of the pool is 0.15")
    assert "at least F1 0.870" in stopping_sign(context, "stability").reason


# Annotators and models


def chosen(*labels: str) -> tuple[Json, ...]:
    """Return an annotation's result with these choices; without a choice it is empty."""
    value = {"choices": list(labels)}
    return ({"type": "choices", "from_name": "quality", "to_name": "image", "value": value},) if labels else ()


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RIGHT + SECOND_RIGHT + chosen("good"), (4, 0.0)),
        (RIGHT + chosen("good"), (3, 1 / 3)),  # the second tag's model predicts an extra box
        (human((HERE, "cat")) + SECOND_RIGHT + chosen("bad"), (3, (1 / 3 + 0 + 1) / 3)),
        (RIGHT, (2, 1 / 2)),  # a missing choice is no error
        ((), (0, 1.0)),
    ],
)
def test_disagreement_is_the_mean_over_the_tags(
    context: Context, tiny_weights: Path, result: tuple[Json, ...], expected: tuple[int, float]
) -> None:
    setup(context, SCHEMA)
    quality = replace(beside("quality", tiny_weights, ("good", "bad")), task="classify")
    others = [(beside("second", tiny_weights, TURNED), tiny_weights), (quality, tiny_weights)]
    parent = publish(context.store, 7, tiny_weights, others=others)
    both = predicted((HERE, 0), ((60.0, 60.0, 80.0, 90.0), 1))
    for tag, prediction in (("label", both), ("second", SECOND_PREDICTION), ("quality", SURE_OF_GOOD)):
        shard = PoolShard(0, np.array([5, 6]), (prediction, prediction if tag == "second" else None))
        context.store.pools.save_shard(7, 1, shard, tag=tag)
    tasks = [AnnotatedTask(Task(task, {}), task, "", result) for task in (5, 6, 7)]
    (count, disagreed), (_, of_second), (_, without) = round_value.labels_and_disagreement(context, parent, tasks)
    assert (count, disagreed) == pytest.approx(expected)
    assert of_second == (0.0 if SECOND_RIGHT[0] in result else 1.0), "the other tags have no prediction"
    assert without is None


def test_an_annotator_who_accepts_the_prediction_agrees_with_it(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    version, tasks = publish_both(context, tiny_weights, classifier), pool(images, 3)
    rank(context, tasks)
    accepted, corrected = [], []
    for task, shown in zip(tasks, predict(context, BOXES_AND_CHOICE, *tasks), strict=True):
        visible = [region for region in shown.regions if region["score"] >= agreement.SHOWN]
        boxes = [region for region in visible if region["from_name"] != "quality"]
        (choice,) = [region for region in visible if region["from_name"] == "quality"]
        (label,) = choice["value"]["choices"]
        accepted.append(AnnotatedTask(task, task.id, "", tuple(visible)))
        other_choice = chosen("dog" if label == "cat" else "cat")
        corrected.append(AnnotatedTask(task, task.id, "", (*boxes, *other_choice)))
    for annotated, expected in ((accepted, 0.0), (corrected, 0.5)):
        pairs = round_value.labels_and_disagreement(context, version, annotated)
        assert [disagreed for _, disagreed in pairs] == pytest.approx([expected] * 3)


def publish_several(context: Context, weights: Path) -> tuple[ModelVersion, ...]:
    """Publish three versions. Of three labels, they predict the first two, the first alone, and none."""
    setup(context, SEVERAL)
    before = publish(
        *(context.store, 7, weights), classes=("good", "bad", "dull"), from_name="quality", task="classify"
    )
    versions = []
    for probs in ([0.9, 0.8, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.1]):
        number, table = context.store.reserve_number(7), np.array([probs], np.float32)
        before = replace(before, number=number, name=f"yolo11n-v{number}", parent=before.number)
        context.store.publish(before, {"quality": weights})
        prediction = replace(SURE_OF_GOOD, class_probs=table, confidence=table.max(axis=1))
        context.store.pools.save_shard(7, number, PoolShard(0, np.array([5]), (prediction,)), tag="quality")
        versions.append(before)
    return tuple(versions)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(("good", "bad"), 0.0), (("good",), 1 / 3), (("dull",), 1.0), (("good", "bad", "dull"), 0.2), ((), 1.0)],
)
def test_annotators_are_compared_by_each_label_of_an_image(
    context: Context, tiny_weights: Path, labels: tuple[str, ...], expected: float
) -> None:
    version, *_ = publish_several(context, tiny_weights)
    task = AnnotatedTask(Task(5, {}), 5, "", chosen(*labels))
    ((count, disagreed),) = round_value.labels_and_disagreement(context, version, [task])
    assert count == len(labels)
    assert disagreed == pytest.approx(expected)


def test_versions_are_compared_by_each_label_of_an_image(context: Context, tiny_weights: Path) -> None:
    _, *versions = publish_several(context, tiny_weights)
    signs = [sign for version in versions for sign in round_value.observe(context, 7, version.number)]
    assert [sign.stability for sign in signs] == [pytest.approx(2 / 3), 0.0]
