"""Label Studio's exports of annotations, compared with the training labels that we read from the same annotations.

Its converter and our tags read the same regions, so they must agree. Where they do not, a test says how and why.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry import brush_rle, coordinates, masks
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import LabelStudioClient
from backend.simulate import simulation_data
from backend.types import BoolArray, ControlTag, Json, LabeledBox, Ring
from tests.support import ROOT

pytestmark = pytest.mark.label_studio

TASKS = 12
SIZES = {"square": (80, 80), "wide": (96, 64)}  # width, height
Results = Sequence[list[Json]]  # of one annotation each
Export = dict[str, bytes]  # by the name of the file


@dataclass(frozen=True)
class Studio:
    """Label Studio with uploaded images, because an export reads them."""

    client: LabelStudioClient
    images: dict[tuple[int, int], list[str]]  # as tasks name them, by their size


@pytest.fixture(scope="module")
def studio(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("pictures")
    images = {}
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        for size in SIZES.values():
            paths = [folder / f"{number}.png" for number in range(TASKS)]
            for path in paths:
                Image.new("RGB", size).save(path)
            project = client.projects.create("images", '<View><Image name="image" value="$image"/></View>')
            client.tasks.upload_images(project, paths)
            addresses = [str(task.data["image"]) for task in client.tasks.unlabeled(project)]
            images[size] = sorted(addresses, key=number_of)
        yield Studio(client, images)


def number_of(file: str) -> int:
    """Return the number in an image's name; Label Studio makes names like 0b1c-7.png."""
    return int(PurePath(file).stem.rpartition("-")[2])


def tag_of(config: str) -> ControlTag:
    (tag,) = label_config.parse(read(config))
    return tag


def read(config: str) -> str:
    return (ROOT / "label_config" / config).read_text(encoding="utf-8")


def imported(studio: Studio, config: str, results: Results) -> tuple[int, list[list[Json]]]:
    """Import annotations of the images 0, 1, ...; return the project, and the stored result of each image."""
    client = studio.client
    size = results[0][0]["original_width"], results[0][0]["original_height"]
    project = client.projects.create("exports", read(config))
    tasks = [
        {"data": {"image": image}, "annotations": [{"result": result}]}
        for image, result in zip(studio.images[size], results, strict=False)
    ]
    client.http.send("POST", f"/api/projects/{project}/import", tasks)
    stored = [list(map(dict, annotated.result)) for annotated in client.annotations.annotated_tasks(project)]
    assert len(stored) == len(results)
    return project, stored


def export(studio: Studio, project: int, kind: str, **more: str) -> Export:
    """Return the files of an export of a project, by name."""
    address, headers = f"{studio.client.url}/api/projects/{project}/export", studio.client.http.headers()
    answer = httpx.get(address, params={"exportType": kind, **more}, headers=headers, timeout=60).raise_for_status()
    if answer.headers["content-type"] != "application/zip":
        return {"result.json": answer.content}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as files:
        return {name: files.read(name) for name in files.namelist() if not name.endswith("/")}


def yolo_lines(files: Export, number: int) -> list[tuple[str, list[float]]]:
    """Return the label and the numbers of each line of an image's file."""
    names = files["classes.txt"].decode().split("\n")
    (content,) = (files[name] for name in files if name.startswith("labels/") and number_of(name) == number)
    lines = [line.split() for line in content.decode().splitlines()]
    return [(names[int(line[0])], [float(field) for field in line[1:]]) for line in lines]


def coco_objects(files: Export) -> tuple[dict[int, list[tuple[str, Json]]], Json]:
    """Return (label, annotation) of each object by the number of its image, and the whole file."""
    (content,) = (content for name, content in files.items() if PurePath(name).suffix == ".json")
    coco = json.loads(content)
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    numbers = {entry["id"]: number_of(entry["file_name"]) for entry in coco["images"]}
    objects = defaultdict(list)
    for entry in coco["annotations"]:
        objects[numbers[entry["image_id"]]].append((names[entry["category_id"]], entry))
    return objects, coco


def region(tag: ControlTag, number: int, size: tuple[int, int], value: Json, kind: str = "", **more: Any) -> Json:
    item = {"id": f"r{number}", "type": kind or tag.kind, "from_name": tag.from_name, "to_name": tag.to_name}
    sizes = {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
    return item | sizes | {"value": value} | more


def some_labels(tag: ControlTag, rng: np.random.Generator) -> list[str]:
    """Return a random label, or both labels."""
    return [str(name) for name in rng.permutation(tag.labels)[: rng.integers(1, len(tag.labels) + 1)]]


def some_boxes(tag: ControlTag, size: tuple[int, int], turned: bool) -> list[list[Json]]:
    """Return annotations of up to 4 boxes; some leave the image, but all have area inside."""
    rng, low = np.random.default_rng(7), 5 if turned else -5  # a box turns about its corner, which stays inside
    drawn = []
    for _ in range(TASKS):
        regions = []
        for number in range(rng.integers(1, 5)):
            x, y, width, height = rng.uniform((low, low, 8, 8), (80, 80, 40, 40)).tolist()
            rotation = float(rng.uniform(0, 360)) if turned else 0
            value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
            regions.append(region(tag, number, size, value | {tag.kind: some_labels(tag, rng)}))
        drawn.append(regions)
    return drawn


def clipped(xywh: Sequence[float]) -> coordinates.Box:
    """Return the part of a box inside the image, in shares."""
    x, y, width, height = xywh
    inside = coordinates.clip_percent(coordinates.normalised_to_percent((x, y, width, height)))
    return coordinates.percent_to_normalised(inside)


def assert_boxes(theirs: Sequence[tuple[str, Sequence[float]]], ours: Sequence[LabeledBox]) -> None:
    """Check that both have the same labels and boxes; their boxes may leave the image."""
    assert [label for label, _ in theirs] == [box.label for box in ours]
    converted = np.array([clipped(box) for _, box in theirs]).reshape(-1, 4)
    np.testing.assert_allclose(converted, np.array([box.xywh for box in ours]).reshape(-1, 4), rtol=0, atol=1e-9)


# Boxes


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_boxes_are_those_of_the_yolo_export(studio: Studio, size: tuple[int, int]) -> None:
    """A region with two labels gives two boxes. Theirs leave the image where the annotator drew past its border."""
    tag = tag_of("rectanglelabels.xml")
    project, stored = imported(studio, "rectanglelabels.xml", some_boxes(tag, size, turned=False))
    files = export(studio, project, "YOLO")
    left = 0
    for number, result in enumerate(stored):
        theirs = yolo_lines(files, number)
        assert_boxes(theirs, tags.decode(tag, result))
        left += sum(clipped(box) != pytest.approx(box, abs=1e-9) for _, box in theirs)
    assert left > 0


def test_simulate_reads_the_yolo_export_with_images(studio: Studio, tmp_path: Path) -> None:
    """Boxes that leave the image are clipped, as in a training."""
    tag, size = tag_of("rectanglelabels.xml"), SIZES["wide"]
    project, stored = imported(studio, "rectanglelabels.xml", some_boxes(tag, size, turned=False))
    for name, content in export(studio, project, "YOLO_WITH_IMAGES").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = simulation_data.read(tmp_path)
    simulation_data.check(data, 10)
    files = {number_of(file.path.name): file for file in (*data.pool, *data.test)}
    assert sorted(files) == list(range(TASKS))
    for number, result in enumerate(stored):
        theirs, ours = (
            sorted((box.label, *box.xywh) for box in boxes) for boxes in (files[number].boxes, tags.decode(tag, result))
        )
        assert [box[0] for box in theirs] == [box[0] for box in ours]
        np.testing.assert_allclose([box[1:] for box in theirs], [box[1:] for box in ours], atol=1e-6)


def test_the_yolo_export_forgets_the_angle_of_a_box(studio: Studio) -> None:
    """The export writes the box as if it was not rotated, in another place. We take the upright box around it."""
    tag, size = tag_of("rectanglelabels.xml"), SIZES["wide"]
    value = {"x": 50, "y": 50, "width": 10, "height": 30, "rotation": 90, tag.kind: [tag.labels[0]]}
    project, ((item,),) = imported(studio, "rectanglelabels.xml", [[region(tag, 0, size, value)]])
    ((_, theirs),) = yolo_lines(export(studio, project, "YOLO"), 0)
    assert theirs == pytest.approx([0.55, 0.65, 0.1, 0.3])
    (ours,) = tags.decode(tag, [item])
    across, down = 0.3 * 64 / 96, 0.1 * 96 / 64
    assert ours.xywh == pytest.approx((0.5 - across / 2, 0.5 + down / 2, across, down))


def test_boxes_without_any_area_in_the_image_are_in_the_exports_alone(studio: Studio) -> None:
    tag, size = tag_of("rectanglelabels.xml"), SIZES["wide"]
    boxes = [(-30, 10, 20, 20), (10, 10, 0, 20), (10, 10, 20, 20)]
    values = [dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"rotation": 0} for box in boxes]
    drawn = [region(tag, n, size, value | {tag.kind: [tag.labels[0]]}) for n, value in enumerate(values)]
    project, (result,) = imported(studio, "rectanglelabels.xml", [drawn])
    assert len(yolo_lines(export(studio, project, "YOLO"), 0)) == 3
    assert len(tags.decode(tag, result)) == 1
    assert [reason.split()[1] for reason in tags.explain(tag, result)] == ["r0", "r1"]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_boxes_are_those_of_the_coco_export(studio: Studio, size: tuple[int, int], turned: bool) -> None:
    """The export has only a region's first label, and rotates boxes in percent, which is right only for square images.

    A box rotated in percent equals a box rotated on a square image, so we compare with that.
    """
    tag = tag_of("rectanglelabels.xml")
    project, stored = imported(studio, "rectanglelabels.xml", some_boxes(tag, size, turned))
    objects, _ = coco_objects(export(studio, project, "COCO"))
    apart = 0.0
    for number, result in enumerate(stored):
        first = [{**item, "value": item["value"] | {tag.kind: item["value"][tag.kind][:1]}} for item in result]
        theirs = [(label, in_shares(entry["bbox"], size)) for label, entry in objects[number]]
        on_a_square = [item | {"original_width": 100, "original_height": 100} for item in first]
        assert_boxes(theirs, tags.decode(tag, on_a_square))
        upright, on_square = ([box.xywh for box in tags.decode(tag, items)] for items in (first, on_a_square))
        apart = max(apart, float(np.abs(np.subtract(upright, on_square)).max()))
    assert (apart > 0.01) == (turned and size[0] != size[1])


def in_shares(bbox: Sequence[float], size: tuple[int, int]) -> coordinates.Box:
    """Convert left, top, width, height in pixels into x centre, y centre, width, height in shares."""
    (left, top, width, height), (across, down) = bbox, size
    return (left + width / 2) / across, (top + height / 2) / down, width / across, height / down


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_turned_boxes_are_those_of_the_obb_export(studio: Studio, size: tuple[int, int]) -> None:
    tag = tag_of("rectanglelabels-obb.xml")
    project, stored = imported(studio, "rectanglelabels-obb.xml", some_boxes(tag, size, turned=True))
    files = export(studio, project, "YOLO_OBB")
    for number, result in enumerate(stored):
        theirs, ours = yolo_lines(files, number), tags.decode(tag, result)
        assert [label for label, _ in theirs] == [box.label for box in ours]
        corners = np.array([numbers for _, numbers in theirs]).reshape(-1, 1, 4, 2)
        np.testing.assert_allclose([box.outline for box in ours], corners, rtol=0, atol=1e-9)


# Polygons


def some_polygons(tag: ControlTag, size: tuple[int, int]) -> list[list[Json]]:
    rng = np.random.default_rng(8)
    drawn = []
    for _ in range(TASKS):
        regions = []
        for number in range(rng.integers(1, 4)):
            angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
            ring = rng.uniform(20, 80, 2) + rng.uniform(5, 30) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            value = {"points": ring.tolist(), "closed": True, tag.kind: some_labels(tag, rng)}
            regions.append(region(tag, number, size, value))
        drawn.append(regions)
    return drawn


def test_outlines_are_those_of_the_yolo_export(studio: Studio) -> None:
    tag = tag_of("polygonlabels.xml")
    project, stored = imported(studio, "polygonlabels.xml", some_polygons(tag, SIZES["wide"]))
    files = export(studio, project, "YOLO")
    for number, result in enumerate(stored):
        theirs, ours = yolo_lines(files, number), tags.decode(tag, result)
        assert [label for label, _ in theirs] == [box.label for box in ours]
        for (_, numbers), box in zip(theirs, ours, strict=True):
            (ring,) = box.outline
            np.testing.assert_allclose(ring, np.reshape(numbers, (-1, 2)), rtol=0, atol=1e-9)


def test_outlines_are_those_of_the_coco_export(studio: Studio) -> None:
    """The export has only the first label of a region, and its boxes leave the image with their outlines."""
    tag, size = tag_of("polygonlabels.xml"), SIZES["wide"]
    project, stored = imported(studio, "polygonlabels.xml", some_polygons(tag, size))
    objects, _ = coco_objects(export(studio, project, "COCO"))
    for number, result in enumerate(stored):
        assert len(objects[number]) == len(result)
        for item, (label, entry) in zip(result, objects[number], strict=True):
            box, *_ = tags.decode(tag, [item])
            assert box.label == label
            ring = np.array(box.outline[0]) * size
            np.testing.assert_allclose(np.reshape(entry["segmentation"], (-1, 2)), ring, atol=1e-6)
            assert entry["area"] == pytest.approx(coordinates.ring_area(as_ring(ring)), rel=1e-6)
            assert_boxes([(label, in_shares(entry["bbox"], size))], [box])


def as_ring(points: Any) -> Ring:
    return tuple((float(x), float(y)) for x, y in points)


def test_the_exports_fill_the_holes_of_polygons(studio: Studio) -> None:
    """The exports ignore the region tree: the hole becomes an object of its own, and the object has no hole."""
    tag, size = tag_of("polygonlabels.xml"), SIZES["wide"]
    square = [[10, 10], [60, 10], [60, 60], [10, 60]]
    rings = [square, [[20, 20], [40, 20], [40, 40], [20, 40]]]
    values = [{"points": ring, "closed": True, tag.kind: [tag.labels[0]]} for ring in rings]
    drawn = [region(tag, 0, size, values[0]), region(tag, 1, size, values[1], parentID="r0")]
    project, (result,) = imported(studio, "polygonlabels.xml", [drawn])
    theirs = [np.reshape(numbers, (-1, 2)).tolist() for _, numbers in yolo_lines(export(studio, project, "YOLO"), 0)]
    (ours,) = tags.decode(tag, result)
    np.testing.assert_allclose(theirs, np.array(rings) / 100)
    np.testing.assert_allclose(ours.outline, np.array(rings) / 100)


# Brush masks


def some_masks(tag: ControlTag, size: tuple[int, int]) -> list[list[Json]]:
    """Return annotations of masks made of rings and discs."""
    rng = np.random.default_rng(9)
    rows, columns = np.mgrid[: size[1], : size[0]]
    drawn = []
    for _ in range(TASKS):
        regions = []
        for number in range(rng.integers(1, 3)):
            mask = np.zeros((size[1], size[0]), dtype=np.bool_)
            for _ in range(rng.integers(1, 4)):
                away = np.hypot(columns - rng.uniform(0, size[0]), rows - rng.uniform(0, size[1]))
                mask |= (away < rng.uniform(8, 20)) & (away > rng.uniform(-6, 6))
            value = {"format": "rle", "rle": brush_rle.encode_rle(mask), tag.kind: [str(rng.choice(tag.labels))]}
            regions.append(region(tag, number, size, value))
        drawn.append(regions)
    return drawn


def filled(box: LabeledBox, size: tuple[int, int]) -> BoolArray:
    return masks.fill([np.array(ring) * size for ring in box.outline], *size)


def test_masks_are_those_of_the_numpy_export(studio: Studio) -> None:
    tag, size = tag_of("brushlabels.xml"), SIZES["wide"]
    project, stored = imported(studio, "brushlabels.xml", some_masks(tag, size))
    files = export(studio, project, "BRUSH_TO_NUMPY")
    tasks = [annotated.task.id for annotated in studio.client.annotations.annotated_tasks(project)]
    compared = 0
    for task, result in zip(tasks, stored, strict=True):
        ours = tags.decode(tag, result)
        for label in tag.labels:
            theirs = sorted(name for name in files if name.startswith(f"task-{task}-") and f"-{label}-" in name)
            same = [box for box in ours if box.label == label]
            for name, box in zip(theirs, same, strict=True):
                assert np.array_equal(np.load(io.BytesIO(files[name])) > 0, filled(box, size))
                compared += 1
    assert compared == len(files)


def test_the_coco_export_of_masks_has_the_parts_alone_and_no_holes(studio: Studio) -> None:
    """The export's outlines run through the centres of the border's pixels, so they enclose the holes too."""
    tag, size = tag_of("brushlabels.xml"), SIZES["wide"]
    project, stored = imported(studio, "brushlabels.xml", [result[:1] for result in some_masks(tag, size)])
    objects, _ = coco_objects(export(studio, project, "BRUSH_TO_COCO"))
    holes = parts = 0
    for number, result in enumerate(stored):
        (box,) = tags.decode(tag, result)
        theirs = np.zeros((size[1], size[0]), dtype=np.uint8)
        for label, entry in objects[number]:
            assert label == box.label
            cv2.fillPoly(theirs, [np.reshape(entry["segmentation"], (-1, 1, 2))], 1)
        ours = filled(box, size)
        contours, _ = cv2.findContours(ours.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        whole = cv2.drawContours(np.zeros_like(theirs), contours, -1, 1, cv2.FILLED)
        assert np.array_equal(theirs, whole)
        corners = np.array([entry["bbox"] for _, entry in objects[number]])
        low, high = corners[:, :2].min(axis=0), (corners[:, :2] + corners[:, 2:]).max(axis=0)
        assert box.xywh == pytest.approx(in_shares((*low, *(high - low)), size))
        holes += bool((theirs > ours).any())
        parts += len(objects[number]) > 1
    assert holes > 0
    assert parts > 0


# Key points


def some_skeletons(tag: ControlTag, size: tuple[int, int], count: int) -> list[list[Json]]:
    """Return annotations of boxes with one or two points; every fourth point is hidden."""
    rng = np.random.default_rng(10)
    drawn, points = [], 0
    for _ in range(TASKS):
        regions = []
        for number in range(count):
            x, y, width, height = rng.uniform((5, 5, 10, 10), (60, 60, 30, 30)).tolist()
            value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["Fish"]}
            regions.append(region(tag, number, size, value, "rectanglelabels") | {"from_name": tag.parent})
            for name in rng.permutation(tag.points)[: rng.integers(1, 3)]:
                share = rng.uniform(0, 1, 2)
                at = {"x": x + width * share[0], "y": y + height * share[1], "width": 1, tag.kind: [str(name)]}
                points += 1
                under, hidden = f"r{number}", points % 4 == 0
                regions.append(region(tag, 100 + points, size, at, parentID=under, hidden=hidden))
        drawn.append(regions)
    return drawn


def test_skeletons_are_those_of_the_yolo_export(studio: Studio) -> None:
    """The export marks a hidden point as visible; for us it counts as covered."""
    tag = tag_of("keypointlabels.xml")
    project, stored = imported(studio, "keypointlabels.xml", some_skeletons(tag, SIZES["wide"], 2))
    files = export(studio, project, "YOLO")
    covered = 0
    for number, result in enumerate(stored):
        theirs, ours = yolo_lines(files, number), tags.decode(tag, result)
        assert_boxes([(label, numbers[:4]) for label, numbers in theirs], ours)
        for (_, numbers), box in zip(theirs, ours, strict=True):
            points = np.array(box.keypoints)
            covered += int((points[:, 2] == 1).sum())
            points[:, 2] = 2 * (points[:, 2] > 0)
            np.testing.assert_allclose(np.reshape(numbers[4:], (-1, 3)), points, rtol=0, atol=1e-9)
    assert covered > 0


def test_the_coco_export_has_one_skeleton_of_an_image(studio: Studio) -> None:
    """The export rounds points to pixels and marks hidden points as visible; it mixes the points of two boxes."""
    tag, size = tag_of("keypointlabels.xml"), SIZES["wide"]
    project, stored = imported(studio, "keypointlabels.xml", some_skeletons(tag, size, 1))
    objects, _ = coco_objects(export(studio, project, "COCO"))
    for number, result in enumerate(stored):
        (box,) = tags.decode(tag, result)
        (label, boxed), (_, skeleton) = objects[number]
        assert_boxes([(label, in_shares(boxed["bbox"], size))], [box])
        theirs = np.reshape(skeleton["keypoints"], (-1, 3))
        points = np.array(box.keypoints)
        visible = points[:, 2] > 0
        assert (theirs[:, 2] > 0).tolist() == visible.tolist()
        np.testing.assert_allclose(theirs[visible, :2], points[visible, :2] * size, rtol=0, atol=0.5)


# Videos


def test_objects_are_drawn_where_the_export_interpolates_them(studio: Studio) -> None:
    """Label Studio can interpolate the frames between key frames; model_every="1" learns the same frames."""
    config = read("videorectangle.xml").replace("<VideoRectangle ", '<VideoRectangle model_every="1" ')
    (tag,) = label_config.parse(config)
    drawn = [{"data": {"video": "http://videos.example/1.mp4"}, "annotations": [{"result": some_tracks(tag)}]}]
    project = studio.client.projects.create("video exports", config)
    studio.client.http.send("POST", f"/api/projects/{project}/import", drawn)
    (annotated,) = studio.client.annotations.annotated_tasks(project)
    files = export(studio, project, "JSON", interpolate_key_frames="true")
    (task,) = json.loads(files["result.json"])
    theirs = {item["id"]: item for item in task["annotations"][0]["result"]}
    between = 0
    for item in annotated.result:
        alone = [box for box in tags.decode(tag, [item]) if box.label == item["value"]["labels"][0]]
        frames = {key["frame"]: key for key in theirs[str(item["id"])]["value"]["sequence"]}
        between += sum(bool(key.get("auto")) for key in frames.values())
        assert [box.frame for box in alone] == sorted(frames)
        corners = [[frames[box.frame][name] / 100 for name in ("x", "y", "width", "height")] for box in alone]
        expected = [(x + width / 2, y + height / 2, width, height) for x, y, width, height in corners]
        np.testing.assert_allclose([box.xywh for box in alone], expected, rtol=0, atol=1e-9)
    assert between > 100


def some_tracks(tag: ControlTag) -> list[Json]:
    """Return objects at random key frames of a video of 100 frames; some end early, some leave and come back."""
    rng = np.random.default_rng(11)
    tracks = []
    for number in range(8):
        keys = []
        for frame in sorted(rng.choice(np.arange(1, 101), rng.integers(1, 6), replace=False).tolist()):
            box = dict(zip(("x", "y", "width", "height"), rng.uniform(5, 45, 4).tolist(), strict=True))
            enabled = bool(rng.random() < 0.7)
            keys.append(box | {"frame": frame, "rotation": 0, "enabled": enabled, "time": frame / 25})
        value = {"framesCount": 100, "duration": 4.0, "sequence": keys, "labels": some_labels(tag, rng)}
        tracks.append(region(tag, number, SIZES["wide"], value))
    return tracks
