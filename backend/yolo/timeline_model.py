"""An LSTM beside the classifier of a timeline's frames: trained on whole videos, judged by them, kept in its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from backend.errors import MediaError, TrainingError
from backend.evaluation import bootstrap
from backend.evaluation.bootstrap import Measured
from backend.types import BoolArray, ControlTag, FloatArray, HyperParameters, LstmOptions
from backend.yolo import classifier_quality, lstm
from backend.yolo.classifier import TEMPORAL, Classifier
from backend.yolo.frame_classifier import LabeledVideo, embeddings_of, labels_of, watch
from backend.yolo.lstm import Epoch
from backend.yolo.runtime import add_module, load_model, select_device

LeftOut: TypeAlias = Callable[[int, MediaError], None]  # gets a task whose video cannot be watched, and why


@dataclass(frozen=True, slots=True)
class Watched:
    """What a model says of the frames of some videos that were looked at, and what people say of them."""

    probs: FloatArray  # (n, L)
    labels: BoolArray  # (n, L)
    tasks: tuple[str, ...]  # n, the task whose video each frame is of


def train(
    weights: Path,
    videos: Sequence[LabeledVideo],
    tag: ControlTag,
    options: LstmOptions,
    hyper: HyperParameters,
    on_epoch: Callable[[Epoch], None],
    left_out: LeftOut,
) -> Epoch:
    """Train an LSTM on what a classifier sees of videos, write it into the weights, and return its last epoch.

    It begins anew each time, whatever TRAIN_FROM says: each training changes what the embeddings mean that it reads.
    Of the videos their embeddings are in memory, 5 kB a frame. Raises TrainingError where none can be watched.
    """
    classifier = Classifier(load_model(weights, "classify"), hyper.imgsz, hyper.device)
    seen = _each(videos, lambda one: embeddings_of(classifier, one.video, tag), left_out)
    learned = [(each, labels_of(one, tag, len(each))) for one, each in seen]
    device = select_device(hyper.device)
    fitted = lstm.train(learned, options, hyper.seed, on_epoch, device=device, minutes=hyper.minutes)
    add_module(weights, TEMPORAL, fitted.net)
    return fitted.last


def watched(
    weights: Path, videos: Sequence[LabeledVideo], tag: ControlTag, imgsz: int, device: str, left_out: LeftOut
) -> Watched:
    """Let a model watch videos as it does when it serves. Raises TrainingError where none can be watched."""
    classifier = Classifier(load_model(weights, "classify"), imgsz, device)
    said = _each(videos, lambda one: watch(classifier, one.video, tag).class_probs, left_out)
    true = [labels_of(one, tag, len(probs)) for one, probs in said]
    probs = classifier_quality.by_name(np.concatenate([each for _, each in said]), classifier.classes, tag.labels)
    tasks = [str(one.task_id) for one, probs_of in said for _ in probs_of]
    return Watched(probs, np.concatenate(true), tuple(tasks))


def _each(
    videos: Sequence[LabeledVideo], look: Callable[[LabeledVideo], FloatArray], left_out: LeftOut
) -> list[tuple[LabeledVideo, FloatArray]]:
    """Return what is seen in each video; one that cannot be watched to its end is left out, and told."""
    found = []
    for one in videos:
        try:
            found.append((one, look(one)))
        except MediaError as error:
            left_out(one.task_id, error)
    if not found:
        raise TrainingError("no labeled video can be watched to its end", fix="upload the videos again")
    return found


def measured(found: Watched, labels: Sequence[str]) -> Measured:
    """Return the mean average precision of the frames where other tasks have mAP50."""
    sample = classifier_quality.sample(found.probs, found.labels, found.tasks, multiple=True)
    return bootstrap.measured(classifier_quality.quality(found.probs, found.labels, labels, multiple=True), sample)
