"""The labels of a project as the data set of an experiment: images to pick from, and others to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.datasets.writer import MIN_IMAGES, LabeledImage, Split
from backend.errors import TrainingError
from backend.evaluation.basis import MIN_JUDGED_IMAGES
from backend.geometry.coordinates import clip_ring
from backend.labelstudio import label_config
from backend.loop import export
from backend.loop.base_models import tag_base_model
from backend.loop.context import Context
from backend.loop.export import YOLO
from backend.loop.exported_labels import Show, TagLabels, tag_labels
from backend.loop.served_models import project_record
from backend.types import ControlTag

TEST_SHARE = 0.2  # of the tasks, where too few random ones are held out
_WRITTEN = "written"  # an empty file, written last
_CORNERS = 4


@dataclass(frozen=True, slots=True)
class ExperimentData:
    """A data set on disk, the weights that an experiment on it starts from, and notes for people."""

    place: Path  # a data.yaml, or a folder of classes
    base_model: str
    notes: tuple[str, ...]


def write(context: Context, project_id: int, folder: Path, show: Show) -> ExperimentData:
    """Write the labels of the project's first control tag that has some; a folder that is there stays as it is.

    Raises TrainingError if there are none.
    """
    record = project_record(context, project_id)
    tags = tuple(tag for tag in label_config.parse(record.label_config) if tag.ranks)
    if (folder / _WRITTEN).is_file():  # the experiment was stopped, and goes on with the same labels
        name = (folder / _WRITTEN).read_text(encoding="utf-8")
        tag = next((tag for tag in tags if tag.from_name == name), tags[0])
        return ExperimentData(_place(folder, tag), tag_base_model(context, record, tag), ())
    with context.media.in_use():
        by_tag = tag_labels(context, record, tags, None, show)
        labels = next((labels for labels in by_tag if any(image.boxes for image in labels.split.train)), None)
        if labels is None:
            raise TrainingError("no labels to learn from", where=f"project {project_id}", fix="label some tasks first")
        labels, notes = for_experiment(labels)
        folder.mkdir(parents=True, exist_ok=True)
        export.write(frozenset({YOLO}), labels, folder)
    (folder / _WRITTEN).write_text(labels.tag.from_name, encoding="utf-8")
    others = [tag.from_name for tag in tags if tag.from_name != labels.tag.from_name]
    notes += [f"the labels of {labels.tag.from_name} are used, not those of {', '.join(others)}"] * bool(others)
    notes += [f"{len(labels.left_out)} labeled tasks are left out: `yolo-backend status` has the reasons"] * bool(
        labels.left_out
    )
    return ExperimentData(_place(folder, labels.tag), tag_base_model(context, record, labels.tag), tuple(notes))


def _place(folder: Path, tag: ControlTag) -> Path:
    return folder if tag.task == "classify" and not tag.multiple else folder / "data.yaml"


def for_experiment(labels: TagLabels) -> tuple[TagLabels, list[str]]:
    """Return the labels with a test part of their own, and notes; raises TrainingError for fewer than two tasks."""
    notes = []
    split = labels.split
    if labels.tag.task == "obb":
        parts = (tuple(filter(_has_corners, images)) for images in (split.train, split.val))
        whole = len(split.train)
        split = replace(split, train=next(parts), val=next(parts))
        notes += [f"{whole - len(split.train)} images have a turned box that leaves them, and are left out"] * (
            whole > len(split.train)
        )
    if len(split.held_out_tasks) < MIN_JUDGED_IMAGES:
        split = _fifth(split.whole().train)
        notes.append(f"fewer than {MIN_JUDGED_IMAGES} labeled tasks are held out, so a fifth of all is measured on")
    return replace(labels, split=split), notes


def _has_corners(image: LabeledImage) -> bool:
    """Return whether all turned boxes lie in the image, because others have more than four corners there."""
    return all(len(clip_ring(box.outline[0])) == _CORNERS for box in image.boxes if box.outline)


def _fifth(images: Sequence[LabeledImage]) -> Split:
    """Hold out TEST_SHARE of the tasks, in the order of a hash of their ids."""
    ids = sorted({image.task_id for image in images}, key=_order)
    if len(ids) < MIN_IMAGES:
        raise TrainingError(f"{len(ids)} labeled task, an experiment needs {MIN_IMAGES}", fix="label more tasks")
    test = set(ids[: max(1, round(TEST_SHARE * len(ids)))])
    train, val = (tuple(image for image in images if (image.task_id in test) is part) for part in (False, True))
    return Split(train, val, held_out=True)


def _order(task_id: int) -> str:
    return hashlib.sha256(str(task_id).encode()).hexdigest()
