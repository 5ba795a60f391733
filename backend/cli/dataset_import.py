"""A data set that somebody has -> tasks of a Label Studio project, with its labels as annotations or predictions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from backend.cli.progress import Show
from backend.datasets import coco_reader, label_studio_export, reader
from backend.datasets.reader import LabeledFile
from backend.errors import DataError, LabelConfigError
from backend.labelstudio import label_config, task_fields
from backend.labelstudio.client.connection import LabelStudioClient
from backend.labelstudio.client.predictions import PredictionRow
from backend.simulate.annotator import annotated, upright_size
from backend.types import ControlTag, Region, Task, YoloTask

VERSION = "imported"  # model version of labels that become predictions
FILLED = ("rectanglelabels", "polygonlabels")  # the control tags that an imported data set can fill
UPLOADED = 100  # images between two steps of the bar
Kind = Literal["annotations", "predictions"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """All images of a data set, without its splits."""

    files: tuple[LabeledFile, ...]
    notes: tuple[str, ...]  # what is left out, and why


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote."""

    uploaded: int
    present: int  # images that the project had already
    labeled: int  # tasks that got labels
    notes: tuple[str, ...]


def read(path: Path, task: YoloTask) -> DataSet:
    """Read a data.yaml or its folder, a YOLO export of Label Studio, or a COCO file or its folder.

    Raises DataError naming the file and the cure for anything that cannot be used.
    """
    if path.is_dir():
        documents = [path / name for name in ("data.yaml", "result.json") if (path / name).is_file()]
        if label_studio_export.is_export(path):
            return _of_splits(label_studio_export.read(path, task))
        if not documents:
            fix = "name a data.yaml, a COCO .json, or a folder with data.yaml, classes.txt or result.json"
            raise DataError("no data set in this folder", where=str(path), fix=fix)
        path = documents[0]
    if not path.is_file():
        raise DataError("no such file or folder", where=str(path), fix="name a data.yaml or a COCO .json")
    if path.suffix.lower() == ".json":
        coco = coco_reader.read(path, task)
        return DataSet(coco.files, coco.notes)
    return _of_splits(reader.read(path, task))


def _of_splits(data: reader.YoloData) -> DataSet:
    """Return the images of all splits; an image in two of them counts once."""
    files = {file.path: file for split in (data.train, data.val, data.test) for file in split}
    return DataSet(tuple(files.values()), data.notes)


def import_dataset(
    client: LabelStudioClient, project_id: int, path: Path, kind: Kind, name: str, show: Show
) -> Imported:
    """Upload the images that the project lacks, and write the labels of tasks that have none.

    `name` is the control tag that the labels belong to; empty: the first that the data can fill. A second run goes on
    where the first ended. Raises DataError, LabelConfigError, NotFoundError for an unknown project.
    """
    show("read", "", None)
    tag = _tag(label_config.parse(client.projects.get(project_id).label_config), name)
    data = read(path, tag.task)
    _check_labels(tag, data.files)
    before = _by_name(tag, client.tasks.all(project_id))
    missing = _missing(data.files, before)
    for start in range(0, len(missing), UPLOADED):
        show("upload", f"{start} of {len(missing)} images", start / len(missing))
        client.tasks.upload_images(project_id, missing[start : start + UPLOADED])
    pairs = list(_pairs(data.files, _by_name(tag, client.tasks.all(project_id))))
    write = _annotate if kind == "annotations" else _predict
    labeled = write(client, project_id, tag, pairs, show)
    return Imported(len(missing), len(data.files) - len(missing), labeled, data.notes)


def _tag(tags: Sequence[ControlTag], name: str) -> ControlTag:
    """Return the control tag of this name, or the first that can be filled."""
    usable = [tag for tag in tags if tag.kind in FILLED]
    chosen = [tag for tag in usable if tag.from_name == name] if name else usable
    if not chosen:
        names = ", ".join(tag.from_name for tag in usable) or "none"
        problem = f"no control tag {name!r} that an imported data set can fill" if name else "no such control tag"
        raise LabelConfigError(problem, fix=f"of this project these can be filled: {names}")
    return chosen[0]


def _check_labels(tag: ControlTag, files: Sequence[LabeledFile]) -> None:
    counts = Counter(box.label for file in files for box in file.boxes)
    lacking = [label for label in counts if label not in tag.labels]
    if lacking:
        lines = " ".join(f'<Label value="{label}"/>' for label in lacking[:5])
        raise DataError(
            f"{tag.from_name} has no label for {len(lacking)} classes of the data: {', '.join(lacking[:5])}",
            where="label config of the project",
            fix=f"add {lines} to it, or rename the classes",
        )


def stored_name(name: str) -> str:
    """Return a file's name as Label Studio stores it, without the hexadecimal digits that it puts before.

    >>> stored_name("two words (1).jpg")
    'two_words_1.jpg'
    """
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _by_name(tag: ControlTag, tasks: Iterator[Task]) -> dict[str, list[int]]:
    """Return the ids of uploaded tasks by the stored names of their files, the oldest first."""
    by_name: dict[str, list[int]] = {}
    for task in tasks:
        name = PurePosixPath(str(task_fields.shown(task, tag.data_key))).name
        by_name.setdefault(name.partition("-")[2], []).append(task.id)
    return by_name


def _missing(files: Sequence[LabeledFile], present: dict[str, list[int]]) -> list[Path]:
    left = Counter({name: len(ids) for name, ids in present.items()})
    missing = []
    for file in files:
        name = stored_name(file.path.name)
        if left[name] > 0:
            left[name] -= 1
        else:
            missing.append(file.path)
    return missing


def _pairs(files: Sequence[LabeledFile], present: dict[str, list[int]]) -> Iterator[tuple[int, LabeledFile]]:
    """Yield each file with its task; of files under one name the first has the oldest task."""
    for file in files:
        ids = present.get(stored_name(file.path.name))
        if not ids:
            raise DataError(
                "Label Studio took the file, but shows no task for it", where=str(file.path), fix="run the import again"
            )
        yield ids.pop(0), file


def _annotate(
    client: LabelStudioClient, project_id: int, tag: ControlTag, pairs: Sequence[tuple[int, LabeledFile]], show: Show
) -> int:
    done = set(client.annotations.task_ids(project_id))
    waiting = [(task_id, file) for task_id, file in pairs if task_id not in done]
    for place, (task_id, file) in enumerate(waiting):
        show("label", f"{place} of {len(waiting)} tasks", place / len(waiting))
        client.annotations.create(task_id, annotated(tag, file))
    return len(waiting)


def _predict(
    client: LabelStudioClient, project_id: int, tag: ControlTag, pairs: Sequence[tuple[int, LabeledFile]], show: Show
) -> int:
    show("label", f"{len(pairs)} tasks", None)
    done = set(client.predictions.task_ids(project_id, VERSION))
    rows = (PredictionRow(task_id, 0.5, _regions(tag, file)) for task_id, file in pairs if task_id not in done)
    return client.prediction_import.run(project_id, VERSION, rows)


def _regions(tag: ControlTag, file: LabeledFile) -> tuple[Region, ...]:
    """Return the labels of an image as regions of a prediction, each with the confidence 1."""
    width, height = upright_size(file.path)
    return tuple(
        Region(
            id=item["id"],
            kind=item["type"],
            from_name=item["from_name"],
            to_name=item["to_name"],
            value=item["value"],
            score=1.0,
            original_width=width,
            original_height=height,
        )
        for item in annotated(tag, file)
    )
