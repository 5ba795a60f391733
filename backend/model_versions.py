"""What a training leaves behind: a model version, what it was made of, and how good it is."""

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
    """Return whether `name` is that of a weights file without any folder.

    >>> is_weights_name("yolo11n.pt"), is_weights_name("../yolo11n.pt")
    (True, False)
    """
    return _WEIGHTS_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class TrainingSnapshot:
    """The labels one training was made of; `annotations` maps annotation id to its updated_at."""

    project_id: int
    label_config_hash: str
    annotations: Mapping[int, str]
    train_tasks: tuple[int, ...]
    val_tasks: tuple[int, ...]
    random_tasks: tuple[int, ...] = ()  # labeled tasks that chance chose, not a strategy: the validation set's source

    @property
    def learned_tasks(self) -> int:
        """How many tasks the training learned or was judged by; labels of others were left out of it."""
        return len({*self.train_tasks, *self.val_tasks})


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality on one validation set, of what the task finds: boxes, rotated boxes, masks, points or classes."""

    map50: float
    map50_95: float
    class_ap50: Mapping[str, float]
    images: int
    boxes: int
    detections: int  # kept boxes; 0 means the model collapsed
    interval: tuple[float, float] | None = None  # of map50, 95%, by a bootstrap over images; None: not known
    interval_50_95: tuple[float, float] | None = None  # of map50_95
    gained: tuple[float, float] | None = None  # 95% interval of map50 over the champion's; None: not compared
    held_out: bool | None = None  # False: the model has learned from these images; None: a manifest from before


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature of one model version, and what it was fitted on."""

    temperature: float = 1.0
    detections: int = 0  # of a model that gives an image several labels: each label of each image
    nll_before: float = 0.0  # mean negative log-likelihood at T = 1, nats
    nll_after: float = 0.0
    reason: str = ""  # why the temperature is 1, empty where it was fitted


@dataclass(frozen=True, slots=True)
class TagModel:
    """What a version has for one control tag: a model of its own, its parent's carried over, or none yet."""

    from_name: str  # of the tag
    task: YoloTask
    classes: tuple[str, ...]
    sha256: str  # of its weights; "": it has none yet
    base_model: str
    metrics: Metrics | None
    champion_metrics: Metrics | None
    hyper_parameters: Mapping[str, Any]
    reason: str  # why it was, or was not, accepted
    calibration: Calibration = Calibration()
    class_quality: Mapping[str, float] = field(default_factory=dict)
    carried: bool = False  # its weights are the parent's
    learned: tuple[int, ...] | None = None  # the tasks that its weights have ever learned from, None: not known
    lesson: str = ""  # a hash of what it was trained on and how, "": not known

    @property
    def temperature(self) -> float:
        """Of its confidences; 1 for a tag without a model of its own, which its base weights answer."""
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
    stored_names: Mapping[str, str] = field(default_factory=dict)  # of tags that were renamed since: name -> old name

    def model_of(self, tag: ControlTag) -> TagModel | None:
        """Return the model for a tag, None where there is none, or for another task."""
        models = (model for model in self.models if model.from_name == tag.from_name)
        return next((model for model in models if model.sha256 and model.task == tag.task), None)

    def key_of(self, from_name: str) -> str:
        """Return the name under which the store keeps what this version has of a tag."""
        return self.stored_names.get(from_name, from_name)

    def learned_task_ids(self, from_name: str) -> frozenset[int]:
        """Return the tasks that a tag's model has ever learned from.

        Where the manifest does not say, those of the version's own training.
        """
        learned = next((model.learned for model in self.models if model.from_name == from_name), None)
        return frozenset(self.snapshot.train_tasks if learned is None else learned)


def renamed(version: ModelVersion, tags: Sequence[ControlTag]) -> ModelVersion:
    """Return a version whose models have the names of the label config's tags.

    A tag that the version does not know takes the model of a tag that is gone: one of the same task with a label in
    common, where there is one such model and no other tag that it fits.
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
