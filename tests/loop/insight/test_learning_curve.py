"""The learning curve, the truth beside picked tasks, and what the next labels promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.insight.learning_curve import LearningCurve, learning_curve
from backend.store.paths import report_file
from backend.store.store import ProjectRecord
from tests.evaluated import evaluation, evaluation_of, judged, labeled_since, publish_evaluated
from tests.support import CONFIG, TWO_TAGS, publish

RECORD = ProjectRecord(7, CONFIG, "", "", "", "")
HELD_OUT = range(100, 140)


@pytest.fixture
def project(context: Context) -> Context:
    context.store.save_project(RECORD)
    return context


def curve_of(context: Context, record: ProjectRecord = RECORD) -> LearningCurve:
    return learning_curve(context, record, label_config.parse(record.label_config)[0])


def grow(context: Context, weights: Path, rights: list[float], **options: object) -> None:
    """Publish versions with 20, 40, 80, ... images that detect this share of the held-out objects."""
    for place, right in enumerate(rights):
        stored, metrics = evaluation(judged(HELD_OUT, right, seed=place), learned=20 * 2**place, **options)  # type: ignore[arg-type]
        publish_evaluated(context, 7, weights, stored, metrics, tasks=HELD_OUT)


def test_each_judged_version_is_a_point(project: Context, tiny_weights: Path) -> None:
    grow(project, tiny_weights, [0.3, 0.6])
    stored, metrics = evaluation(judged(HELD_OUT, 0.1, seed=9), learned=60)
    publish_evaluated(project, 7, tiny_weights, stored, metrics, promoted=False, tasks=HELD_OUT)
    curve = curve_of(project)
    assert curve.measure == "mAP50"
    assert [(point.images, point.boxes, point.promoted) for point in curve.points] == [
        (20, 40, True),
        (40, 80, True),
        (60, 120, False),
    ]
    for point in curve.points:
        assert point.interval is not None
        assert point.interval[0] < point.quality < point.interval[1]
        assert [of_class.label for of_class in point.classes] == ["cat", "dog"]
        assert all(of_class.interval is not None for of_class in point.classes)
    assert curve.not_judged == ()


def test_few_versions_promise_nothing(project: Context, tiny_weights: Path) -> None:
    grow(project, tiny_weights, [0.2, 0.4, 0.6])
    curve = curve_of(project)
    assert curve.projection is None
    assert curve.refusal.startswith("Not enough versions yet: 3 judged versions with different numbers of images")
    grow(project, tiny_weights, [0.6, 0.6, 0.6, 0.7])
    grown = curve_of(project)
    assert grown.projection is not None
    assert grown.projection.interval is not None
    assert grown.refusal == ""


def test_a_version_of_an_earlier_release_is_a_point_without_boxes(project: Context, tiny_weights: Path) -> None:
    publish(project.store, 7, tiny_weights, train_tasks=(1, 2, 3))
    (point,) = curve_of(project).points
    assert (point.images, point.boxes) == (3, None)
    assert [(of_class.label, of_class.interval) for of_class in point.classes] == [("cat", None), ("dog", None)]
    assert curve_of(project).groups == ()


def test_a_version_without_held_out_images_is_named(project: Context, tiny_weights: Path) -> None:
    publish_evaluated(project, 7, tiny_weights, evaluation_of(None, None), None)
    curve = curve_of(project)
    assert curve.points == ()
    assert curve.not_judged == ("yolo11n-v1: not judged yet (no held-out images; 10 images are needed)",)
    assert "0 judged versions" in curve.refusal


def test_without_a_version_there_is_an_empty_curve(project: Context) -> None:
    curve = curve_of(project)
    assert (curve.points, curve.not_judged, curve.groups) == ((), (), ())
    assert not curve.stopping.stop


def test_the_truth_stands_beside_what_was_picked(project: Context, tiny_weights: Path) -> None:
    """The report of the second version judges the first one on the tasks that were labeled in between."""
    grow(project, tiny_weights, [0.8])
    stored, metrics = evaluation(judged(HELD_OUT, 0.9), since=labeled_since(1, chance=3, picked=30))
    publish_evaluated(project, 7, tiny_weights, stored, metrics, tasks=HELD_OUT)
    first, second = curve_of(project).groups
    assert first.held_out is not None
    assert first.chance is not None
    assert first.picked is not None
    assert first.held_out.quality is not None
    assert first.picked.quality is not None
    assert first.picked.quality < first.held_out.quality
    assert (first.held_out.images, first.picked.images) == (40, 30)
    assert first.chance.in_words() == "not judged yet (3 images; 10 images are needed)"
    assert second.picked is None


def test_a_damaged_report_costs_its_own_version_alone(project: Context, tiny_weights: Path) -> None:
    grow(project, tiny_weights, [0.3, 0.6])
    project.store.files.write(report_file(7, 1, "label"), b"{")
    assert [point.boxes for point in curve_of(project).points] == [None, 80]


def test_each_tag_has_its_own_curve(project: Context, tiny_weights: Path) -> None:
    grow(project, tiny_weights, [0.3])
    record = ProjectRecord(7, TWO_TAGS, "", "", "", "")
    assert len(curve_of(project, record).points) == 1
    assert learning_curve(project, record, label_config.parse(TWO_TAGS)[1]).points == ()
