"""Model versions: the result of a training, its labels and its quality."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from backend.types import ControlTag, YoloTask

_WEIGHTS_NAME = re.compile(r"\w[\w.-]*\.pt", re.ASCII)


def is_weights_name(name: str) -> bool:
    """Return whether `name` is the name of a weights file, without a folder.

    >>> is_weights_name("yolo11n.pt"), is_weights_name("../yolo11n.pt")
    (True, False)
    """
    return _WEIGHTS_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class TrainingSnapshot:
    """The labels of one training; `annotations` maps the id of an annotation to its updated_at."""

    project_id: int
    label_config_hash: str
    annotations: Mapping[int, str]
    train_tasks: tuple[int, ...]
    val_tasks: tuple[int, ...]
    random_tasks: tuple[int, ...] = ()  # labeled tasks drawn at random, the source of the validation set

    @property
    def learned_tasks(self) -> int:
        """The number of tasks in the train set and the validation set; labels of other tasks were left out."""
        return len({*self.train_tasks, *self.val_tasks})


@dataclass(frozen=True, slots=True)
class Metrics:
    """The quality on one validation set, of boxes, rotated boxes, masks, points or classes, depending on the task."""

    map50: float
    map50_95: float
    class_ap50: Mapping[str, float]
    images: int
    boxes: int
    detections: int  # number of detected boxes; 0: the model collapsed
    interval: tuple[float, float] | None = None  # 95% bootstrap interval of map50 over images; None: not known
    interval_50_95: tuple[float, float] | None = None  # of map50_95
    gained: tuple[float, float] | None = None  # 95% interval of map50 minus the champion's; None: not compared
    held_out: bool | None = None  # False: the model learned from these images; None: manifest of an earlier release


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature of a model, and its fit."""

    temperature: float = 1.0
    detections: int = 0  # number of detections; for multi-label images, every label of every image
    nll_before: float = 0.0  # mean negative log-likelihood at T = 1, nats
    nll_after: float = 0.0
    reason: str = ""  # why the temperature is 1, empty if it was fitted


@dataclass(frozen=True, slots=True)
class TagModel:
    """The model of a version for one control tag: its own, one carried over from its parent, or none yet."""

    from_name: str  # name of the control tag
    task: YoloTask
    classes: tuple[str, ...]
    sha256: str  # of the weights; "": there are none yet
    base_model: str
    metrics: Metrics | None
    champion_metrics: Metrics | None
    hyper_parameters: Mapping[str, Any]
    reason: str  # why it was, or was not, accepted
    calibration: Calibration = Calibration()
    class_quality: Mapping[str, float] = field(default_factory=dict)
    carried: bool = False  # the weights are the parent's
    learned: tuple[int, ...] | None = None  # all tasks from which the weights ever learned, None: not known
    lesson: str = ""  # a hash of its training data and settings, "": not known

    @property
    def temperature(self) -> float:
        """The temperature of its confidences; 1 without own weights, because the base weights are not calibrated."""
        return self.calibration.temperature if self.sha256 else 1.0


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One published training; `number` is never reused within a project."""

    project_id: int
    number: int
    name: str  # "<base>-v<number>"
    parent: int | None
    snapshot: TrainingSnapshot
    software: Mapping[str, str]
    timings: Mapping[str, float]  # seconds per stage
    created: datetime
    promoted: bool
    reason: str  # why it was, or was not, promoted
    models: tuple[TagModel, ...]  # one for each control tag, in the config's order
    stored_names: Mapping[str, str] = field(default_factory=dict)  # name -> old name, for tags renamed since

    def model_of(self, tag: ControlTag) -> TagModel | None:
        """Return the model for a tag, None if there is none or if it is for another task."""
        models = (model for model in self.models if model.from_name == tag.from_name)
        return next((model for model in models if model.sha256 and model.task == tag.task), None)

    def key_of(self, from_name: str) -> str:
        """Return the name of a tag in the store's files for this version."""
        return self.stored_names.get(from_name, from_name)

    def learned_task_ids(self, from_name: str) -> frozenset[int]:
        """Return the ids of all tasks from which a tag's model ever learned.

        If the manifest does not tell, these are the tasks of the version's own training.
        """
        learned = next((model.learned for model in self.models if model.from_name == from_name), None)
        return frozenset(self.snapshot.train_tasks if learned is None else learned)


def renamed(version: ModelVersion, tags: Sequence[ControlTag]) -> ModelVersion:
    """Return the version with its models renamed to the current tags of the label config.

    A new tag takes the model of a removed tag if both have the same task and a label in common, and if this pairing is
    the only possible one for the tag and for the model.
    """
    names = {model.from_name for model in version.models}
    controls = {name for tag in tags for name in (tag.from_name, *tag.controls)}
    fits = [
        (tag.from_name, model.from_name)
        for tag in tags
        for model in version.models
        if tag.from_name not in names and model.from_name not in controls and _fits(model, tag)
    ]
    wanted, offered = Counter(old for _, old in fits), Counter(name for name, _ in fits)
    new_names = {old: name for name, old in fits if wanted[old] == offered[name] == 1}
    models = tuple(
        replace(model, from_name=new_names.get(model.from_name, model.from_name)) for model in version.models
    )
    stored_names = {name: version.key_of(old) for old, name in new_names.items()}
    return replace(version, models=models, stored_names={**version.stored_names, **stored_names})


def _fits(model: TagModel, tag: ControlTag) -> bool:
    return bool(model.sha256) and model.task == tag.task and not set(model.classes).isdisjoint(tag.labels)
