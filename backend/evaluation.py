"""Weights -> their quality on validation images, measured as ultralytics does, classes matched by name."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from backend import classifying, semantic
from backend.inference import BATCH, KEEP_CONFIDENCE
from backend.types import YoloTask
from backend.versions import Metrics
from backend.yolo_models import load_model, select_device, task_of, yolo_class
from backend.yolo_tasks import RECIPES


def evaluate(weights: Path, data_yaml: Path, imgsz: int, device: str) -> Metrics:
    """Return the quality of a model on the `val` split of a data set.

    The model's classes are matched to the data's by name, so versions from before and after a change of labels compare:
    a class the model lacks gets AP 0, a class the data lacks is ignored. mAP is over the classes with boxes in `val`,
    measured as ultralytics does (confidence >= 0.001), on what the model's task finds; the data set must be one for
    this task. Raises ModelError as `load_model` does.
    """
    model = load_model(weights)
    task = task_of(model) or "detect"
    if task == "classify":
        return classifying.evaluate(model, data_yaml, imgsz, device)
    if task == "semantic":
        return semantic.evaluate(model, data_yaml, imgsz, device)
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
    found = getattr(validator.metrics, RECIPES[task].metric)
    ap50 = zip(found.ap_class_index, found.ap50, strict=True)
    return Metrics(
        map50=float(found.map50),
        map50_95=float(found.map),
        class_ap50={validator.names[index]: float(ap) for index, ap in ap50},
        images=validator.seen,
        boxes=int(validator.metrics.nt_per_class.sum()),
        detections=validator.detections,
    )


@functools.cache
def _validator_class(task: YoloTask) -> Any:
    """Return ultralytics' validator of a task with the model's classes renumbered to those of the data."""
    import torch

    validator: Any = yolo_class(RECIPES[task].validator)

    class ByName(validator):
        def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
            self.names = self.data["names"]  # with fewer names than the data it skips the labels of the others
            return super().get_dataloader(dataset_path, batch_size)

        def init_metrics(self, model: Any) -> None:
            super().init_metrics(model)
            self.names = self.metrics.names = self.data["names"]
            number = {name: index for index, name in self.names.items()}
            self.to_data = torch.tensor([number.get(model.names[i], -1) for i in range(len(model.names))])
            self.detections = 0

        def postprocess(self, preds: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = super().postprocess(preds)
            for boxes in found:
                boxes["cls"] = self.to_data.to(boxes["cls"].device)[boxes["cls"].long()].float()
                known = boxes["cls"] >= 0
                boxes |= {key: value[known] for key, value in boxes.items()}
                self.detections += int((boxes["conf"] >= KEEP_CONFIDENCE).sum())
            return found

    return ByName
