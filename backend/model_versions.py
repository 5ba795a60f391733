"""What a training leaves behind: a model version, what it was made of, and how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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

    from_name: str  # of the tag; "" in manifests from before there were several: the config's first
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
    """One published training; `number` is never reused within a project.

    It has a model for each control tag of the label config; that of the first tag is told of in its own fields.
    """

    project_id: int
    number: int
    name: str  # "<base>-v<number>"
    sha256: str
    base_model: str
    parent: int | None
    classes: tuple[str, ...]
    snapshot: TrainingSnapshot
    metrics: Metrics | None
    champion_metrics: Metrics | None
    hyper_parameters: Mapping[str, Any]
    software: Mapping[str, str]
    timings: Mapping[str, float]  # seconds per stage
    created: datetime
    promoted: bool
    reason: str  # why it was, or was not, promoted
    calibration: Calibration = Calibration()
    class_quality: Mapping[str, float] = field(default_factory=dict)  # PPAL's, of the classes matched in validation
    task: YoloTask = "detect"
    from_name: str = ""
    carried: bool = False
    learned: tuple[int, ...] | None = None
    lesson: str = ""
    others: tuple[TagModel, ...] = ()

    @property
    def models(self) -> tuple[TagModel, ...]:
        """All its models, that of the first control tag first."""
        return (TagModel(**{each.name: getattr(self, each.name) for each in fields(TagModel)}), *self.others)

    def known_tasks(self, tag: str = "") -> frozenset[int]:
        """Return the tasks that a tag's model ("": the first's) has ever learned from.

        Where the manifest does not say, those of the version's own training.
        """
        learned = next((model.learned for model in self.models if model.from_name == (tag or self.from_name)), None)
        return frozenset(self.snapshot.train_tasks if learned is None else learned)

    def place_of(self, tag: ControlTag, *, first: bool) -> str:
        """Return a tag's name in the store: "" for the version's first one; `first`: of the config's tags."""
        name = self._name_of(tag)
        leads = self.from_name == name if self.from_name else first
        return "" if leads else name

    def model_of(self, tag: ControlTag, *, first: bool) -> TagModel | None:
        """Return the model for a tag, None where there is none, or for another task; `first`: of the config's tags."""
        name = self._name_of(tag)
        known = (each for each in self.models if each.from_name == name or (first and not each.from_name))
        return next((each for each in known if each.sha256 and each.task == tag.task), None)

    def _name_of(self, tag: ControlTag) -> str:
        known = {model.from_name for model in self.models if model.from_name}
        return tag.former if tag.former in known and tag.from_name not in known else tag.from_name
