from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets import writer
from backend.errors import DataError
from backend.labelstudio import label_config, tags
from backend.simulate import simulation_data
from backend.simulate.annotator import as_result
from backend.types import YoloTask
from backend.yolo.tasks import quality
from tests.support import CONFIG

BOX = "0 0.5 0.5 0.4 0.4\n"


def write(root: Path, train: int = 4, test: int = 2) -> Path:
    """Write a data set of noise with one box each; return its data.yaml."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test)):
        for number in range(count):
            image = root / "images" / split / f"{number}.png"
            labels = root / "labels" / split / f"{number}.txt"
            for path in (image, labels):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(image)
            labels.write_text(BOX)
    data_yaml = root / "data.yaml"
    data_yaml.write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return data_yaml


def test_a_good_data_set_passes(tmp_path: Path) -> None:
    data = simulation_data.read(write(tmp_path))
    simulation_data.check(data, 4)
    assert (len(data.pool), len(data.test)) == (4, 2)
    assert data.name(0) == "images/train/0.png"
    image = data.labeled(1, 77, random=True)
    assert (image.task_id, image.path.name, image.boxes[0].label, image.random) == (77, "1.png", "cat", True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.4 0.4", "no class 2"),
        ("0 0.9 0.5 0.4 0.4", "leaves the image"),
        ("0 0.5 0.5 0.4", "not a box"),
    ],
)
def test_a_bad_box_is_named_with_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    data_yaml = write(tmp_path)
    (tmp_path / "labels/train/2.txt").write_text(BOX + line + "\n")
    with pytest.raises(DataError, match=reason) as caught:
        simulation_data.read(data_yaml)
    assert caught.value.where.endswith("labels/train/2.txt, line 2")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    data_yaml = write(tmp_path)
    for image in (tmp_path / "images/val").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="images/val holds no images") as caught:
        simulation_data.read(data_yaml)
    assert str(data_yaml) in caught.value.where


def test_a_pool_smaller_than_the_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 4 images, and the experiment labels 5"):
        simulation_data.check(simulation_data.read(write(tmp_path)), 5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_boxes_is_refused(tmp_path: Path, split: str) -> None:
    data_yaml = write(tmp_path)
    for labels in (tmp_path / "labels" / split).iterdir():
        labels.unlink()
    data = simulation_data.read(data_yaml)
    assert len([note for note in data.notes if "taken as background" in note]) in (2, 4)
    with pytest.raises(DataError, match=f"the {split}.* split has no boxes|{split}\\) split has no boxes"):
        simulation_data.check(data, 4)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"not an image", "not an image"), (b"", "not an image"), (None, "smaller than 10 pixels")]
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, reason: str, split: str) -> None:
    data_yaml = write(tmp_path)
    image = tmp_path / "images" / split / "1.png"
    if content is None:
        Image.new("RGB", (9, 40)).save(image)
    else:
        image.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        simulation_data.check(simulation_data.read(data_yaml), 4)
    assert caught.value.where == str(image)


def test_images_must_not_be_trained_and_measured_on(tmp_path: Path) -> None:
    data_yaml = write(tmp_path)
    data_yaml.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match="in the train and in the test split"):
        simulation_data.check(simulation_data.read(data_yaml), 4)


def test_the_sum_changes_with_labels_and_images_but_not_with_the_place(tmp_path: Path) -> None:
    first = simulation_data.read(write(tmp_path / "a"))
    elsewhere = simulation_data.read(write(tmp_path / "b"))
    assert first.sha256() == elsewhere.sha256()
    (tmp_path / "b/labels/train/2.txt").write_text("1 0.5 0.5 0.4 0.4\n")
    assert simulation_data.read(tmp_path / "b/data.yaml").sha256() != first.sha256()


def test_boxes_are_what_label_studio_gives_back_of_them(tmp_path: Path) -> None:
    data_yaml = write(tmp_path)
    rows = np.random.default_rng(0).uniform(0.2, 0.4, (20, 4)).round(6).tolist()
    label = "".join(f"1 {x} {y} {width} {height}\n" for x, y, width, height in rows)
    (tmp_path / "labels/train/1.txt").write_text(label)
    data = simulation_data.read(data_yaml)
    (image,) = [place for place, file in enumerate(data.pool) if file.path.name == "1.png"]
    tag = label_config.parse(CONFIG)[0]
    drawn = data.labeled(image, 7, random=True).boxes
    assert drawn == tags.decode(tag, as_result(tag, data.pool[image].boxes))
    assert drawn != data.pool[image].boxes
    assert np.allclose([box.xywh for box in drawn], rows, atol=1e-12)


def test_each_seed_numbers_the_tasks_anew(tmp_path: Path) -> None:
    data = simulation_data.read(write(tmp_path, train=30))
    first, again, other = (simulation_data.task_ids(data, seed) for seed in (0, 0, 1))
    assert sorted(first.tolist()) == list(range(1, 31))
    assert first.tolist() == again.tolist() != other.tolist()


# The other tasks

LINES: dict[YoloTask, str] = {
    "obb": "1 0.5 0.3 0.7 0.5 0.5 0.7 0.3 0.5\n",
    "segment": "1 0.101 0.203 0.7 0.2 0.707 0.6\n",
    "pose": "1 0.5 0.5 0.4 0.4 0.401 0.6 2 0 0 0\n",
    "classify": "1\n",
}


def write_for(root: Path, task: YoloTask) -> Path:
    data_yaml = write(root)
    if task == "pose":
        data_yaml.write_text(data_yaml.read_text() + "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n")
    for labels in root.glob("labels/*/*.txt"):
        labels.write_text(LINES[task])
    return data_yaml


@pytest.mark.parametrize("task", LINES)
def test_labels_of_every_task_are_what_its_tag_gives_back(task: YoloTask, tmp_path: Path) -> None:
    data = simulation_data.read(write_for(tmp_path, task), task)
    simulation_data.check(data, 4)
    assert (data.tag.task, data.classes) == (task, ("cat", "dog"))
    (true,) = data.pool[1].boxes
    (drawn,) = data.labeled(1, 77, random=False).boxes
    assert drawn.label == true.label == "dog"
    assert drawn.xywh == pytest.approx(true.xywh, abs=1e-5)
    assert np.allclose(drawn.keypoints, true.keypoints)
    for ring, expected in zip(drawn.outline, true.outline, strict=True):
        assert sorted(np.round(ring, 5).tolist()) == sorted(np.round(expected, 5).tolist())  # in any order


@pytest.mark.parametrize("task", LINES)
def test_ultralytics_gets_the_lines_that_the_data_set_has(task: YoloTask, tmp_path: Path) -> None:
    data = simulation_data.read(write_for(tmp_path, task), task)
    writer.write_test_set(data.test, data.classes, tmp_path / "test", task, data.details)
    written = (tmp_path / "test/labels/train/0.txt").read_text().split()
    assert list(map(float, written)) == list(map(float, LINES[task].split()))


def test_the_yaml_of_a_training_says_what_the_task_takes(tmp_path: Path) -> None:
    pose = simulation_data.read(write_for(tmp_path / "pose", "pose"), "pose")
    assert pose.details == {"kpt_shape": [2, 3], "flip_idx": [1, 0]}
    assert simulation_data.read(write_for(tmp_path / "obb", "obb"), "obb").details == {}
    data_yaml = write_for(tmp_path / "classes", "classify")
    assert simulation_data.read(data_yaml, "classify").details == {"multiple": False}
    data_yaml.write_text(data_yaml.read_text() + "multiple: true\n")
    several = simulation_data.read(data_yaml, "classify")
    assert several.details == {"multiple": True}
    assert (quality(several.tag), quality(pose.tag)) == ("mAP", "pose mAP50")


def test_another_skeleton_is_another_data_set(tmp_path: Path) -> None:
    data_yaml = write_for(tmp_path, "pose")
    before = simulation_data.read(data_yaml, "pose").sha256()
    data_yaml.write_text(data_yaml.read_text().replace("flip_idx: [1, 0]", ""))
    assert simulation_data.read(data_yaml, "pose").sha256() != before


def test_a_folder_of_classes_is_a_data_set(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 1)):
        for number in range(count):
            path = tmp_path / split / "dog" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number, 0, 0)).save(path)
    data = simulation_data.read(tmp_path, "classify")
    simulation_data.check(data, 3)
    assert (data.name(2), len(data.test)) == ("train/dog/2.png", 1)
    assert [box.label for box in data.labeled(0, 7, random=True).boxes] == ["dog"]


def test_some_data_sets_tell_their_task(tmp_path: Path) -> None:
    assert simulation_data.task_by_data(tmp_path) == "classify"
    assert simulation_data.task_by_data(write_for(tmp_path / "pose", "pose")) == "pose"
    assert simulation_data.task_by_data(write(tmp_path / "boxes")) is None
    with pytest.raises(DataError, match="no such file"):
        simulation_data.task_by_data(tmp_path / "nowhere.yaml")


# An export of Label Studio


def write_export(root: Path, images: int = 10, line: str = BOX) -> Path:
    """Write an export in Label Studio's format "YOLO with Images"; the last image has no annotation."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(images):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(root / f"images/0b1c-{number}.png")
        (root / f"labels/0b1c-{number}.txt").write_text(line if number < images - 1 else "")
    (root / "classes.txt").write_text("cat\nbig dog\n")
    (root / "notes.json").write_text("{}")
    return root


@pytest.mark.parametrize("task", ["detect", "segment", "obb"])
def test_an_export_of_label_studio_is_a_data_set(tmp_path: Path, task: YoloTask) -> None:
    line = BOX if task == "detect" else LINES[task]
    folder = write_export(tmp_path / "export", line=line)
    data = simulation_data.read(folder, task)
    simulation_data.check(data, 8)
    assert (data.classes, data.tag.task) == (("cat", "big dog"), task)
    assert (len(data.pool), len(data.test)) == (8, 2)
    assert len({file.path for file in (*data.pool, *data.test)}) == 10
    assert sorted(len(file.boxes) for file in (*data.pool, *data.test)) == [0, *[1] * 9]
    assert data.notes == (f"{folder}: an export has no splits, so 2 of its 10 images are the test split",)
    assert simulation_data.read(folder, task).pool == data.pool
    assert simulation_data.task_by_data(folder) is None


def test_an_export_without_images_names_the_one_with_images(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", images=1)
    with pytest.raises(DataError, match="YOLO with Images"):
        simulation_data.read(folder)
    with pytest.raises(DataError, match="kpt_shape"):
        simulation_data.read(folder, "pose")
    (folder / "classes.txt").write_text("")
    with pytest.raises(DataError, match="no class names"):
        simulation_data.read(folder)


def test_a_folder_with_a_data_yaml_is_that_data_set(tmp_path: Path) -> None:
    assert simulation_data.read(write(tmp_path).parent) == simulation_data.read(tmp_path / "data.yaml")
    assert simulation_data.task_by_data(tmp_path) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="YOLO export of Label Studio"):
        simulation_data.read(tmp_path / "empty", "classify")
