"""The calibration and the class qualities of a trained model; `promotion` has its own tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import MediaError
from backend.evaluation import matching
from backend.evaluation.held_out_report import report_held_out
from backend.evaluation.matching import Detections
from backend.geometry import masks
from backend.labelstudio import label_config
from backend.loop.training import challenger_evaluation
from backend.loop.training.snapshot import TagPlan
from backend.policy.judgement import calibration_of
from backend.store import evaluations
from backend.types import WHOLE, LabeledBox, Prediction
from backend.yolo import timeline_model
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import details
from backend.yolo.timeline_model import FramePredictions
from backend.yolo.training import Trained
from tests import drawings, kinds, squares
from tests.kinds import KINDS
from tests.loop.training.test_tag_training import TIMELINE, halves, plan
from tests.squares import Learned
from tests.support import CLASSES, IMGSZ, ImageSite, tiny_yolo

pytestmark = pytest.mark.torch

QUALITY = label_config.parse(
    '<View><Image name="image" value="$image"/><Choices name="quality" toName="image"><Choice value="cat"/>'
    '<Choice value="dog"/></Choices></View>'
)[0]


def held_out_detections(tag_plan: TagPlan, weights: Path, videos: FramePredictions | None = None) -> Detections | None:
    """Return the detections on the validation images, as an evaluation joins them; None if none is held out."""
    judged = challenger_evaluation.judged_images(tag_plan, weights, videos)
    return None if judged is None else challenger_evaluation.joined(tag_plan, judged)


@pytest.fixture
def labeled(images: ImageSite) -> tuple[LabeledImage, ...]:
    return halves(images)


def test_the_temperature_is_fitted_on_held_out_images(labeled: tuple[LabeledImage, ...], tiny_weights: Path) -> None:
    detections = held_out_detections(plan(Split(labeled[:2], labeled[2:], held_out=True)), tiny_weights)
    calibration = calibration_of(detections)
    assert calibration.detections >= 30
    assert calibration.reason == ""
    assert calibration.temperature != 1.0
    assert calibration.nll_after < calibration.nll_before
    assert detections is not None
    quality = matching.class_quality(detections, ("cat", "dog"))
    assert quality
    assert all(0 < value < 1 for value in quality.values())


def test_semantic_segmentation_is_calibrated_by_pixels(labeled: tuple[LabeledImage, ...], tmp_path: Path) -> None:
    """The labels are the model's own masks, cut into three strips: their pixels match, their boxes do not."""
    weights = tiny_yolo(tmp_path / "tiny.pt", task="semantic")
    predictions = load_predictor(weights, IMGSZ, "cpu").predict([image.path for image in labeled])
    drawn = [replace(image, boxes=strips(pred)) for image, pred in zip(labeled, predictions, strict=True)]
    tag_plan = plan(Split(labeled, tuple(drawn), held_out=True))
    semantic = replace(tag_plan, tag=replace(tag_plan.tag, task="semantic"))
    detections = held_out_detections(semantic, weights)
    assert detections is not None
    assert len(detections.overlap) > len(labeled)
    assert detections.overlap.min() > 0.9
    as_boxes = held_out_detections(tag_plan, weights)
    assert as_boxes is not None
    assert (as_boxes.overlap == 0).mean() > 0.5


def strips(prediction: Prediction) -> tuple[LabeledBox, ...]:
    """Return the mask of each predicted class as three labeled strips."""
    size = prediction.width, prediction.height
    labels, thirds = [], np.arange(prediction.width) * 3 // prediction.width
    for row, outline in enumerate(prediction.outlines or ()):
        mask = masks.fill(outline, *size)
        for rings in (masks.trace(mask & (thirds == third)) for third in range(3)):
            if rings:
                points = np.concatenate(rings) / size
                low, high = points.min(axis=0), points.max(axis=0)
                box = (*((low + high) / 2).tolist(), *(high - low).tolist())
                shares = tuple(tuple(map(tuple, (ring / size).tolist())) for ring in rings)
                labels.append(LabeledBox(CLASSES[int(prediction.class_probs[row].argmax())], box, outline=shares))
    return tuple(labels)


def test_each_tag_has_the_temperature_of_its_own_detections(
    labeled: tuple[LabeledImage, ...], tiny_weights: Path, tmp_path: Path
) -> None:
    """Boxes and a choice on the same images: the choice has one detection per image, however many boxes there are."""
    choices = (LabeledBox("cat", (0.5, 0.5, 1.0, 1.0)), LabeledBox("dog", (0.5, 0.5, 1.0, 1.0)))
    chosen = tuple(replace(image, boxes=(choices[number % 2],)) for number, image in enumerate(labeled * 4))
    boxes = plan(Split(labeled[:2], labeled[2:], held_out=True))
    choice = replace(boxes, tag=QUALITY, split=Split(labeled[:2], chosen, held_out=True))
    classifier = tiny_yolo(tmp_path / "tiny-cls.pt", task="classify")
    first, second = (
        calibration_of(held_out_detections(tag_plan, weights))
        for tag_plan, weights in ((boxes, tiny_weights), (choice, classifier))
    )
    assert first.detections != second.detections == len(chosen)
    assert first.reason == second.reason == ""
    assert first.temperature != second.temperature


@pytest.mark.parametrize(("multiple", "per_image"), [(False, 1), (True, 2)])
def test_a_multiple_choice_has_one_detection_per_label(
    labeled: tuple[LabeledImage, ...], tmp_path: Path, multiple: bool, per_image: int
) -> None:
    """Half of the images have both labels, so there the most likely label is always right."""
    both = tuple(LabeledBox(name, WHOLE) for name in CLASSES)
    chosen = tuple(replace(image, boxes=both[: 1 + number % 2]) for number, image in enumerate(labeled))
    tag_plan = replace(plan(Split(labeled, chosen, held_out=True)), tag=replace(QUALITY, multiple=multiple))
    detections = held_out_detections(tag_plan, tiny_yolo(tmp_path / "tiny-cls.pt", task="classify"))
    assert detections is not None
    assert len(detections.confidence) == per_image * len(chosen)
    if multiple:
        assert detections.classes.tolist() == [0, 1] * len(chosen)
        assert detections.overlap.tolist() == [1, 0, 1, 1] * (len(chosen) // 2)


@pytest.mark.parametrize(("chosen", "images"), [(False, 6), (True, 3)])
def test_a_spoiled_training_does_not_replace_a_good_version(
    learned: Learned, tmp_path: Path, chosen: bool, images: int
) -> None:
    """With too few held-out images to judge, a model of random weights once replaced a good one."""
    spoiled = Trained(tiny_yolo(tmp_path / "tiny.pt", squares.CLASSES), epochs=1, seconds=1.0, losses_finite=True)
    split = Split(learned.split.train, learned.split.val[:images], held_out=True)
    tag_plan = replace(plan(split), tag=replace(plan(split).tag, labels=squares.CLASSES))
    data_yaml = writer.write(split, squares.CLASSES, tmp_path / "data")
    rejected = challenger_evaluation.evaluate_challenger(
        tag_plan, spoiled, learned.trained.weights, data_yaml, never_left_out, chosen=chosen
    ).judgement
    assert not rejected.promoted
    assert "on all" in rejected.reason
    assert rejected.challenger.held_out
    promoted = challenger_evaluation.evaluate_challenger(
        tag_plan, learned.trained, spoiled.weights, data_yaml, never_left_out, chosen=chosen
    ).judgement
    assert promoted.promoted, promoted.reason
    equal = challenger_evaluation.evaluate_challenger(
        tag_plan, learned.trained, learned.trained.weights, data_yaml, never_left_out, chosen=chosen
    ).judgement
    assert equal.promoted is not chosen, equal.reason


def never_left_out(task_id: int, error: MediaError) -> None:
    raise AssertionError(task_id) from error


def test_images_that_the_model_learned_from_do_not_calibrate_it(
    labeled: tuple[LabeledImage, ...], tiny_weights: Path
) -> None:
    detections = held_out_detections(plan(Split(labeled, labeled, held_out=False)), tiny_weights)
    calibration = calibration_of(detections)
    assert (calibration.temperature, calibration.detections) == (1.0, 0)
    assert "no validation images" in calibration.reason
    assert detections is None


@pytest.mark.parametrize("name", [name for name in KINDS if "Video" not in name and "Timeline" not in name])
def test_each_annotation_type_has_a_report_of_its_held_out_images(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    tag = kind.tag()
    pictures = drawings.pictures(tmp_path / "pictures", kind.draw, 12, seed=0)
    labeled = tuple(replace(picture, boxes=tuple(kinds.drawn(tag, picture))) for picture in pictures)
    split = Split(labeled[:2], labeled[2:], held_out=True)
    tag_plan = replace(plan(split), tag=tag)
    weights = tiny_yolo(tmp_path / "tiny.pt", tag.labels, task=kind.task, **kind.options)
    data_yaml = writer.write(split, tag.labels, tmp_path / "data", tag.task, details(tag))
    trained = Trained(weights, epochs=1, seconds=1.0, losses_finite=True)
    evaluation = challenger_evaluation.evaluate_challenger(tag_plan, trained, None, data_yaml, never_left_out)
    assert evaluation.held_out is not None
    report, answers = evaluation.held_out
    assert report.images == len(answers.pictures) == 10
    assert len(report.confusion) == len(tag.labels) + 1
    assert sum(part.count for part in report.raw) == sum(part.count for part in report.calibrated) > 0
    metrics = evaluation.judgement.challenger
    assert {quality.label: quality.quality for quality in report.class_quality if quality.quality is not None} == dict(
        metrics.class_ap50
    )
    stored = evaluations.decode(evaluations.encode(answers), where="here")
    assert stored.pictures == answers.pictures
    assert stored.sample is not None
    once = np.ones((1, len(stored.sample.tasks)), np.int64)
    assert stored.sample.sample.quality(once)[0] == pytest.approx(metrics.map50, abs=1e-6)


def test_the_frames_of_held_out_videos_have_a_report(labeled: tuple[LabeledImage, ...]) -> None:
    """An LSTM is judged frame by frame; two videos are two images for the bootstrap."""
    rng = np.random.default_rng(0)
    labels = rng.random((40, 2)) < 0.5
    probs = np.where(labels, 0.8, 0.1).astype(np.float32)
    videos = FramePredictions(probs, labels, ("5",) * 20 + ("11",) * 20)
    (timeline,) = label_config.parse(TIMELINE.format('model_every="4"'))
    tag_plan = replace(plan(Split(labeled[:2], labeled[2:], held_out=True)), tag=timeline)
    judged = challenger_evaluation.judged_images(tag_plan, Path("no.pt"), videos)
    assert judged is not None
    assert [image.frame for image in judged[:3]] == [1, 5, 9]
    detections = matching.joined([image.detections for image in judged], 2, single=False)
    measured = timeline_model.measured(videos, timeline.labels)
    report, answers = report_held_out(judged, detections, measured, timeline.labels, 1.0)
    assert report.images == report.group.images == 2
    assert sum(part.count for part in report.raw) == 80
    assert report.mistakes == ()
    assert len(answers.pictures) == 40
    assert answers.sample is not None
    assert answers.sample.tasks == ("11", "5")
    assert evaluations.decode(evaluations.encode(answers), where="here").pictures == answers.pictures
