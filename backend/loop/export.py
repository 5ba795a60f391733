"""What people take away from a project: weights, and its labels as a data set, in a folder with a datasheet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from backend import __version__
from backend.datasets import coco, datasheet, image_crops, image_folder, writer
from backend.datasets.coco import CocoImage
from backend.datasets.datasheet import Sheet
from backend.datasets.writer import LabeledImage
from backend.errors import DataError, NotFoundError, SettingError
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.loop.exported_labels import Show, TagLabels, tag_labels
from backend.loop.served_models import project_record
from backend.model_versions import ModelVersion, renamed
from backend.policy import region_crops
from backend.store.store import ProjectRecord
from backend.types import ControlTag
from backend.yolo import onnx_export
from backend.yolo.tasks import details

WEIGHTS, ONNX, YOLO, COCO = "weights", "onnx", "yolo", "coco"
KINDS = (WEIGHTS, ONNX, YOLO, COCO)
DATASHEET = "datasheet.md"


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What to export: `number` is a version, None the labels of now with the weights of the serving version."""

    project_id: int
    folder: Path
    kinds: frozenset[str]
    number: int | None = None


def kinds_of(text: str) -> frozenset[str]:
    """Return the kinds in a comma list; raises SettingError for an unknown one, and for none.

    >>> sorted(kinds_of("yolo, coco"))
    ['coco', 'yolo']
    """
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if not names or (unknown := sorted(names - set(KINDS))):
        problem = f"unknown kind {unknown[0]!r}" if names else "no kind of export"
        raise SettingError(problem, where="--what", fix=f"name some of {', '.join(KINDS)}, with commas between")
    return names


def export(context: Context, order: ExportOrder, show: Show) -> tuple[str, ...]:
    """Write the folder; return a line for each thing that was written, or that is not there.

    Raises SettingError for a folder that is not empty, NotFoundError for an unknown version, ModelError if ONNX files
    cannot be written, TrainingError if no labeled task can be read.
    """
    if order.folder.exists() and (not order.folder.is_dir() or any(order.folder.iterdir())):
        fix = "name a new folder: nothing is overwritten"
        raise SettingError("the folder is not empty", where=str(order.folder), fix=fix)
    if ONNX in order.kinds:
        onnx_export.require_exporter()
    record = project_record(context, order.project_id)
    tags = label_config.parse(record.label_config)
    work = _RunningExport(context, order, record, tags, _version(context, order, tags), show)
    lines = _weights(work) if order.kinds & {WEIGHTS, ONNX} else []
    if order.kinds & {YOLO, COCO}:
        with context.media.in_use():
            lines += _data(work)
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class _RunningExport:
    """An export that is under way."""

    context: Context
    order: ExportOrder
    record: ProjectRecord
    tags: Sequence[ControlTag]
    version: ModelVersion | None  # of the weights, with the current names of the tags
    show: Show

    def folder(self, tag: ControlTag) -> Path:
        """Return the folder of a tag, and make it."""
        folder = self.order.folder / image_folder.folder_of(tag.from_name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _version(context: Context, order: ExportOrder, tags: Sequence[ControlTag]) -> ModelVersion | None:
    """Return the version of the weights, with the current names of the tags."""
    store, project_id = context.store, order.project_id
    version = (
        store.version(project_id, order.number)
        if order.number
        else store.serving(project_id) or store.current(project_id)
    )
    if version is None and order.kinds <= {WEIGHTS, ONNX}:
        fix = f"train one: yolo-backend train {project_id}; or export the labels alone: --what yolo,coco"
        raise NotFoundError(f"project {project_id} has no version yet", fix=fix)
    return renamed(version, tags) if version else None


# Weights


def _weights(work: _RunningExport) -> list[str]:
    kinds, version = work.order.kinds, work.version
    lines = []
    for tag in work.tags:
        model = version.model_of(tag) if version else None
        if version is None or model is None:
            lines.append(f"{tag.from_name}: no weights, because no version has a model of it yet")
            continue
        weights = work.context.store.weights(version, tag.from_name)
        place = work.folder(tag) / f"{version.name}.pt"
        if WEIGHTS in kinds:
            work.show("weights", tag.from_name, None)
            shutil.copyfile(weights, place)
            lines.append(str(place))
        if ONNX in kinds:
            work.show("ONNX", tag.from_name, None)
            settings = region_crops.model_settings(work.context.project_settings(work.record), tag)
            onnx_export.export(weights, place.with_suffix(".onnx"), settings.imgsz)
            lines.append(str(place.with_suffix(".onnx")))
    return lines


# Labels


def _data(work: _RunningExport) -> list[str]:
    context, order = work.context, work.order
    of_version = work.version if order.number else None
    work.show("labels", "", None)
    parts = tag_labels(context, work.record, work.tags, of_version, work.show)
    lines, sheets = [], []
    for place, labels in enumerate(parts):
        work.show("files", labels.tag.from_name, place / len(parts))
        with TemporaryDirectory() as crops:
            if labels.tag.regions_of:
                labels = replace(labels, split=image_crops.cut_split(labels.split, Path(crops)))
            written, notes = write(order.kinds, labels, work.folder(labels.tag))
        lines += [str(path) for path in written]
        tag, split = labels.tag, labels.split
        sheets.append(Sheet(tag.from_name, tag.task, tag.labels, split, labels.left_out, labels.reduced, notes))
    title = context.label_studio.projects.get(order.project_id).title
    facts = {
        "project": f"{order.project_id}, {title}",
        "Label Studio": context.label_studio.url,
        "labels of": f"version {of_version.name}" if of_version else "now",
        "exported": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by yolo-backend {__version__}",
    }
    sheet = order.folder / DATASHEET
    sheet.write_text(datasheet.render(f"Data set of project {order.project_id}", facts, tuple(sheets)), "utf-8")
    return [*lines, str(sheet)]


def write(kinds: frozenset[str], labels: TagLabels, folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Write the labels of one tag; return the main files, and notes for the datasheet.

    COCO's documents name the same image files as YOLO's data set. Raises DataError if no image is left.
    """
    tag, split = labels.tag, labels.split
    if not split.train:
        raise DataError("no labeled image is left", where=tag.from_name, fix="see the reasons in `yolo-backend status`")
    notes: list[str] = []
    if tag.task == "classify" and not tag.multiple:
        places = image_folder.write(split, tag.labels, folder)
        unplaced = sum(image.name not in places for images in split.parts.values() for image in images)
        notes += [f"{unplaced} images have no class, so they are in no folder"] * bool(unplaced)
        notes.append(
            "Ultralytics numbers the classes of folders by their names; the numbers above are the label config's"
        )
        paths = [folder / "train"]
    else:
        paths = [writer.write(split, tag.labels, folder, tag.task, details(tag), portable=True)]
        places = {
            image.name: writer.image_path(image, part) for part, images in split.parts.items() for image in images
        }
        if YOLO not in kinds:  # the images are COCO's
            shutil.rmtree(folder / "labels")
            paths.pop().unlink()
    if COCO in kinds:
        for part, images in split.parts.items():
            document = coco.document(_coco_images(images, places, folder), tag, f"{tag.from_name}, {part}")
            path = folder / f"coco-{part}.json"
            path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
            paths.append(path)
    return paths, tuple(notes)


def _coco_images(images: Sequence[LabeledImage], places: Mapping[str, str], folder: Path) -> list[CocoImage]:
    listed = []
    for image in images:
        if image.name in places:
            with Image.open(folder / places[image.name]) as opened:  # reads the header only
                size = opened.size
            listed.append(CocoImage(places[image.name], *size, image.task_id, image.frame, image.boxes))
    return listed
