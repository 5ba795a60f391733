"""What the view Next shows: tasks of any kind, with reasons and regions, and only those that wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import NotFoundError
from backend.labelstudio import label_config
from backend.loop.insight import drawn_regions
from backend.loop.insight.next_tasks import next_tasks
from backend.loop.insight.pictures import picture
from backend.loop.served_models import ServedModel
from backend.settings import Settings
from backend.types import Prediction, Tracks
from tests.queue_studio import Studio, open_studio
from tests.support import CONFIG, ImageSite, cycle_of

TAG = label_config.parse(CONFIG)[0]


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        yield studio


@pytest.mark.label_studio
def test_labeled_tasks_leave_the_list_and_late_ones_say_so(studio: Studio) -> None:
    before = next_tasks(studio.context, studio.project, TAG)
    assert [task.place for task in before.tasks] == [1, 2, 3, 4]
    assert [task.score for task in before.tasks] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert all(task.drawing.outlines and task.reasons and not task.frame for task in before.tasks)
    studio.client.annotations.create(before.tasks[0].task_id, [])
    studio.add(4, 5)
    cycle_of(studio.context).score_new(studio.project)
    after = next_tasks(studio.context, studio.project, TAG)
    assert {task.task_id for task in after.tasks} & {task.task_id for task in before.tasks} == {
        task.task_id for task in before.tasks[1:]
    }
    (late,) = (task for task in after.tasks if task.task_id not in {old.task_id for old in before.tasks})
    assert late.reasons[0] == "arrived late: placed by class_entropy"
    assert after.agreement is None


@pytest.mark.label_studio
def test_the_pictures_of_the_shown_tasks_cost_label_studio_no_request(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, each of 24 pictures asked for its task, and whatever came next waited for seconds."""
    shown = next_tasks(studio.context, studio.project, TAG)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Label Studio was asked")

    monkeypatch.setattr(studio.client.http, "request", refuse)
    for task in shown.tasks:
        assert picture(studio.context, TAG, studio.project, task.task_id, 160)


@pytest.mark.label_studio
def test_another_strategy_has_an_agreement_and_no_scores(studio: Studio) -> None:
    order = next_tasks(studio.context, studio.project, TAG, "random")
    assert (order.own, order.strategy) == ("class_entropy", "random")
    assert order.agreement is not None
    assert (order.agreement.tasks, order.agreement.first, order.agreement.shared) == (4, 4, 4)
    assert [task.score for task in order.tasks] == [None] * 4
    with pytest.raises(NotFoundError):
        next_tasks(studio.context, 10**9, TAG)


def video(doubted: list[int] | None) -> Prediction:
    """Return a video of two objects: one with key frames 1 and 10, one that is hidden from frame 5 on."""
    boxes = np.array([[0, 0, 20, 10], [20, 0, 40, 10], [0, 50, 20, 60], [0, 60, 20, 70]], dtype=np.float32)
    tracks = Tracks(np.array([1, 10, 1, 5]), np.array([0, 0, 1, 1]), np.array([1, 1, 1, 0]), 12, 25.0)
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.7], [0.2, 0.7]], dtype=np.float32)
    frames = None if doubted is None else np.array(doubted)
    return Prediction(200, 100, boxes, probs, probs.max(axis=1), tracks=tracks, doubted_frames=frames)


@pytest.mark.parametrize(("doubted", "frame", "left"), [([9], 9, [10.0]), (None, 1, [0.0, 0.0]), ([], 1, [0.0, 0.0])])
def test_a_video_is_shown_at_one_frame(
    context: object, doubted: list[int] | None, frame: int, left: list[float]
) -> None:
    prediction = video(doubted)
    assert drawn_regions.shown_frame(prediction) == frame
    model = ServedModel(7, 1, "yolo11n-v1", ("cat", "dog"), None, 1.0, None, 64, "cpu", TAG, "label")
    shown = drawn_regions.in_frame(model, prediction, frame).outlines
    assert [float(region.rings[0][0, 0]) for region in shown] == left
    assert shown[0].label == "cat"
    assert float(np.ptp(shown[0].rings[0][:, 0])) == 10.0


def test_an_image_has_no_frame() -> None:
    boxes = np.zeros((0, 4), np.float32)
    image = Prediction(10, 10, boxes, np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    assert drawn_regions.shown_frame(image) == 0
    assert drawn_regions.shown_frame(None) == 0


def test_a_mask_is_drawn_as_its_outline() -> None:
    square = np.array([[0, 0], [5, 0], [5, 5]], dtype=np.float32)
    probs = np.array([[0.9, 0.1], [0.1, 0.2]], dtype=np.float32)
    boxes = np.array([[0, 0, 5, 5]] * 2, dtype=np.float32)
    masks = Prediction(10, 10, boxes, probs, probs.max(axis=1), outlines=((square,), (square,)))
    model = ServedModel(7, 1, "yolo11n-v1", ("cat", "dog"), None, 1.0, None, 64, "cpu", TAG, "label")
    (region,) = drawn_regions.outlines(model, masks, 0.25).outlines
    assert region.rings[0].tolist() == [[0, 0], [50, 0], [50, 50]]
    assert (region.label, region.painted) == ("cat", True)
