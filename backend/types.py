"""The values that pass between modules: frozen, slotted dataclasses, validated once where they are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
Json = dict[str, Any]
Outcomes = Literal["objects", "one", "several"]  # what class scores are of: boxes, a choice, or several at once
YoloTask = Literal["detect", "obb", "segment", "semantic", "pose", "classify"]
Point = tuple[float, float]
Ring = tuple[Point, ...]  # a closed line; its last point is not the first again
Keypoint = tuple[float, float, int]  # x, y as shares of the image; 0 not labeled, 1 covered, 2 visible
Outline = tuple[FloatArray, ...]  # rings (k, 2) in pixels: parts and holes of one object, none where nothing is seen


@dataclass(frozen=True, slots=True)
class ControlTag:
    """One control tag of a label config that this backend can predict and learn."""

    kind: str  # LS result type, e.g. "rectanglelabels"
    from_name: str
    to_name: str
    data_key: str  # the task data field the object tag shows, e.g. "image"
    labels: tuple[str, ...]  # as written in the config, in its order
    class_to_label: Mapping[str, str]  # casefolded model class name -> label
    score_threshold: float | None = None  # None: the setting MODEL_SCORE_THRESHOLD decides
    model_path: str | None = None  # weights the config asks for, a file in MODEL_DIR
    attributes: Mapping[str, str] = field(default_factory=dict)  # remaining model_* attributes, lower-cased names
    task: YoloTask = "detect"  # what its models do
    points: tuple[str, ...] = ()  # pose: labels of the points, in the skeleton's order; `labels` are those of the boxes
    parent: str = ""  # pose: from_name of the boxes
    multiple: bool = False  # classify: an image may have several labels at once
    frame_rate: float = 0.0  # of a video, as Label Studio counts its frames, per second; 0: the tag is of images
    trainable: bool = True  # False: it keeps the model that it has
    former: str = ""  # the from_name under which a version knows it; "": its own

    @property
    def outcomes(self) -> Outcomes:
        """What the class scores of its models are of; the frames of a video are no images of a pool."""
        if self.task != "classify" or self.frame_rate:
            return "objects"
        return "several" if self.multiple else "one"

    @property
    def known_as(self) -> str:
        """The name under which its version's store knows it."""
        return self.former or self.from_name


@dataclass(frozen=True, slots=True)
class Region:
    """One predicted region, ready for Label Studio; coordinates inside `value` are percent of the image."""

    id: str
    kind: str
    from_name: str
    to_name: str
    value: Mapping[str, Any]
    score: float
    original_width: int
    original_height: int
    parent_id: str = ""  # the region above it in the tree

    def as_json(self) -> Json:
        """Return the region as Label Studio stores it in `result`."""
        above = {"parentID": self.parent_id} if self.parent_id else {}
        return {
            "id": self.id,
            "type": self.kind,
            "from_name": self.from_name,
            "to_name": self.to_name,
            "value": dict(self.value),
            "score": self.score,
            "original_width": self.original_width,
            "original_height": self.original_height,
            "image_rotation": 0,
            **above,
        }


@dataclass(frozen=True, slots=True)
class LabeledBox:
    """One training label: a label of the config and a box (x centre, y centre, width, height), all in [0, 1].

    What a task knows beyond the box stands beside it: the box is its upright hull inside the image.
    """

    label: str
    xywh: tuple[float, float, float, float]
    # As shares of the image, may leave it. obb: one ring, the four corners; masks: parts and holes, by even and odd.
    outline: tuple[Ring, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()  # pose: all points of the skeleton
    frame: int = 0  # of a video, as Label Studio counts them, from 1; 0: an image
    last: int = 0  # of a timeline, from `frame` to this one; 0: a single frame
    note: str = ""  # how it differs from what was drawn, in the plural, e.g. "turned boxes learned as ..."


@dataclass(frozen=True, slots=True)
class Nothing:
    """A region that shows nothing inside the image, and so takes nothing from what its image teaches."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tracks:
    """What makes n boxes the key frames of objects in a video, all in the frames that Label Studio counts from 1."""

    frames: IntArray  # (n,) where each box is
    objects: IntArray  # (n,) whose box it is, ascending from 0; frames ascend within each object
    enabled: BoolArray  # (n,) False: it is not seen in the frames after this one
    length: int  # of the video, frames
    rate: float  # frames per second


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image, or of one video: n boxes, C classes, D embedding dimensions."""

    width: int
    height: int
    boxes: FloatArray  # (n, 4) xyxy in pixels of the upright image
    class_probs: FloatArray  # (n, C) sigmoid scores of all classes
    confidence: FloatArray  # (n,) the top class score
    embedding: FloatArray  # (D,)
    box_variance: FloatArray | None = None  # (n, 4) DFL variance in px², None where the head has no DFL
    box_embeddings: FloatArray | None = None  # (n, D)
    rotated: FloatArray | None = None  # obb: (n, 5) x centre, y centre, width, height in pixels, radians clockwise
    outlines: tuple[Outline, ...] | None = None  # segment: n
    keypoints: FloatArray | None = None  # pose: (n, K, 3) x, y in pixels, how sure it is to be seen
    tracks: Tracks | None = None  # of a video, whose boxes are key frames; None: an image
    shape_confidence: FloatArray | None = None  # segment, semantic, pose: (n,) in [0, 1], of mask or points
    doubted_frames: IntArray | None = None  # of a video: (<= 10,) frames, the one with the highest entropy first
    video_doubt: float | None = None  # of a video, nats: mean entropy of its frames, more where objects come and go
    thumbnail: ByteArray = field(default_factory=lambda: np.zeros(0, np.uint8))  # (192,) 8 x 8 colours, (0,) not known


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of a pool: priority 0 is annotated next; `explored` marks tasks placed at random."""

    task_ids: IntArray  # (n,)
    priority: FloatArray  # (n,) in [0, 1], the quantile of the position
    acquisition: FloatArray  # (n,) the raw acquisition value, higher = sooner
    explored: BoolArray  # (n,)
    strategy: str


@dataclass(frozen=True, slots=True)
class Task:
    """A Label Studio task: its id and its raw data fields."""

    id: int
    data: Mapping[str, Any]

    def shown(self, key: str) -> Any:
        """Return what an object tag shows of it, None for nothing: a field, or as in "meta.image" one inside another.

        >>> Task(1, {"meta": {"image": "a.png"}}).shown("meta.image"), Task(1, {"a.b": 1}).shown("a.b")
        ('a.png', 1)
        """
        if key in self.data:
            return self.data[key]
        found: Any = self.data
        for name in key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True, slots=True)
class AnnotatedTask:
    """A task with the annotation that counts: ground truth first, else the newest submitted one."""

    task: Task
    annotation_id: int
    updated_at: str  # ISO 8601, as Label Studio gives it
    result: tuple[Mapping[str, Any], ...]
    ground_truth: bool = False


@dataclass(frozen=True, slots=True)
class TrainingSnapshot:
    """The labels one training was made of; `annotations` maps annotation id to its updated_at."""

    project_id: int
    label_config_hash: str
    annotations: Mapping[int, str]
    train_tasks: tuple[int, ...]
    val_tasks: tuple[int, ...]
    random_tasks: tuple[int, ...] = ()  # labeled tasks that chance chose, not a strategy: the validation set's source


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality on one validation set, of what the task finds: boxes, rotated boxes, masks, points or classes."""

    map50: float
    map50_95: float
    class_ap50: Mapping[str, float]
    images: int
    boxes: int
    detections: int  # kept boxes; 0 means the model collapsed


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
