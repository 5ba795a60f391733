"""The table of versions, and two versions compared per class and per picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import NotFoundError
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.insight.tag_models import version_models
from backend.loop.insight.versions_compared import MOST_PICTURES, compare, version_rows
from backend.store.paths import answers_file
from backend.store.store import ProjectRecord
from tests.evaluated import evaluation, evaluation_of, judged, publish_evaluated
from tests.support import CONFIG, publish

RECORD = ProjectRecord(7, CONFIG, "", "", "", "")
TAG = label_config.parse(CONFIG)[0]
HELD_OUT = range(100, 140)


@pytest.fixture
def project(context: Context, tiny_weights: Path) -> Context:
    """Two accepted versions, and a rejected one."""
    context.store.save_project(RECORD)
    for place, (right, promoted) in enumerate([(0.3, True), (0.8, True), (0.1, False)]):
        stored, metrics = evaluation(judged(HELD_OUT, right, seed=place), learned=20 + 10 * place)
        settings = {"epochs": 10 + place, "seed": 0}
        publish_evaluated(
            context, 7, tiny_weights, stored, metrics, promoted=promoted, tasks=HELD_OUT, settings=settings
        )
    context.store.activate(7, 1)
    return context


def test_the_table_shows_data_settings_and_reason_newest_first(project: Context) -> None:
    third, second, first = version_rows(project, RECORD, TAG)
    assert [row.state for row in (third, second, first)] == ["rejected", "accepted", "serves"]
    assert (second.images, second.boxes, second.classes, second.seconds) == (30, 60, 2, 65.0)
    assert [(change.name, change.before, change.after) for change in second.changes] == [("epochs", "10", "11")]
    assert first.changes == ()
    assert "on 40 held-out images" in second.quality
    assert third.reason == "not published: worse than the tolerance 0.02"
    assert [row.can_serve for row in (third, second, first)] == [False, True, True]


def test_a_pruned_version_stays_in_the_table_and_cannot_serve(project: Context) -> None:
    project.store.activate(7, 2)
    project.store.prune(7, keep=1)
    _, second, first = version_rows(project, RECORD, TAG)
    assert (second.can_serve, first.can_serve) == (True, False)
    assert first.boxes == 40


def test_a_model_that_was_carried_over_keeps_the_report_of_its_training(project: Context, tiny_weights: Path) -> None:
    second = project.store.version(7, 2)
    number = project.store.reserve_number(7)
    model = replace(second.models[0], carried=True)
    carried = replace(second, number=number, name=f"yolo11n-v{number}", parent=2, models=(model,))
    project.store.publish(carried, {"label": tiny_weights})
    newest = version_models(project, RECORD, TAG)[-1]
    assert newest.made_by == 1  # the first version with these very weights
    assert newest.report == project.store.evaluations.report(7, 1, "label")
    row = version_rows(project, RECORD, TAG)[0]
    assert (row.carried_from, row.changes) == (1, ())


def test_two_versions_are_compared_on_their_common_images(project: Context) -> None:
    comparison = compare(project, RECORD, TAG, 1, 2)
    assert comparison.paired is not None
    assert comparison.paired.images == 40
    overall, cat, dog = comparison.paired.qualities
    assert [overall.label, cat.label, dog.label] == ["", "cat", "dog"]
    assert overall.interval is not None
    assert overall.interval[0] > 0
    assert len(comparison.pictures) == MOST_PICTURES
    changes = [abs(picture.change) for picture in comparison.pictures]
    assert changes == sorted(changes, reverse=True)
    assert comparison.pictures[0].before.answers
    assert comparison.obstacle == ""
    backwards = compare(project, RECORD, TAG, 2, 1).paired
    assert backwards is not None
    assert backwards.qualities[0].after == overall.before


def test_a_version_with_itself_differs_nowhere(project: Context) -> None:
    comparison = compare(project, RECORD, TAG, 2, 2)
    assert (comparison.pictures, comparison.same) == ((), 40)


def test_what_cannot_be_compared_says_why(project: Context, tiny_weights: Path) -> None:
    publish_evaluated(project, 7, tiny_weights, evaluation_of(None, None), None)
    assert compare(project, RECORD, TAG, 1, 4).obstacle == "yolo11n-v4 has no answers on held-out images in the store."
    stored, metrics = evaluation(judged(range(300, 320), 0.5))
    publish_evaluated(project, 7, tiny_weights, stored, metrics)
    apart = compare(project, RECORD, TAG, 1, 5)
    assert apart.obstacle == "The two versions were judged on different images."
    assert apart.paired is None


def test_versions_that_are_not_there_and_damaged_files_are_named(project: Context) -> None:
    with pytest.raises(NotFoundError, match="version 9 has no model of this tag"):
        compare(project, RECORD, TAG, 1, 9)
    project.store.files.write(answers_file(7, 1, "label"), b"")
    assert "damaged file" in compare(project, RECORD, TAG, 1, 2).obstacle


def test_a_version_of_an_earlier_release_has_a_row(context: Context, tiny_weights: Path) -> None:
    publish(context.store, 7, tiny_weights, train_tasks=(1, 2))
    (row,) = version_rows(context, RECORD, TAG)
    assert (row.images, row.boxes, row.carried_from) == (2, None, None)
    assert version_rows(context, replace(RECORD, project_id=8), TAG) == ()
