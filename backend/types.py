"""The values that pass between modules: frozen, slotted dataclasses, validated once where they are built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
Json = dict[str, Any]
Outcomes = Literal["objects", "one", "several"]  # class scores are of boxes, a single choice, or several labels
YoloTask = Literal["detect", "obb", "segment", "semantic", "pose", "classify"]
Point = tuple[float, float]
Ring = tuple[Point, ...]  # a closed line; its last point is not the first again
Keypoint = tuple[float, float, int]  # x, y as shares of the image; 0 not labeled, 1 covered, 2 visible
Outline = tuple[FloatArray, ...]  # rings (k, 2) in pixels, the parts and holes of one object; () for an empty mask
VideoOptions = Mapping[str, float | bool | str]  # attributes of a tag that decide how a video is analysed
WHOLE = (0.5, 0.5, 1.0, 1.0)  # the box of an image, as LabeledBox.xywh
FRAME_STEP = 5  # default distance of the analysed frames of a timeline
THUMBNAIL_SIDE = 8  # pixels; with fewer, different images look alike, with more, shifted copies look different
DOUBTED_FRAMES = 10  # highest number of uncertain frames that are listed per video


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be chosen or selected in an annotation, so that Label Studio's editor shows a control tag."""

    kind: str  # visibleWhen, e.g. "choice-selected"
    control: str  # the name of the deciding control tag; "": any
    values: tuple[str, ...]  # one of these choices or labels; (): any


@dataclass(frozen=True, slots=True)
class ControlTag:
    """One control tag of a label config that this backend can predict and learn."""

    kind: str  # LS result type, e.g. "rectanglelabels"
    from_name: str
    to_name: str
    data_key: str  # field of a task's data that the object tag shows, as in `labelstudio.task_fields`
    labels: tuple[str, ...]  # as written in the config, in its order
    class_to_label: Mapping[str, str]  # folded model class name (`labelstudio.class_names`) -> label
    score_threshold: float | None = None  # None: the setting MODEL_SCORE_THRESHOLD decides
    model_path: str | None = None  # weights file in MODEL_DIR that the config names
    attributes: Mapping[str, str] = field(default_factory=dict)  # other model_* attributes, by lower-case name
    task: YoloTask = "detect"  # task of its models
    points: tuple[str, ...] = ()  # pose: labels of the points, in the skeleton's order; `labels` are of the boxes
    parent: str = ""  # pose: from_name of the boxes
    labels_from: str = ""  # name of the Labels tag beside it that has its labels; empty: its own labels
    multiple: bool = False  # classify: an image may have several labels at once
    frame_rate: float = 0.0  # video: frames per second by which Label Studio counts; 0: the tag is for images
    frame_rate_key: str = ""  # video: field of a task's data that holds the rate; "": all tasks have the same
    pages: bool = False  # a task shows several images (valueList), and `data_key` is the field with their list
    trainable: bool = True  # False: its model is never trained
    controls: Mapping[str, str] = field(default_factory=dict)  # all controls of the config: name -> lower-case tag
    conditions: tuple[Condition, ...] = ()  # all must hold before the editor shows the tag
    labels_key: str = ""  # field of a task's data with its own labels; "": all tasks have the same labels
    exact_class_to_label: Mapping[str, str] = field(default_factory=dict)  # classes whose exact spelling decides
    regions_of: str = ""  # classify: from_name of the boxes that it is about, one by one; "": the whole image
    prompts: tuple[str, ...] = ()  # what each of `labels` asks of an open-vocabulary model; empty: it asks nothing
    teachers: tuple[ControlTag, ...] = ()  # others whose regions it learns too, for the labels that both have
    answered_by_others: tuple[str, ...] = ()  # those of `labels` that it learns, and another tag answers

    @property
    def label_holder(self) -> str:
        """Return the name of the tag whose entries in results carry its labels: its own, or that of its Labels."""
        return self.labels_from or self.from_name

    @property
    def one_image(self) -> bool:
        """Whether a task is one image, and not a video or several pages."""
        return not (self.frame_rate or self.pages)

    @property
    def ranks(self) -> bool:
        """Whether its models' answers order the queue; questions about boxes leave that to the boxes."""
        return not self.regions_of

    @property
    def outcomes(self) -> Outcomes:
        """The meaning of its models' class scores; "objects" for videos, whose frames are not images of a pool."""
        if self.task != "classify" or self.frame_rate:
            return "objects"
        return "several" if self.multiple else "one"


@dataclass(frozen=True, slots=True)
class LstmOptions:
    """The sizes of an LSTM over frames, and the end of its training; the defaults are from Label Studio's example."""

    sequence_size: int = 16  # frames per sequence
    hidden_size: int = 32
    num_layers: int = 1
    epochs: int = 1000  # at most; fewer once both thresholds are reached on the training sequences
    f1_threshold: float = 0.95
    accuracy_threshold: float = 0.99


def frame_step(attributes: Mapping[str, str]) -> int:
    """Return the distance of the analysed frames of a timeline, by the attributes of its tag."""
    return max(1, int(float(attributes.get("model_every", FRAME_STEP))))


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
    page: int | None = None  # of a task with several images, from 0

    def as_json(self) -> Json:
        """Return the region as Label Studio stores it in `result`."""
        above: Json = {"parentID": self.parent_id} if self.parent_id else {}
        above |= {} if self.page is None else {"item_index": self.page}
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

    The other fields hold more exact shapes for some tasks. Then the box is the upright hull of the shape in the image.
    """

    label: str
    xywh: tuple[float, float, float, float]
    # As shares of the image, possibly outside of it. obb: one ring of four corners; masks: parts and holes (even-odd).
    outline: tuple[Ring, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()  # pose: all points of the skeleton
    frame: int = 0  # frame of a video as Label Studio counts, or page of a task, from 1; 0: an image
    last: int = 0  # timeline: last frame of the range that begins at `frame`; 0: a single frame
    note: str = ""  # difference from the drawn shape, in the plural, e.g. "turned boxes learned as ..."


@dataclass(frozen=True, slots=True)
class EmptyRegion:
    """A region that shows nothing inside the image. It is left out, and the other regions of its image are learned."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tracks:
    """The video, the objects and the frames of n boxes that are key frames; frames count from 1, as in Label Studio."""

    frames: IntArray  # (n,) frame of each box
    objects: IntArray  # (n,) object of each box, ascending from 0; frames ascend within each object
    enabled: BoolArray  # (n,) False: the object is not visible after this frame
    length: int  # frames of the video
    rate: float  # frames per second


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's prediction for one image or video: n boxes, C classes, D embedding dimensions."""

    width: int
    height: int
    boxes: FloatArray  # (n, 4) xyxy in pixels of the upright image
    class_probs: FloatArray  # (n, C) sigmoid scores of all classes
    confidence: FloatArray  # (n,) the top class score
    embedding: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # (D,), (0,) not known
    box_variance: FloatArray | None = None  # (n, 4) DFL variance in px², None where the head has no DFL
    box_embeddings: FloatArray | None = None  # (n, D)
    rotated: FloatArray | None = None  # obb: (n, 5) x centre, y centre, width, height in pixels, radians clockwise
    outlines: tuple[Outline, ...] | None = None  # segment: n
    keypoints: FloatArray | None = None  # pose: (n, K, 3) x, y in pixels, probability to be visible
    tracks: Tracks | None = None  # video: the boxes are key frames of these tracks; None: an image
    shape_confidence: FloatArray | None = None  # segment, semantic, pose: (n,) in [0, 1], of mask or points
    doubted_frames: IntArray | None = None  # video: (<= 10,) frames by falling entropy
    video_doubt: float | None = None  # video: mean entropy of its frames in nats, raised if objects come and go
    thumbnail: ByteArray = field(default_factory=lambda: np.zeros(0, np.uint8))  # (192,) 8 x 8 colours, (0,) not known
    pages: tuple[Prediction, ...] | None = None  # all pages of a task; the other fields are those of the least sure one

    @property
    def one_image(self) -> bool:
        """Whether it is of one image, and not of a video or of several pages."""
        return self.tracks is None and self.pages is None


Form = Literal["array", "rings", "tracks", "frames", "pages"]
Pooled = Literal["always", "needed", "never"]


@dataclass(frozen=True, slots=True)
class Column:
    """The description of an optional field of Prediction, as a row of COLUMNS.

    Shards, pools, parts of pools and tests read the rows. A new column needs a row, a field in Prediction and code that
    fills the field, nothing else.
    """

    name: str  # the field of Prediction
    per: Literal["image", "box"]
    shape: tuple[int | str, ...]  # of one image or one box; a letter is a length that depends on the model
    dtype: type[np.generic]  # in a shard; half precision is read as float32
    pooled: Pooled = "never"  # which pools hold it: all, those of strategies that need it, or none
    many: str = ""  # name of the array for many images in shards and pools, if it differs from `name`
    form: Form = "array"  # how a shard stores it: as one array, or in another form of `store.column_codec`
    missing: float | None = None  # value for an image without it; None: either all images have it, or none has
    flags: str = ""  # array in a shard that tells which images have it; "": either all images have it, or none has
    empty: bool = True  # whether a pool without images or boxes has it, with no rows

    @property
    def table(self) -> str:
        """The name of the array for many images."""
        return self.many or self.name

    def lengths(self, free: int) -> tuple[int, ...]:
        """Return the shape with the length `free` in place of letters."""
        return tuple(free if isinstance(length, str) else length for length in self.shape)


COLUMNS = (
    Column("embedding", "image", ("D",), np.float32, "always", many="embeddings", empty=False),
    Column("box_variance", "box", (4,), np.float32, "always", flags="has_variance"),
    Column("box_embeddings", "box", ("E",), np.float16, "needed"),
    Column("shape_confidence", "box", (), np.float32, "always"),
    Column("thumbnail", "image", (3 * THUMBNAIL_SIDE**2,), np.uint8, "always", many="thumbnails"),
    Column("video_doubt", "image", (), np.float32, "always", missing=math.nan, empty=False),
    Column("rotated", "box", (5,), np.float32),
    Column("keypoints", "box", ("K", 3), np.float32),
    Column("outlines", "box", (), np.float32, form="rings"),
    Column("tracks", "box", (3,), np.int64, form="tracks"),
    Column("doubted_frames", "image", (DOUBTED_FRAMES,), np.int64, form="frames"),
    Column("pages", "image", (), np.uint8, form="pages"),
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of a pool: the lowest priority is annotated next; `explored` marks tasks placed at random."""

    task_ids: IntArray  # (n,)
    priority: FloatArray  # (n,) in (0, 1), the quantile of the position
    acquisition: FloatArray  # (n,) the raw acquisition value, higher = sooner
    explored: BoolArray  # (n,)
    strategy: str
    late: BoolArray | None = None  # (n,) placed after the ranking was made; None: no task was


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """The hyper-parameters of one training."""

    epochs: int
    batch: int
    imgsz: int
    seed: int
    device: str
    minutes: float = 0.0  # time limit; 0: no limit


@dataclass(frozen=True, slots=True)
class Task:
    """A Label Studio task: its id and its raw data fields."""

    id: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AnnotatedTask:
    """A task with the annotation that counts: ground truth first, else the newest submitted one."""

    task: Task
    annotation_id: int
    updated_at: str  # ISO 8601, as Label Studio gives it
    result: tuple[Mapping[str, Any], ...]
    ground_truth: bool = False
    others: tuple[tuple[Mapping[str, Any], ...], ...] = ()  # results of other people, the oldest first
    other_stamps: Mapping[int, str] = field(default_factory=dict)  # annotation id -> updated_at of `others`
