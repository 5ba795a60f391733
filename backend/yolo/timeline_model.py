"""The LSTM of a timeline project: trained and measured on whole videos, and stored in the classifier's file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from backend.errors import MediaError, TrainingError
from backend.evaluation import bootstrap
from backend.evaluation.bootstrap import Measured
from backend.evaluation.samples import tasks_of
from backend.types import BoolArray, ControlTag, FloatArray, HyperParameters, LstmOptions
from backend.yolo import classifier_quality, lstm
from backend.yolo.classifier import TEMPORAL, Classifier
from backend.yolo.frame_classifier import LabeledVideo, embeddings_of, labels_of, predict_video
from backend.yolo.lstm import Epoch
from backend.yolo.runtime import add_module, load_model, select_device

LeftOut: TypeAlias = Callable[[int, MediaError], None]  # is called with the task whose video cannot be read, and why


@dataclass(frozen=True, slots=True)
class FramePredictions:
    """The label probabilities of a model for the n sampled frames of some videos, and the labels of people."""

    probs: FloatArray  # (n, L)
    labels: BoolArray  # (n, L)
    tasks: tuple[str, ...]  # n, the task to whose video each frame belongs


def train(
    weights: Path,
    videos: Sequence[LabeledVideo],
    tag: ControlTag,
    options: LstmOptions,
    hyper: HyperParameters,
    on_epoch: Callable[[Epoch], None],
    left_out: LeftOut,
) -> Epoch:
    """Train an LSTM on a classifier's embeddings of videos, write it into the weights, and return its last epoch.

    It starts from scratch whatever TRAIN_FROM says, because each training of the classifier changes the embeddings.
    The embeddings of all videos are in memory, 5 kB a frame. Raises TrainingError if no video can be read.
    """
    classifier = Classifier(load_model(weights, "classify"), hyper.imgsz, hyper.device)
    embeddings_by_video = _for_each_video(
        videos, lambda labeled: embeddings_of(classifier, labeled.video, labeled.timed(tag)), left_out
    )
    sequences = [
        (embeddings, labels_of(labeled, labeled.timed(tag), len(embeddings)))
        for labeled, embeddings in embeddings_by_video
    ]
    device = select_device(hyper.device)
    fitted = lstm.train(sequences, options, hyper.seed, on_epoch, device=device, minutes=hyper.minutes)
    add_module(weights, TEMPORAL, fitted.net)
    return fitted.last


def predict_videos(
    weights: Path, videos: Sequence[LabeledVideo], tag: ControlTag, imgsz: int, device: str, left_out: LeftOut
) -> FramePredictions:
    """Return a model's predictions for labeled videos, made as for /predict.

    Raises TrainingError if no video can be read.
    """
    classifier = Classifier(load_model(weights, "classify"), imgsz, device)
    probs_by_video = _for_each_video(
        videos, lambda labeled: predict_video(classifier, labeled.video, labeled.timed(tag)).class_probs, left_out
    )
    true = [labels_of(labeled, labeled.timed(tag), len(probs)) for labeled, probs in probs_by_video]
    probs = classifier_quality.by_name(
        np.concatenate([video_probs for _, video_probs in probs_by_video]), classifier.classes, tag.labels
    )
    tasks = [str(labeled.task_id) for labeled, video_probs in probs_by_video for _ in video_probs]
    return FramePredictions(probs, np.concatenate(true), tuple(tasks))


def _for_each_video(
    videos: Sequence[LabeledVideo], predict: Callable[[LabeledVideo], FloatArray], left_out: LeftOut
) -> list[tuple[LabeledVideo, FloatArray]]:
    """Return each video with its values of `predict`; a video that cannot be read to its end is reported to `left_out`.

    Raises TrainingError if there is no other video.
    """
    values = []
    for labeled in videos:
        try:
            values.append((labeled, predict(labeled)))
        except MediaError as error:
            left_out(labeled.task_id, error)
    if not values:
        raise TrainingError("no labeled video can be watched to its end", fix="upload the videos again")
    return values


def measured(predictions: FramePredictions, labels: Sequence[str]) -> Measured:
    """Return the mean average precision over the labels of the frames, and the values per task for a bootstrap."""
    sample = classifier_quality.sample(predictions.probs, predictions.labels, predictions.tasks, multiple=True)
    metrics = classifier_quality.quality(predictions.probs, predictions.labels, labels, multiple=True)
    return bootstrap.measured(metrics, sample, tasks=tasks_of(predictions.tasks))
