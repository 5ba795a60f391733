"""The quality of weights on the validation set, measured as ultralytics does, with classes matched by name."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.evaluation.bootstrap import Measured, measured
from backend.evaluation.samples import Matches, Mean, places, summed, tasks_of
from backend.model_versions import Metrics
from backend.types import BoolArray, FloatArray, YoloTask
from backend.yolo import classifier_quality, semantic_segmentation
from backend.yolo.detector import BATCH, KEEP_CONFIDENCE
from backend.yolo.runtime import load_model, select_device, task_of, yolo_class
from backend.yolo.tasks import RECIPES

LOWEST = 0.001  # ultralytics measures mAP with all detections from this confidence on
_OVERLAPS = 10  # IoU thresholds of mAP50-95; the first is that of mAP50
_RIGHT = {"box": "tp", "seg": "tp_m", "pose": "tp_p"}  # metric -> ultralytics' key for which detections are right


def evaluate(weights: Path, data_yaml: Path, imgsz: int, device: str) -> Metrics:
    """Return the metrics of `measure` alone."""
    return measure(weights, data_yaml, imgsz, device).metrics


def measure(weights: Path, data_yaml: Path, imgsz: int, device: str) -> Measured:
    """Return the quality of a model on the `val` split of a data set, and the values per image for a bootstrap.

    The model's classes are matched to those of the data by name, so that versions before and after a change of labels
    can be compared. A class that the model lacks gets AP 0, a class that the data lack is ignored. mAP is the mean over
    the classes with boxes in `val`, measured as ultralytics does (confidence >= LOWEST). The data set must be for the
    model's task. Raises ModelError as `load_model` does.
    """
    model = load_model(weights)
    task = task_of(model) or "detect"
    if task == "classify":
        return classifier_quality.measure(model, data_yaml, imgsz, device)
    if task == "semantic":
        return semantic_segmentation.measure(model, data_yaml, imgsz, device)
    with tempfile.TemporaryDirectory() as folder:
        validator = _validator_class(task)(
            args={
                "mode": "val",
                "task": task,
                "data": str(data_yaml),
                "split": "val",
                "rect": True,
                "imgsz": imgsz,
                "batch": BATCH,
                "device": str(select_device(device)),
                "workers": 0,
                "plots": False,
                "verbose": False,
                "save_dir": folder,
            }
        )
        validator(model=model)
    task_metrics = getattr(validator.metrics, RECIPES[task].metric)
    ap50 = zip(task_metrics.ap_class_index, task_metrics.ap50, strict=True)
    metrics = Metrics(
        map50=float(task_metrics.map50),
        map50_95=float(task_metrics.map),
        class_ap50={validator.names[index]: float(ap) for index, ap in ap50},
        images=validator.seen,
        boxes=int(validator.metrics.nt_per_class.sum()),
        detections=validator.detections,
    )
    by_overlap = tuple(_matches(validator.matched, len(validator.names), place) for place in range(_OVERLAPS))
    tasks = tasks_of([image.name for image in validator.matched])
    return measured(metrics, by_overlap[0], Mean(by_overlap), tasks=tasks)


@dataclass(frozen=True, slots=True)
class _Image:
    """The k detections and the l labels of one image."""

    name: str
    confidence: FloatArray  # (k,)
    classes: FloatArray  # (k,)
    right: BoolArray  # (k, 10) whether a detection is right at IoU >= .5, .55, ... .95
    labels: FloatArray  # (l,) classes


def _matches(images: Sequence[_Image], classes: int, overlap: int) -> Matches:
    """Return the matches of detections and labels at one of the IoU thresholds."""
    place, size = places([image.name for image in images])
    labels = [np.bincount(image.labels.astype(np.int64), minlength=classes) for image in images]
    return Matches(
        images=np.repeat(place, [len(image.right) for image in images]),
        classes=np.concatenate([image.classes for image in images]).astype(np.int64),
        confidence=np.concatenate([image.confidence for image in images]),
        right=np.concatenate([image.right[:, overlap] for image in images]),
        labels=summed(np.array(labels), place, size).astype(np.int64),
    )


@functools.cache
def _validator_class(task: YoloTask) -> Any:
    """Return ultralytics' validator of a task, changed to renumber the model's classes to those of the data."""
    import torch

    validator: Any = yolo_class(RECIPES[task].validator)

    class ByName(validator):
        """A validator that matches classes by name."""

        def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
            """Return the images and labels, with all names of the data."""
            self.names = self.data["names"]  # with fewer names, ultralytics would skip labels
            return super().get_dataloader(dataset_path, batch_size)

        def init_metrics(self, model: Any) -> None:
            """Number the classes of the model like those of the data, -1 for a class that the data lack."""
            super().init_metrics(model)
            self.names = self.metrics.names = self.data["names"]
            number = {name: index for index, name in self.names.items()}
            self.to_data = torch.tensor([number.get(model.names[i], -1) for i in range(len(model.names))])
            self.detections = 0
            self.matched: list[_Image] = []

        def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
            """Keep the matches of each image beside ultralytics' own metrics."""
            super().update_metrics(preds, batch)
            stats, right = self.metrics.stats, _RIGHT[RECIPES[task].metric]
            for place in range(-len(preds), 0):
                name = Path(batch["im_file"][place]).stem
                hits = stats[right][place].astype(np.bool_)
                confidence, classes, labels = (stats[key][place] for key in ("conf", "pred_cls", "target_cls"))
                self.matched.append(_Image(name, confidence, classes, hits, labels))

        def postprocess(self, preds: Any) -> list[dict[str, Any]]:
            """Return the detections of each image with the class numbers of the data, without its other classes."""
            detections: list[dict[str, Any]] = super().postprocess(preds)
            for boxes in detections:
                boxes["cls"] = self.to_data.to(boxes["cls"].device)[boxes["cls"].long()].float()
                in_data = boxes["cls"] >= 0
                boxes |= {key: value[in_data] for key, value in boxes.items()}
                self.detections += int((boxes["conf"] >= KEEP_CONFIDENCE).sum())
            return detections

    return ByName
