"""An exported project is read back: every kind of control tag, a video, a version, and odd labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import image_folder, reader
from backend.datasets.reader import LabeledFile
from backend.errors import BackendError, SettingError, TrainingError
from backend.loop import export
from backend.loop.context import Context
from backend.loop.export import COCO, WEIGHTS, YOLO, ExportOrder
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import ControlTag, Json, LabeledBox, YoloTask
from tests import clips, drawings, kinds, squares
from tests.clips import Mover
from tests.kinds import KINDS, Kind, assert_same, drawn
from tests.loop.training import test_region_choices as region_answers
from tests.support import CONFIG, TWO_TAGS, ImageSite, open_context, publish

pytestmark = pytest.mark.label_studio

PICTURES = 4
DATA = frozenset({YOLO, COCO})
VIDEO = (
    '<View><Labels name="labels" toName="video"><Label value="red"/><Label value="blue"/></Labels>'
    '<Video name="video" value="$video" frameRate="25"/><VideoRectangle name="box" toName="video"/></View>'
)
TIMELINE = (
    '<View><TimelineLabels name="state" toName="video"><Label value="open"/><Label value="shut"/></TimelineLabels>'
    '<Video name="video" value="$video" frameRate="25"/></View>'
)


def unseen(*_: object) -> None:
    """Show no progress."""


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Context]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        yield context


def project_of(context: Context, config: str) -> int:
    project = context.label_studio.projects.create("export", config)
    context.store.save_project(ProjectRecord(project, config, "", "", "", ""))
    return project


def labels_of(files: tuple[LabeledFile, ...]) -> dict[str, tuple[LabeledBox, ...]]:
    return {file.path.stem: file.boxes for file in files}


@pytest.mark.parametrize("name", KINDS)
def test_labels_of_every_kind_are_read_back(name: str, studio: Context, tmp_path: Path) -> None:
    kind = KINDS[name]
    tag, project = kind.tag(), project_of(studio, kind.label_config())
    pictures = drawings.pictures(tmp_path, kind.draw, PICTURES, seed=0)
    studio.label_studio.tasks.upload_images(project, [picture.path for picture in pictures])
    true: dict[str, tuple[LabeledBox, ...]] = {}
    for task in studio.label_studio.tasks.unlabeled(project):
        (picture,) = [picture for picture in pictures if str(task.data["image"]).endswith(picture.path.name)]
        true[str(task.id)] = drawn(tag, picture)
        studio.label_studio.annotations.create(task.id, kind.annotate(tag, true[str(task.id)]))
    lines = export.export(studio, ExportOrder(project, tmp_path / "out", DATA), unseen)
    folder = tmp_path / "out" / tag.from_name
    assert str(tmp_path / "out" / "datasheet.md") in lines
    if single(tag) and not (folder / "val").exists():  # a hash of the ids decides whether a picture is held out
        (folder / "val").symlink_to(folder / "train")
    data = image_folder.read(folder) if single(tag) else reader.read(folder / "data.yaml", reading_task(kind))
    files = (*data.train, *data.val)
    assert set(labels_of(files)) == set(true)
    for stem, boxes in labels_of(files).items():
        if tag.task in ("detect", "classify", "pose"):
            assert_same(boxes, true[stem])
        assert sorted(box.label for box in boxes) == sorted(box.label for box in true[stem])
    check_coco(folder, tag, true)


def single(tag: ControlTag) -> bool:
    return tag.task == "classify" and not tag.multiple


def reading_task(kind: Kind) -> YoloTask:
    return "segment" if kind.task == "semantic" else kind.task  # the lines are the same


def check_coco(folder: Path, tag: ControlTag, true: dict[str, tuple[LabeledBox, ...]]) -> None:
    document = json.loads((folder / "coco-train.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == dict(enumerate(tag.labels, 1))
    images = {image["id"]: image for image in document["images"]}
    for image in images.values():
        with Image.open(folder / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"]) == drawings.SIZE
    labels: dict[str, list[Json]] = {}
    for annotation in document["annotations"]:
        labels.setdefault(str(images[annotation["image_id"]]["task_id"]), []).append(annotation)
    for task_id, regions in labels.items():
        for annotation, box in zip(regions, true[task_id], strict=True):
            assert names[annotation["category_id"]] == box.label
            x, y, width, height = annotation["bbox"]
            sizes = np.array([*drawings.SIZE, *drawings.SIZE])
            expected = np.array(box.xywh) * sizes
            np.testing.assert_allclose([x + width / 2, y + height / 2, width, height], expected, atol=0.02)
            if len(box.outline) > 1:
                assert annotation["area"] == int(kinds.pixels(box).sum())


def test_frames_of_videos_are_images(studio: Context, images: ImageSite, tmp_path: Path) -> None:
    project = project_of(studio, VIDEO)
    clips.write(images.folder / "a.avi", [Mover("red", (20, 20), (1, 0), (30, 30), 0)], 20, (160, 120))
    studio.label_studio.http.send("POST", f"/api/projects/{project}/import", [{"video": f"{images.url}/a.avi"}])
    (task,) = studio.label_studio.tasks.unlabeled(project)
    sequence = [
        {
            "frame": frame,
            "enabled": True,
            "rotation": 0,
            "x": 10,
            "y": 10,
            "width": 20,
            "height": 20,
            "time": frame / 25,
        }
        for frame in (1, 11)
    ]
    value = {"sequence": sequence, "framesCount": 20, "duration": 0.8, "labels": ["red"]}
    region = {"id": "a", "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}
    studio.label_studio.annotations.create(task.id, [region])
    export.export(studio, ExportOrder(project, tmp_path / "out", DATA), unseen)
    data = reader.read(tmp_path / "out" / "box" / "data.yaml")
    assert set(labels_of(data.train)) == {f"{task.id}-1", f"{task.id}-11"}
    document = json.loads((tmp_path / "out" / "box" / "coco-train.json").read_text())
    assert [image["frame"] for image in document["images"]] == [1, 11]


def test_sampled_frames_of_a_timeline_lie_in_folders_of_their_class(
    studio: Context, images: ImageSite, tmp_path: Path
) -> None:
    project = project_of(studio, TIMELINE)
    clips.write(images.folder / "b.avi", [Mover("red", (20, 20), (1, 0), (30, 30), 0)], 40, (160, 120))
    studio.label_studio.http.send("POST", f"/api/projects/{project}/import", [{"video": f"{images.url}/b.avi"}])
    (task,) = studio.label_studio.tasks.unlabeled(project)
    value = {"ranges": [{"start": 1, "end": 20}], "timelinelabels": ["open"]}
    region = {"id": "a", "type": "timelinelabels", "from_name": "state", "to_name": "video", "value": value}
    studio.label_studio.annotations.create(task.id, [region])
    export.export(studio, ExportOrder(project, tmp_path / "out", DATA), unseen)
    document = json.loads((tmp_path / "out" / "state" / "coco-train.json").read_text())
    images_by_id = {image["id"]: image for image in document["images"]}
    frames = {images_by_id[annotation["image_id"]]["frame"] for annotation in document["annotations"]}
    assert frames
    assert max(frames) <= 20
    assert all((tmp_path / "out" / "state" / image["file_name"]).is_file() for image in images_by_id.values())


def test_each_control_tag_has_a_folder(studio: Context, images: ImageSite, tmp_path: Path) -> None:
    project = project_of(studio, TWO_TAGS)
    urls = [{"image": images.add(f"{number}.png", number)} for number in range(2)]
    studio.label_studio.http.send("POST", f"/api/projects/{project}/import", urls)
    for task in studio.label_studio.tasks.unlabeled(project):
        studio.label_studio.annotations.create(task.id, [box("cat")])
    export.export(studio, ExportOrder(project, tmp_path / "out", frozenset({COCO})), unseen)
    counts = [
        sum(len(json.loads(path.read_text())["annotations"]) for path in (tmp_path / "out" / tag).glob("coco-*.json"))
        for tag in ("label", "second")
    ]
    assert counts == [2, 0]
    assert not (tmp_path / "out" / "label" / "data.yaml").exists()
    sheet = (tmp_path / "out" / "datasheet.md").read_text()
    assert "## label (detect)" in sheet
    assert "## second (detect)" in sheet


def test_boxes_with_an_answer_are_exported_as_crops_in_folders_of_their_answers(
    studio: Context, images: ImageSite, tmp_path: Path
) -> None:
    project = studio.label_studio.projects.create("answers", region_answers.CONFIG)
    studio.store.save_project(ProjectRecord(project, region_answers.CONFIG, '{"REGION_CHOICES": true}', "", "", ""))
    (drawn_squares,) = squares.squares(images.folder, 1, seed=1)
    url = {"image": f"{images.url}/{drawn_squares.path.name}"}
    studio.label_studio.http.send("POST", f"/api/projects/{project}/import", [url])
    (task,) = studio.label_studio.tasks.unlabeled(project)
    studio.label_studio.annotations.create(task.id, region_answers.annotate(drawn_squares))
    export.export(studio, ExportOrder(project, tmp_path / "out", DATA), unseen)
    for number, box in enumerate(drawn_squares.boxes, 1):
        with Image.open(tmp_path / "out" / "colour" / "train" / box.label / f"{task.id}-{number}.png") as crop:
            side = box.xywh[2] * squares.IMGSZ
            assert crop.size[0] in range(round(1.1 * side), round(1.2 * side) + 3)
    document = json.loads((tmp_path / "out" / "colour" / "coco-train.json").read_text("utf-8"))
    assert len(document["images"]) == len(document["annotations"]) == 2


def test_a_version_has_the_labels_it_learned_and_the_sheet_says_what_changed(
    studio: Context, images: ImageSite, tiny_weights: Path, tmp_path: Path
) -> None:
    project, client = project_of(studio, CONFIG), studio.label_studio
    urls = [{"image": images.add(f"{number}.png", number)} for number in range(4)]
    client.http.send("POST", f"/api/projects/{project}/import", urls)
    tasks = [task.id for task in client.tasks.unlabeled(project)]
    annotations = [client.annotations.create(task, [box("cat")]) for task in tasks[:3]]
    stamps = client.annotations.stamps(project)
    publish(studio.store, project, tiny_weights)
    learn(studio, project, stamps, tuple(tasks[:3]), tiny_weights)
    client.annotations.update(annotations[1], [box("dog")])
    client.annotations.delete(annotations[2])
    client.annotations.create(tasks[3], [box("dog")])
    order = ExportOrder(project, tmp_path / "then", DATA | {WEIGHTS}, number=2)
    lines = export.export(studio, order, unseen)
    assert (tmp_path / "then" / "label" / "yolo11n-v2.pt").read_bytes() == tiny_weights.read_bytes()
    assert any(line.endswith("yolo11n-v2.pt") for line in lines)
    assert set(labels_of(reader.read(tmp_path / "then" / "label" / "data.yaml").train)) == {str(tasks[0])}
    sheet = (tmp_path / "then" / "datasheet.md").read_text()
    assert f"| {tasks[1]} | annotation {annotations[1]} was changed after yolo11n-v2 was trained |" in sheet
    assert f"| {tasks[2]} | its annotation in the training of yolo11n-v2 was deleted" in sheet
    export.export(studio, ExportOrder(project, tmp_path / "now", DATA), unseen)
    now = labels_of(reader.read(tmp_path / "now" / "label" / "data.yaml").train)
    assert set(now) == {str(task) for task in (tasks[0], tasks[1], tasks[3])}


def learn(context: Context, project: int, stamps: dict[int, str], tasks: tuple[int, ...], weights: Path) -> None:
    """Publish version 2, trained on these annotations."""
    first = context.store.version(project, 1)
    number = context.store.reserve_number(project)
    snapshot = replace(first.snapshot, annotations=stamps, train_tasks=tasks, val_tasks=tasks)
    version = replace(first, number=number, name=f"yolo11n-v{number}", snapshot=snapshot, parent=1)
    context.store.publish(version, {"label": weights})


def test_what_cannot_be_exported(studio: Context, tmp_path: Path) -> None:
    project = project_of(studio, CONFIG)
    with pytest.raises(TrainingError, match="no labels to export"):
        export.export(studio, ExportOrder(project, tmp_path / "a", DATA), unseen)
    with pytest.raises(BackendError, match="has no version yet"):
        export.export(studio, ExportOrder(project, tmp_path / "b", frozenset({WEIGHTS})), unseen)
    with pytest.raises(BackendError, match="no version 7"):
        export.export(studio, ExportOrder(project, tmp_path / "c", DATA, number=7), unseen)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(SettingError, match="the folder is not empty"):
        export.export(studio, ExportOrder(project, tmp_path / "full", DATA), unseen)


def box(label: str) -> Json:
    value = {"x": 20, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    return {"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
