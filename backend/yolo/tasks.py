"""The tasks of ultralytics, and what differs between them: classes in its code, names of weights, and the metric."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.types import ControlTag, YoloTask

SIZES = "nsmlx"  # of the models of a series
# Not the prompt-free models (-pf), because their classes are fixed.
_OPEN = re.compile(r"yolo(?P<world>v8[nsmlx])-world(v2)?|yoloe-(?P<yoloe>(v8|11|26)[nsmlx])(-seg)?")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The names of a task in ultralytics; trainer and validator are in ultralytics.models.yolo."""

    noun: str  # of its models, for people
    suffix: str  # of the names of its weights and architectures, as in yolo11n-obb.pt
    series: str = field(default="", kw_only=True)  # the only series of models with this task, "": all have it
    model: str  # class in ultralytics.nn.tasks
    head: str  # class in ultralytics.nn.modules
    trainer: str
    validator: str
    metric: str  # the attribute of the validator's metrics with the quality of the task
    quality: str = "mAP50"  # the name of the metric, for people
    labels: str = "boxes"  # the name of the labels, for people
    lacks: frozenset[str] = frozenset()  # fields of a Pool that its models cannot fill


RECIPES: Mapping[YoloTask, Recipe] = {
    "detect": Recipe(
        noun="detection",
        suffix="",
        model="DetectionModel",
        head="Detect",
        trainer="detect.DetectionTrainer",
        validator="detect.DetectionValidator",
        metric="box",
        lacks=frozenset({"shape_confidence"}),
    ),
    "obb": Recipe(
        noun="OBB",
        suffix="-obb",
        model="OBBModel",
        head="OBB",
        trainer="obb.OBBTrainer",
        validator="obb.OBBValidator",
        metric="box",
        quality="OBB mAP50",
        lacks=frozenset({"shape_confidence"}),
    ),
    "segment": Recipe(
        noun="segmentation",
        suffix="-seg",
        model="SegmentationModel",
        head="Segment",
        trainer="segment.SegmentationTrainer",
        validator="segment.SegmentationValidator",
        metric="seg",
        quality="mask mAP50",
        labels="outlines",
    ),
    "semantic": Recipe(
        noun="semantic segmentation",
        suffix="-sem",
        series="yolo26",
        model="SemanticSegmentationModel",
        head="SemanticSegment",
        trainer="semantic.SemanticSegmentationTrainer",
        validator="semantic.SemanticSegmentationValidator",
        metric="miou",
        quality="mIoU",
        labels="masks",
        lacks=frozenset({"box_variance", "committee"}),
    ),
    "pose": Recipe(
        noun="pose",
        suffix="-pose",
        model="PoseModel",
        head="Pose",
        trainer="pose.PoseTrainer",
        validator="pose.PoseValidator",
        metric="pose",
        quality="pose mAP50",
        labels="objects",
    ),
    "classify": Recipe(
        noun="classification",
        suffix="-cls",
        model="ClassificationModel",
        head="Classify",
        trainer="classify.ClassificationTrainer",
        validator="classify.ClassificationValidator",
        metric="top1",
        quality="top-1 accuracy",
        labels="labels",
        lacks=frozenset({"box_variance", "shape_confidence"}),
    ),
}


def details(tag: ControlTag) -> Mapping[str, Any]:
    """Return the entries of a task's data.yaml beside images and names."""
    if tag.task == "classify":
        return {"multiple": tag.multiple}
    if tag.task == "pose":
        return {"kpt_shape": [len(tag.points), 3], **_mirror(tag.points)}
    return {}


def _mirror(points: Sequence[str]) -> Mapping[str, Any]:
    """Return `flip_idx`: for each point, the point that it becomes in a mirror, by "left" and "right" in their names.

    Without such names the result is empty, and images are not mirrored.

    >>> _mirror(["nose", "left_eye", "right_eye"]), _mirror(["nose", "tail"])
    ({'flip_idx': [0, 2, 1]}, {})
    """
    folded = [point.casefold() for point in points]
    swapped = [point.replace("left", "\0").replace("right", "left").replace("\0", "right") for point in folded]
    if swapped == folded or not set(swapped) <= set(folded):
        return {}
    return {"flip_idx": [folded.index(point) for point in swapped]}


def weights_name(name: str, task: YoloTask) -> str:
    """Return the name of the weights for a task that correspond to weights for boxes.

    >>> weights_name("yolo11n.pt", "obb"), weights_name("yolo11n-obb.pt", "obb"), weights_name("yolo11n.pt", "detect")
    ('yolo11n-obb.pt', 'yolo11n-obb.pt', 'yolo11n.pt')
    >>> weights_name("yolo11s.pt", "semantic")
    'yolo26s-sem.pt'
    >>> weights_name("yoloe-11s-seg.pt", "detect"), weights_name("yolov8s-worldv2.pt", "segment")
    ('yoloe-11s-seg.pt', 'yolov8s-seg.pt')
    """
    if is_open_vocabulary(name):
        has_task = task == "detect" or (task == "segment" and task_named(name) == task)
        return name if has_task else weights_name(closed_name(name), task)
    path, recipe = Path(name), RECIPES[task]
    if path.stem.endswith(recipe.suffix):
        return name
    size = path.stem[-1] if path.stem[-1] in SIZES else SIZES[0]
    return f"{recipe.series + size if recipe.series else path.stem}{recipe.suffix}{path.suffix}"


def is_open_vocabulary(name: str) -> bool:
    """Return whether weights have the name of a YOLO-World or YOLOE model, whose classes are prompts.

    >>> [is_open_vocabulary(name) for name in ("yolov8s-worldv2.pt", "yoloe-26n-seg.pt", "yoloe-11s-seg-pf.pt")]
    [True, True, False]
    """
    return _OPEN.fullmatch(Path(name).stem) is not None


def closed_name(name: str) -> str:
    """Return the name of the weights for boxes with the layers of an open-vocabulary model, but classes of their own.

    >>> closed_name("yolov8s-worldv2.pt"), closed_name("yoloe-11s-seg.pt"), closed_name("yoloe-v8m-seg.pt")
    ('yolov8s.pt', 'yolo11s.pt', 'yolov8m.pt')
    """
    matched = _OPEN.fullmatch(Path(name).stem)
    return f"yolo{matched['world'] or matched['yoloe']}{Path(name).suffix}" if matched else name


def task_named(name: str) -> YoloTask:
    """Return the task of weights by their name.

    >>> task_named("yolo11n-seg.pt"), task_named("yolo11n.pt")
    ('segment', 'detect')
    """
    stem = Path(name).stem
    return next((task for task, recipe in RECIPES.items() if recipe.suffix and stem.endswith(recipe.suffix)), "detect")


def quality(tag: ControlTag) -> str:
    """Return the name of the metric of a control tag; if images may have several classes, it is the mean AP."""
    return "mAP" if tag.multiple else RECIPES[tag.task].quality


def example(task: YoloTask) -> str:
    """Return the name of weights for a task.

    >>> example("obb")
    'yolo11n-obb.pt'
    """
    return weights_name("yolo11n.pt", task)
