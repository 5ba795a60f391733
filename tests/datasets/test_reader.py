from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.datasets.data_yaml import has_points
from backend.datasets.reader import YoloData, read
from backend.errors import DataError
from backend.yolo.runtime import quiet_ultralytics
from tests.support import ROOT, require

pytestmark = pytest.mark.torch

LINE = "0 0.5 0.5 0.2 0.4\n"


def write(root: Path, yaml: str, labels: str = LINE) -> Path:
    """Write a data set of one training and one validation image; only the first one's labels vary."""
    for split, text in (("train", labels), ("val", LINE)):
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        (root / "images" / split / "a.jpg").write_bytes(b"")
        (root / "labels" / split / "a.txt").write_text(text)
    path = root / "data.yaml"
    path.write_text(yaml)
    return path


FOLDERS = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def test_reads_folders(tmp_path: Path) -> None:
    data = read(write(tmp_path, FOLDERS))
    assert data.classes == ("cat", "dog")
    assert [file.path for file in data.train] == [tmp_path / "images/train/a.jpg"]
    box = data.train[0].boxes[0]
    assert box.label == "cat"
    assert box.xywh == pytest.approx((0.5, 0.5, 0.2, 0.4))
    assert data.test == ()
    assert data.notes == ()


@pytest.mark.parametrize(
    "names", ["[cat, dog]", "{0: cat, 1: dog}", "{1: dog, 0: cat}", "\n  0: cat\n  1: dog\nnc: 2"], ids=str
)
def test_names_as_list_or_map(tmp_path: Path, names: str) -> None:
    data = read(write(tmp_path, f"train: images/train\nval: images/val\nnames: {names}\n"))
    assert data.classes == ("cat", "dog")


def test_numbers_may_be_names(tmp_path: Path) -> None:
    assert read(write(tmp_path, FOLDERS.replace("cat, dog", "7, 11"))).classes == ("7", "11")


@pytest.mark.parametrize(
    ("split", "lists"),
    [
        ("train.txt", {"train.txt": "images/train/a.jpg\n\n./images/val/a.jpg\n"}),
        ("[images/train, images/val]", {}),
        ("[images/train, more.txt]", {"more.txt": "images/val/a.jpg"}),
        ("images", {}),
    ],
)
def test_split_as_list_file_several_or_nested_folder(tmp_path: Path, split: str, lists: dict[str, str]) -> None:
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    data = read(write(tmp_path, f"train: {split}\nval: images/val\nnames: [cat]\n"))
    assert [file.path for file in data.train] == [tmp_path / "images/train/a.jpg", tmp_path / "images/val/a.jpg"]
    assert all(len(file.boxes) == 1 for file in data.train)


def test_path_is_relative_to_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set", FOLDERS)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: set\n{FOLDERS}")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("data.yaml")).train[0].boxes) == 1


def test_background_images(tmp_path: Path) -> None:
    yaml = write(tmp_path, FOLDERS, labels="")
    assert read(yaml).train[0].boxes == ()
    assert read(yaml).notes == ()
    (tmp_path / "labels/train/a.txt").unlink()
    data = read(yaml)
    assert data.train[0].boxes == ()
    assert len(data.notes) == 1
    assert "taken as background" in data.notes[0]


def test_labels_whose_image_is_missing_are_named(tmp_path: Path) -> None:
    yaml = write(tmp_path, FOLDERS)
    for name in ("gone.txt", "classes.txt"):
        (tmp_path / "labels/train" / name).write_text(LINE)
    assert read(yaml).notes == (f"{tmp_path / 'labels/train/gone.txt'}: no image has this name, left out",)
    listed = FOLDERS.replace("images/train", "list.txt")  # a list of images may leave some out
    (tmp_path / "list.txt").write_text("images/train/a.jpg\n")
    assert read(write(tmp_path, listed)).notes == ()
    nested = FOLDERS.replace("train: images/train", "train: images")
    assert len(read(write(tmp_path, nested)).notes) == 1


def test_clips_a_box_within_the_tolerance(tmp_path: Path) -> None:
    data = read(write(tmp_path, FOLDERS, labels="1 0.102 0.5 0.21 0.2\n"))
    x, y, width, height = data.train[0].boxes[0].xywh
    assert data.train[0].boxes[0].label == "dog"
    assert (x - width / 2, x + width / 2) == pytest.approx((0, 0.207))
    assert (y, height) == pytest.approx((0.5, 0.2))


def test_notes_a_box_without_an_area(tmp_path: Path) -> None:
    data = read(write(tmp_path, FOLDERS, labels=f"0 0.5 0.5 0.0 0.0\n{LINE}"))
    assert len(data.train[0].boxes) == 1
    assert data.notes == (f"{tmp_path / 'labels/train/a.txt'}, line 1: a box without an area, left out",)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5 0.5 0.1 0.1", "no class 2 .*use 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "no class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "no class 0.5"),
        ("nan 0.5 0.5 0.1 0.1", "no class nan"),
        ("0 0.5 0.5 0.1", "not a box"),
        ("cat 0.5 0.5 0.1 0.1", "not a box"),
        ("0 0.95 0.5 0.2 0.1", "leaves the image"),
        ("0 320 240 20 20", "leaves the image"),
        ("0 0.5 0.5 -0.1 0.1", "leaves the image"),
        ("0 0.5 nan 0.1 0.1", "leaves the image"),
    ],
)
def test_bad_label_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    yaml = write(tmp_path, FOLDERS, labels=f"{LINE}\n{line}\n")
    with pytest.raises(DataError, match=problem) as caught:
        read(yaml)
    assert caught.value.where == f"{tmp_path / 'labels/train/a.txt'}, line 3"
    assert caught.value.fix
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("", "not a data set"),
        ("- train\n", "not a data set"),
        ("train: [images\nval: x\n", "not YAML.*line 2"),
        ("val: images/val\nnames: [a]\n", "no train split"),
        ("train: images/train\nnames: [a]\n", "no val split"),
        ("train: images/train\nval: images/val\n", "no class names"),
        (FOLDERS.replace("[cat, dog]", "[]"), "no class names"),
        (FOLDERS.replace("[cat, dog]", "{1: cat, 2: dog}"), r"ids \[1, 2\].*number the classes"),
        (FOLDERS.replace("dog", "no"), "False is not a class name.*quotes"),
        (FOLDERS.replace("dog", '""'), "'' is not a class name"),
        (FOLDERS.replace("dog", "cat"), "'cat' is there twice"),
        (FOLDERS + "nc: 3\n", "nc is 3 but names has 2"),
        (FOLDERS.replace("images/train", "nowhere"), "nowhere is neither a folder nor a .txt list"),
        (FOLDERS.replace("images/train", "gone.txt"), "gone.txt is neither a folder nor a .txt list"),
        (FOLDERS.replace("images/train", "labels/train"), "labels/train holds no images"),
        (FOLDERS.replace("images/train", "empty.txt"), "empty.txt holds no images"),
        (FOLDERS.replace("images/train", "bad.txt"), "no image .*missing.jpg .*bad.txt, line 2"),
    ],
)
def test_bad_data_yaml_is_named(tmp_path: Path, yaml: str, problem: str) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.txt").write_text("images/train/a.jpg\nimages/train/missing.jpg\n")
    path = write(tmp_path, yaml)
    with pytest.raises(DataError, match=problem) as caught:
        read(path)
    assert str(tmp_path) in caught.value.where
    assert caught.value.fix


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "data.yaml")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)
    yaml = write(tmp_path, FOLDERS)
    (tmp_path / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        read(yaml)


def test_reads_bccd() -> None:
    yaml = ROOT.parent / "shared/data/bccd/data.yaml"
    require(yaml.is_file(), "the BCCD data set is not at ../shared/data/bccd")
    data = read(yaml)
    assert data.classes == ("RBC", "WBC", "Platelets")
    assert (len(data.train), len(data.val), len(data.test)) == (205, 87, 72)
    boxes = _count(data)
    assert sum(boxes.values()) == 4886
    assert boxes["RBC"] > 10 * boxes["WBC"] > 0
    assert len(data.notes) == 2
    assert all("without an area" in note for note in data.notes)


def _count(data: YoloData) -> Counter[str]:
    return Counter(box.label for file in data.train + data.val + data.test for box in file.boxes)


# The other tasks

TRIANGLE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
POSE = FOLDERS + "kpt_shape: [2, 3]\n"
OBJECT = "1 0.5 0.5 0.2 0.4 0.5 0.5 2 0.4 0.4 1\n"


def alike(root: Path, yaml: str, labels: str) -> Path:
    """Write a data set whose two images have the same labels."""
    path = write(root, yaml, labels)
    (root / "labels/val/a.txt").write_text(labels)
    return path


def test_reads_the_labels_of_another_task(tmp_path: Path) -> None:
    data = read(alike(tmp_path, FOLDERS, f"{TRIANGLE}1 0.1 0.1 0.2 0.2 0.3 0.3\n"), "segment")
    for file in (*data.train, *data.val):
        assert [box.label for box in file.boxes] == ["cat"]
        assert file.boxes[0].outline == (((0.1, 0.1), (0.5, 0.1), (0.5, 0.5)),)
    note = f"{tmp_path / 'labels/train/a.txt'}, line 2: an outline without an area, left out"
    assert data.notes[0] == note


def test_a_line_of_another_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an outline") as caught:
        read(alike(tmp_path, FOLDERS, TRIANGLE + LINE), "segment")
    assert caught.value.where == f"{tmp_path / 'labels/train/a.txt'}, line 2"


def test_a_skeleton_is_in_the_yaml(tmp_path: Path) -> None:
    data = read(alike(tmp_path, POSE + "flip_idx: [1, 0]\n", OBJECT), "pose")
    assert (data.points, data.mirrored) == (2, (1, 0))
    assert data.train[0].boxes[0].keypoints == ((0.5, 0.5, 2), (0.4, 0.4, 1))
    assert read(alike(tmp_path, POSE, OBJECT), "pose").mirrored == ()
    assert has_points(tmp_path / "data.yaml")
    assert not has_points(write(tmp_path, FOLDERS))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "kpt_shape is None"),
        ("kpt_shape: 17", "kpt_shape is 17"),
        ("kpt_shape: [2]", r"kpt_shape is \[2\]"),
        ("kpt_shape: [0, 3]", r"kpt_shape is \[0, 3\]"),
        ("kpt_shape: [2, 4]", r"kpt_shape is \[2, 4\]"),
        ("kpt_shape: [two, 3]", "kpt_shape is"),
        ("kpt_shape: [2, 3]\nflip_idx: [0]", r"flip_idx is \[0\]"),
        ("kpt_shape: [2, 3]\nflip_idx: [0, 2]", r"flip_idx is \[0, 2\]"),
        ("kpt_shape: [2, 3]\nflip_idx: [0, a]", "flip_idx is"),
        ("kpt_shape: [2, 3]\nflip_idx: 1", "flip_idx is 1"),
    ],
)
def test_a_bad_skeleton_is_named(tmp_path: Path, lines: str, problem: str) -> None:
    yaml = alike(tmp_path, f"{FOLDERS}{lines}\n", OBJECT)
    with pytest.raises(DataError, match=problem) as caught:
        read(yaml, "pose")
    assert caught.value.where == str(yaml)


def test_several_classes_of_an_image_must_be_meant(tmp_path: Path) -> None:
    yaml = alike(tmp_path, FOLDERS, "0\n1\n")
    with pytest.raises(DataError, match=r"2 classes of one image.*multiple: true") as caught:
        read(yaml, "classify")
    assert caught.value.where == str(tmp_path / "labels/train/a.txt")
    data = read(alike(tmp_path, FOLDERS + "multiple: true\n", "0\n1\n"), "classify")
    assert data.multiple
    assert [box.label for box in data.train[0].boxes] == ["cat", "dog"]


# As ultralytics takes it


def ultralytics_splits(data_yaml: Path) -> dict[str, Any]:
    """Return how ultralytics itself reads a data.yaml."""
    quiet_ultralytics()
    from ultralytics.data.utils import check_det_dataset

    return dict(check_det_dataset(str(data_yaml), autodownload=False))


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n",  # Roboflow writes it so
        "train: train/images\nvalidation: valid/images\nnames: [cat, dog]\n",
        "train: train/images\nval: valid/images\nnc: '2'\nnames: [cat, dog]\n",
        "train: train/images\nval: valid/images\nnc: 2.0\n",
        "train: train/images\nval: valid/images\nnc: '2'\n",
        "train: [train/images, valid/images]\nval: valid/images\nnames: {'0': cat, '1': dog}\n",
        "path: .\ntrain: train/images\nval: valid/images\ntest:\nnames: [cat, dog]\n",
    ],
)
def test_a_data_yaml_is_read_as_ultralytics_reads_it(
    tmp_path: Path, yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid"):
        for kind, name in (("images", "a.jpg"), ("labels", "a.txt")):
            (tmp_path / split / kind).mkdir(parents=True)
            (tmp_path / split / kind / name).write_text(LINE if kind == "labels" else "")
    (tmp_path / "data.yaml").write_text(yaml)
    theirs, ours = ultralytics_splits(tmp_path / "data.yaml"), read(tmp_path / "data.yaml")
    assert ours.classes == tuple(theirs["names"].values())
    for split, files in (("train", ours.train), ("val", ours.val)):
        folders = theirs[split] if isinstance(theirs[split], list) else [theirs[split]]
        assert [str(file.path.resolve().parent) for file in files] == folders
        assert all(file.boxes for file in files)


THEIRS = """
import sys
from backend.yolo.runtime import quiet_ultralytics
quiet_ultralytics()
from ultralytics.data.utils import check_det_dataset
print(check_det_dataset(sys.argv[1], autodownload=False)["train"])
"""


@pytest.mark.parametrize("place", ["datasets", "work", "both", "default"])
def test_a_relative_path_is_found_where_ultralytics_finds_it(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is looked up in the working directory, then in `datasets_dir`, which ultralytics reads at its start."""
    datasets, work, config = tmp_path / "sets", tmp_path / "work", tmp_path / "config/Ultralytics"
    for folder in (work, config, tmp_path / "yaml"):
        folder.mkdir(parents=True)
    for folder in {"datasets": [datasets], "work": [work], "both": [datasets, work], "default": [work / "datasets"]}[
        place
    ]:
        write(folder / "mine", FOLDERS)
    if place != "default":
        monkeypatch.setenv("YOLO_CONFIG_DIR", str(config.parent))
        (config / "settings.json").write_text(json.dumps({"datasets_dir": str(datasets)}))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)
    data_yaml = tmp_path / "yaml/data.yaml"
    data_yaml.write_text(f"path: mine\n{FOLDERS}")
    monkeypatch.chdir(work)
    (file,) = read(data_yaml).train
    if place != "default":  # in a git checkout ultralytics takes the folder above it
        command = [sys.executable, "-c", THEIRS, str(data_yaml)]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.stdout.strip() == str(file.path.parent), done.stderr
    assert file.path.is_relative_to({"both": work, "default": work / "datasets"}.get(place, tmp_path))


def test_a_path_that_is_nowhere_names_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, work = tmp_path / "config/Ultralytics", tmp_path / "work"
    config.mkdir(parents=True)
    work.mkdir()
    (config / "settings.json").write_text(json.dumps({"datasets_dir": str(tmp_path / "sets")}))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(config.parent))
    monkeypatch.chdir(work)
    data_yaml = write(tmp_path / "yaml", f"path: gone\n{FOLDERS}")
    with pytest.raises(DataError, match="path: gone has not the splits images/train, images/val") as caught:
        read(data_yaml)
    places = [tmp_path / folder / "gone" for folder in ("work", "sets", "yaml")]
    assert caught.value.fix.endswith("looked in " + ", ".join(map(str, places)))


@pytest.mark.parametrize("nc", ["many", "1.5", "0", "true", "[2]"])
def test_a_number_of_classes_that_is_none_is_named(tmp_path: Path, nc: str) -> None:
    with pytest.raises(DataError, match="nc is "):
        read(write(tmp_path, f"{FOLDERS}nc: {nc}\n"))


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (TRIANGLE + "1 0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6\n", ""),  # outlines
        ("0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.4 0.4 1\n", "kpt_shape: [2, 3]\n"),  # objects of a pose
        (LINE + LINE + "1 0.5 0.5 0.2 0.4\n", ""),  # the same box twice
    ],
)
def test_boxes_of_a_detector_are_those_that_ultralytics_takes(tmp_path: Path, labels: str, more: str) -> None:
    quiet_ultralytics()
    from ultralytics.data.utils import verify_image_label

    data = read(write(tmp_path, FOLDERS + more, labels))
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(image)
    points = (2, 3) if more else (0, 0)
    file = str(tmp_path / "labels/train/a.txt")
    _, rows, *_ = verify_image_label((str(image), file, "", False, 2, *points, False))
    drawn = [(data.classes.index(box.label), *box.xywh) for box in data.train[0].boxes]
    assert np.allclose(sorted(drawn), sorted(rows.tolist()), atol=1e-6)
    assert not any(box.outline or box.keypoints for box in data.train[0].boxes)
    assert [note for note in data.notes if "there twice" in note] == (
        [f"{file}, line 2: a box that is there twice, left out"] if labels.startswith(LINE + LINE) else []
    )


def test_boxes_and_outlines_in_one_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="boxes and outlines in one file") as caught:
        read(write(tmp_path, FOLDERS, LINE + TRIANGLE))
    assert caught.value.where == str(tmp_path / "labels/train/a.txt")


def test_files_of_a_format_that_is_not_read_are_noted(tmp_path: Path) -> None:
    yaml = write(tmp_path, FOLDERS)
    for name in ("b.avif", "c.HEIC", "d.heic", "e.gif", "labels.cache", "readme.txt", ".hidden.gif"):
        (tmp_path / "images/train" / name).write_bytes(b"")
    folder = tmp_path / "images/train"
    tail = "left out: this format is not read; convert images to .jpg or .png"
    assert read(yaml).notes == (
        f"{folder}: 1 file .avif {tail}",
        f"{folder}: 1 file .gif {tail}",
        f"{folder}: 2 files .heic {tail}",
    )
    (tmp_path / "list.txt").write_text("images/train/a.jpg\nimages/train/e.gif\n")
    listed = read(write(tmp_path, FOLDERS.replace("images/train", "list.txt")))
    assert listed.notes == (f"{tmp_path / 'list.txt'}: 1 file .gif {tail}",)
    assert len(listed.train) == 1
