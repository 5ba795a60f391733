"""The scripted annotator: knows the true boxes of a data set's images and answers tasks with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import PurePosixPath

from backend import geometry
from backend.errors import NotFoundError
from backend.types import ControlTag, Json, LabeledBox, Task
from backend.yolo_data import LabeledFile


class Oracle:
    """True boxes by image file name."""

    def __init__(self, files: Iterable[LabeledFile]) -> None:
        self._boxes = {file.path.name: file.boxes for file in files}

    def answer(self, tag: ControlTag, task: Task) -> list[Json]:
        """Return the annotation result an honest annotator would submit for `task`."""
        return as_result(tag, self.boxes(tag, task))

    def boxes(self, tag: ControlTag, task: Task) -> tuple[LabeledBox, ...]:
        """Return the true boxes of a task; Label Studio puts "<8 hex digits>-" before an uploaded file's name."""
        uploaded = PurePosixPath(str(task.data[tag.data_key])).name
        name = uploaded if uploaded in self._boxes else uploaded.partition("-")[2]
        if name not in self._boxes:
            raise NotFoundError(f"no true boxes are known for {uploaded}", where=f"task {task.id}")
        return self._boxes[name]


def as_result(tag: ControlTag, boxes: Iterable[LabeledBox]) -> list[Json]:
    """Return boxes as the regions Label Studio's editor would submit."""
    return [_region(tag, box) for box in boxes]


def _region(tag: ControlTag, box: LabeledBox) -> Json:
    x, y, width, height = geometry.normalised_to_percent(box.xywh)
    return {
        "id": uuid.uuid4().hex[:10],
        "type": tag.kind,
        "from_name": tag.from_name,
        "to_name": tag.to_name,
        "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, tag.kind: [box.label]},
        "origin": "manual",
    }
