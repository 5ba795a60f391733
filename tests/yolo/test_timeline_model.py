"""The LSTM of a frame classifier: stored in its weights file, measured on videos, and better where order matters."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import MediaError, ModelError, TrainingError
from backend.labelstudio import label_config, tags
from backend.labelstudio.tags.timelinelabels import lstm
from backend.loop.context import Context
from backend.loop.training import tag_training
from backend.loop.training.challenger_evaluation import evaluate_challenger
from backend.loop.training.snapshot import TagPlan
from backend.media import video
from backend.model_versions import TrainingSnapshot
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import WHOLE, ControlTag, HyperParameters, LabeledBox, LstmOptions
from backend.yolo import frame_classifier, timeline_model, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.classifier import TEMPORAL, Classifier
from backend.yolo.frame_classifier import LabeledVideo, sample
from backend.yolo.lstm import Epoch
from backend.yolo.predictors import load_predictor
from backend.yolo.runtime import load_model
from backend.yolo.tasks import details
from backend.yolo.training import EpochReport
from tests import clips
from tests.clips import Mover
from tests.support import IMGSZ, tiny_yolo

pytestmark = pytest.mark.torch

CONFIG = (
    '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="event" toName="video" '
    'model_every="2" {}><Label value="leftwards"/><Label value="rightwards"/></TimelineLabels></View>'
)
(TAG,) = label_config.parse(CONFIG.format('model_classifier_sequence_size="8" model_classifier_epochs="120"'))
(PLAIN,) = label_config.parse(CONFIG.format(""))
LABELS = TAG.labels
FRAMES, TURN = 120, 20  # of a video; a square goes back and forth, TURN frames each way
HYPER = HyperParameters(epochs=4, batch=16, imgsz=IMGSZ, seed=0, device="cpu")


def back_and_forth(folder: Path, number: int) -> LabeledVideo:
    """Write a video of a square that moves over the picture and back; no single frame shows its direction."""
    speed = (160 - 40) / TURN
    phase = int(np.random.default_rng(number).integers(0, 2 * TURN))
    mover = Mover("red", (speed * phase, 40), (speed, 0), (40, 40))
    path = clips.write(folder / f"{number}.avi", [mover], FRAMES)
    to_the_right = [(frame + phase) % (2 * TURN) < TURN for frame in range(FRAMES)]
    turns = [0, *(np.flatnonzero(np.diff(to_the_right)) + 1).tolist(), FRAMES]
    segments = tuple(
        LabeledBox(LABELS[int(to_the_right[first])], WHOLE, frame=first + 1, last=end) for first, end in pairwise(turns)
    )
    return LabeledVideo(number, video.probe(path), segments, 25)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabeledVideo, ...]:
    folder = tmp_path_factory.mktemp("videos")
    return tuple(back_and_forth(folder, number) for number in range(9))


def frames_of(folder: Path, labeled: LabeledVideo, tag: ControlTag) -> tuple[LabeledImage, ...]:
    """Return the images of a video from which the frame classifier learns."""
    boxes_by_frame = sample(labeled.segments, tag, FRAMES)
    images = []
    for (frame, boxes), pixels in zip(
        boxes_by_frame.items(), video.frames(labeled.video, boxes_by_frame, 25), strict=True
    ):
        path = folder / f"{labeled.task_id}-{frame}.png"
        Image.fromarray(pixels[:, :, ::-1]).save(path)
        images.append(LabeledImage(labeled.task_id, path, boxes, random=True, frame=frame))
    return tuple(images)


def nobody(task_id: int, error: MediaError) -> None:
    """Fail if a video is left out of a training."""
    raise AssertionError(task_id) from error


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, videos: tuple[LabeledVideo, ...]) -> Path:
    """Return the weights of a classifier trained on the frames of six videos."""
    folder = tmp_path_factory.mktemp("classifier")
    images = tuple(image for labeled in videos[:6] for image in frames_of(folder, labeled, PLAIN))
    data_yaml = writer.write(Split(images, images, held_out=False), LABELS, folder / "data", "classify", details(TAG))
    base = tiny_yolo(folder / "tiny-cls.pt", LABELS, task="classify")
    start = BaseWeights(str(base), pretrained=True, note="", task="classify")
    return training.train(data_yaml, start, HYPER, folder / "run", lambda _: None).weights


@pytest.fixture(scope="module")
def with_lstm(tmp_path_factory: pytest.TempPathFactory, videos: tuple[LabeledVideo, ...], classifier: Path) -> Path:
    weights = tmp_path_factory.mktemp("lstm") / "weights.pt"
    weights.write_bytes(classifier.read_bytes())
    options = lstm(TAG)
    assert options is not None
    last = timeline_model.train(weights, videos[:6], TAG, options, HYPER, lambda _: None, nobody)
    print(f"LSTM after {last.number} epochs: F1 {last.f1:.3f}, accuracy {last.accuracy:.3f}")
    return weights


def share_right(weights: Path, videos: tuple[LabeledVideo, ...], tag: ControlTag) -> float:
    """Return the share of frames whose predicted labels, read from the regions, are the true ones."""
    predictor, right = load_predictor(weights, IMGSZ, "cpu"), []
    assert isinstance(predictor, Classifier)
    for labeled in videos:
        prediction = frame_classifier.predict_video(predictor, labeled.video, tag)
        regions = [region.as_json() for region in tags.encode(tag, prediction, predictor.classes, 0.5, "k")]
        predicted, true = (
            {frame: {box.label for box in boxes if box.frame <= frame <= box.last} for frame in range(1, FRAMES + 1)}
            for boxes in (tags.decode(tag, regions), labeled.segments)
        )
        right += [predicted[frame] == true[frame] for frame in true]
    return float(np.mean(right))


def test_the_lstm_is_better_where_no_single_frame_shows_the_label(
    videos: tuple[LabeledVideo, ...], classifier: Path, with_lstm: Path
) -> None:
    smoothed, ordered = (
        share_right(*arguments) for arguments in ((classifier, videos[6:], PLAIN), (with_lstm, videos[6:], TAG))
    )
    print(f"frames right: smoothed {smoothed:.3f}, LSTM {ordered:.3f}")
    assert ordered > 0.85
    assert smoothed < 0.65


def test_quality_is_measured_on_predictions_of_videos(
    videos: tuple[LabeledVideo, ...], classifier: Path, with_lstm: Path
) -> None:
    alone, ordered = (
        timeline_model.predict_videos(argument, videos[6:], TAG, IMGSZ, "cpu", nobody)
        for argument in (classifier, with_lstm)
    )
    assert ordered.probs.shape == ordered.labels.shape == (3 * FRAMES // 2, 2)
    np.testing.assert_array_equal(alone.labels, ordered.labels)
    assert (ordered.labels.sum(axis=1) == 1).all()
    before, after = (timeline_model.measured(argument, LABELS).metrics for argument in (alone, ordered))
    assert before.map50 < 0.7 < 0.9 < after.map50
    assert set(after.class_ap50) == set(LABELS)
    assert (after.images, after.boxes, after.detections) == (180, 180, 180)


def test_a_video_that_cannot_be_read_is_left_out_and_the_others_are_used(
    videos: tuple[LabeledVideo, ...], classifier: Path, context: Context, tmp_path: Path
) -> None:
    """Its file breaks off: a file that was complete when the labels were read may be damaged later."""
    whole = videos[0].video.path.read_bytes()
    cut = tmp_path / f"cut{videos[0].video.path.suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    broken = LabeledVideo(77, replace(videos[0].video, path=cut), videos[0].segments, 25)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(classifier.read_bytes())
    record = ProjectRecord(7, CONFIG, "", "", "", "")
    split = Split((), (), held_out=False)
    plan = TagPlan(record, context.settings, TAG, TrainingSnapshot(7, "hash", {}, (), ()), split)
    left_out = partial(tag_training.note_left_out, context, plan)
    options = LstmOptions(sequence_size=4, hidden_size=5, epochs=1)
    timeline_model.train(weights, [broken, videos[1]], TAG, options, HYPER, lambda _: None, left_out)
    predictions = timeline_model.predict_videos(weights, [videos[1], broken], TAG, IMGSZ, "cpu", left_out)
    assert len(predictions.probs) == len(predictions.labels) == FRAMES // 2
    failures = context.progress.failures(7)
    assert failures.keys() == {77}
    assert "left out" in failures[77]
    with pytest.raises(TrainingError, match="no labeled video"):
        timeline_model.predict_videos(weights, [broken], TAG, IMGSZ, "cpu", left_out)


def test_labels_that_a_model_does_not_know_have_no_chance(videos: tuple[LabeledVideo, ...], with_lstm: Path) -> None:
    """A champion may be older than a change of the config; its labels are matched by name."""
    other = replace(TAG, labels=("standing", LABELS[1], LABELS[0]))
    mine, theirs = (
        timeline_model.predict_videos(with_lstm, videos[:1], tag, IMGSZ, "cpu", nobody) for tag in (TAG, other)
    )
    assert (theirs.probs[:, 0] == 0).all()
    np.testing.assert_array_equal(theirs.probs[:, [2, 1]], mine.probs)
    np.testing.assert_array_equal(theirs.labels[:, [2, 1]], mine.labels)


def test_doubt_is_the_lstms(videos: tuple[LabeledVideo, ...], classifier: Path, with_lstm: Path) -> None:
    predictions = []
    for weights in (classifier, with_lstm):
        predictor = load_predictor(weights, IMGSZ, "cpu")
        assert isinstance(predictor, Classifier)
        predictions.append(frame_classifier.predict_video(predictor, videos[7].video, TAG))
    alone, ordered = predictions
    assert ordered.video_doubt is not None
    assert alone.video_doubt is not None
    assert ordered.video_doubt < alone.video_doubt
    assert (ordered.confidence == ordered.class_probs.max(axis=1)).all()
    np.testing.assert_array_equal(ordered.embedding, alone.embedding)


def test_the_file_opens_where_this_package_is_not_installed(with_lstm: Path, videos: tuple[LabeledVideo, ...]) -> None:
    script = (
        "import sys; sys.modules['backend'] = None\n"
        "import ultralytics, numpy\n"
        f"model = ultralytics.YOLO({str(with_lstm)!r})\n"
        "(found,) = model.predict(numpy.zeros((64, 64, 3), numpy.uint8), imgsz=64, device='cpu', verbose=False)\n"
        "print(found.names, model.model.temporal['lstm'].hidden_size, model.model.temporal.sequence_size)"
    )
    environment = {
        **os.environ,
        "YOLO_OFFLINE": "true",
        "YOLO_CONFIG_DIR": str(with_lstm.parent),
        "YOLO_AUTOINSTALL": "false",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{0: 'leftwards', 1: 'rightwards'} 32 8"


def test_a_training_that_goes_on_from_it_has_an_lstm_of_its_own(
    videos: tuple[LabeledVideo, ...], with_lstm: Path, tmp_path: Path
) -> None:
    images = frames_of(tmp_path, videos[0], TAG)
    data_yaml = writer.write(Split(images, images, held_out=False), LABELS, tmp_path / "data", "classify", details(TAG))
    start = BaseWeights(str(with_lstm), pretrained=True, note="", task="classify")
    weights = training.train(data_yaml, start, replace(HYPER, epochs=1), tmp_path / "run", lambda _: None).weights
    assert not hasattr(load_model(weights), TEMPORAL)
    epochs: list[Epoch] = []
    options = LstmOptions(sequence_size=4, hidden_size=5, num_layers=2, epochs=2, f1_threshold=1, accuracy_threshold=1)
    last = timeline_model.train(weights, videos[:1], TAG, options, HYPER, epochs.append, nobody)
    assert epochs[-1] == last
    assert last.number == 2
    lstm_ = load_model(weights).temporal
    assert (lstm_["lstm"].hidden_size, lstm_["lstm"].num_layers, lstm_.sequence_size) == (5, 2, 4)
    assert lstm_["lstm"].weight_hh_l0.dtype == torch.float32  # the classifier is stored in half of it


def test_an_lstm_without_finite_output_is_refused(videos: tuple[LabeledVideo, ...], with_lstm: Path) -> None:
    predictor = Classifier(load_model(with_lstm), IMGSZ, "cpu")
    assert predictor.temporal is not None
    predictor.temporal["labels"].bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        frame_classifier.predict_video(predictor, videos[0].video, TAG)


def test_frames_past_the_last_segment_have_no_label(videos: tuple[LabeledVideo, ...]) -> None:
    drawn = (LabeledBox(LABELS[0], WHOLE, frame=5, last=8), LabeledBox(LABELS[1], WHOLE, frame=8, last=500))
    labeled = LabeledVideo(1, videos[0].video, drawn, 25)
    marks = frame_classifier.labels_of(labeled, TAG, 60)
    assert np.flatnonzero(marks[:, 0]).tolist() == [2, 3]  # frames 5 and 7
    assert np.flatnonzero(marks[:, 1]).tolist() == list(range(4, 60))  # frames 9, 11 ...
    assert not frame_classifier.labels_of(replace(labeled, segments=()), TAG, 60).any()
    assert frame_classifier.labels_of(labeled, TAG, 58).shape == (58, 2)  # a header that promised too many


def test_a_training_of_a_timeline_trains_and_measures_the_lstm(
    videos: tuple[LabeledVideo, ...], tmp_path: Path
) -> None:
    """With six videos learned and three held out, both trainings report progress, and the verdict compares videos."""
    learned, held = (
        tuple(image for labeled in part for image in frames_of(tmp_path, labeled, TAG))
        for part in (videos[:6], videos[6:])
    )
    record = ProjectRecord(7, CONFIG, "", "", "", "")
    settings = Settings(imgsz=IMGSZ, device="cpu", max_epochs=1, min_epochs=1)
    split = Split(learned, held, held_out=True)
    plan = TagPlan(record, settings, TAG, TrainingSnapshot(7, "hash", {}, (), ()), split, videos)
    assert [labeled.task_id for labeled in plan.learned_videos] == list(range(6))
    assert [labeled.task_id for labeled in plan.judged_videos] == [6, 7, 8]
    data_yaml = writer.write(split, LABELS, tmp_path / "data", "classify", details(TAG))
    base = BaseWeights(str(tiny_yolo(tmp_path / "tiny-cls.pt", LABELS, task="classify")), True, "", "classify")
    reports: list[EpochReport] = []
    trained = tag_training.train_weights(plan, base, data_yaml, tmp_path / "run", reports.append, nobody)
    assert [sorted(labeled.losses) for labeled in reports[:2]] == [["loss"], ["lstm_loss"]]
    assert {(labeled.epoch, labeled.epochs) for labeled in reports} == {(1, 1)}
    evaluation = evaluate_challenger(plan, trained, Path(base.source), data_yaml, nobody)
    judgement = evaluation.judgement
    assert judgement.promoted
    assert "mAP" in judgement.reason
    assert judgement.champion is not None
    assert judgement.challenger.map50 > 0.9 > judgement.champion.map50
    assert judgement.challenger.images == 180
    assert evaluation.calibration.detections == 180 * len(LABELS)
