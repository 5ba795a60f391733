from __future__ import annotations

from pathlib import Path

import pytest

from backend.datasets import image_folder
from backend.datasets.writer import LabeledImage, Split
from backend.errors import DataError
from backend.types import WHOLE, LabeledBox


def write(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_classes_are_folders_by_name(tmp_path: Path) -> None:
    files = ("train/dog/2.jpg", "train/dog/more/1.PNG", "train/cat/1.jpg", "val/cat/3.jpg", "test/dog/4.jpg")
    data = image_folder.read(write(tmp_path, *files, "train/cat/notes.txt", "train/.cache/x.jpg"))
    assert data.classes == ("cat", "dog")
    train = [(file.path.relative_to(tmp_path).as_posix(), file.boxes[0].label) for file in data.train]
    assert train == [("train/cat/1.jpg", "cat"), ("train/dog/2.jpg", "dog"), ("train/dog/more/1.PNG", "dog")]
    assert all(len(file.boxes) == 1 and file.boxes[0].xywh == WHOLE for file in data.train)
    assert [(len(split), split[0].boxes[0].label) for split in (data.val, data.test)] == [(1, "cat"), (1, "dog")]
    assert data.notes == ()


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_one_split_to_measure_on_is_enough(tmp_path: Path, name: str) -> None:
    data = image_folder.read(write(tmp_path, "train/cat/1.jpg", f"{name}/cat/2.jpg"))
    assert [file.path.name for file in data.test or data.val] == ["2.jpg"]


def test_an_image_outside_of_the_classes_is_noted(tmp_path: Path) -> None:
    data = image_folder.read(write(tmp_path, "train/cat/1.jpg", "train/2.jpg", "val/cat/2.jpg"))
    assert data.notes == (f"{tmp_path / 'train/2.jpg'}: in no folder of a class, left out",)
    assert len(data.train) == 1


@pytest.mark.parametrize(
    ("files", "reason", "where"),
    [
        (("val/cat/1.jpg",), "no folder train", ""),
        (("train/cat/1.jpg",), "no folder val or test", ""),
        (("train/1.jpg", "val/cat/1.jpg"), "no images in folders of classes", "train"),
        (("train/cat/1.jpg", "val/cat/1.txt"), "no images in folders of classes", "val"),
        (("train/cat/1.jpg", "val/cat/1.jpg", "test/1.jpg"), "no images in folders of classes", "test"),
        (("train/cat/1.jpg", "val/dog/1.jpg"), "the class 'dog' is not in the train split", "val/dog"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, files: tuple[str, ...], reason: str, where: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        image_folder.read(write(tmp_path, *files))
    assert caught.value.where == str(tmp_path / where)
    assert caught.value.fix


def test_files_of_a_format_that_is_not_read_are_noted(tmp_path: Path) -> None:
    data = image_folder.read(write(tmp_path, "train/cat/1.jpg", "train/cat/2.heic", "val/cat/3.jpg"))
    note = "1 file .heic left out: this format is not read; convert images to .jpg or .png"
    assert data.notes == (f"{tmp_path / 'train/cat'}: {note}",)


def test_what_is_written_is_read_back_whatever_the_class_is_named(tmp_path: Path) -> None:
    names = ("red car", "a/b", "..", "x" * 300, "кот", "100%")
    images = tuple(labeled(tmp_path, number, name) for number, name in enumerate(names))
    places = image_folder.write(Split(images, images[1:], held_out=True), (*names, "empty"), tmp_path / "out")
    assert all((tmp_path / "out" / place).is_file() for place in places.values())
    data = image_folder.read(tmp_path / "out")
    assert len(data.classes) == len(names) + 1
    assert {"red car", "кот", "empty"} <= set(data.classes)
    assert sorted(path.name for path in (tmp_path / "out" / "val").iterdir()) == sorted(data.classes)
    assert (len(data.train), len(data.val)) == (len(names), len(names) - 1)
    assert all(file.path.resolve().is_relative_to(tmp_path / "out") for file in data.train)


def test_an_image_without_a_class_has_no_folder(tmp_path: Path) -> None:
    images = (labeled(tmp_path, 1, "cat"), labeled(tmp_path, 2, ""))
    assert set(image_folder.write(Split(images, images, held_out=False), ("cat",), tmp_path / "out")) == {"1"}


def labeled(folder: Path, task_id: int, label: str) -> LabeledImage:
    path = folder / f"picture-{task_id}.png"
    path.write_bytes(b"pixels")
    return LabeledImage(task_id, path, (LabeledBox(label, WHOLE),) if label else (), random=True)
