from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.datasets import reader, synthetic, writer
from backend.datasets.writer import LabeledImage
from backend.errors import TrainingError
from backend.types import LabeledBox

BOX = LabeledBox("cat", (0.5, 0.5, 0.2, 0.4))


def image(task_id: int, *boxes: LabeledBox, random: bool = True, path: Path = Path("x.jpg")) -> LabeledImage:
    return LabeledImage(task_id, path, boxes, random)


def ids(images: Sequence[LabeledImage]) -> set[int]:
    return {image.task_id for image in images}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / "picture.png"
    path.parent.mkdir()
    path.write_bytes(b"pixels")
    return path


def test_only_random_images_are_held_out_and_about_the_share_asked_for() -> None:
    images = [image(number, BOX, random=number % 2 == 0) for number in range(1000)]
    split = writer.split(images, val_share=0.2, project_id=1)
    assert split.held_out
    assert all(image.random for image in split.val)
    assert 70 < len(split.val) < 130  # 100 of 500 are expected
    assert ids(split.train) | ids(split.val) == set(range(1000))
    assert not ids(split.train) & ids(split.val)


def test_labeling_more_moves_no_image_to_the_other_side() -> None:
    images = [image(number, BOX) for number in range(300)]
    few = writer.split(images[:100], val_share=0.2, project_id=1)
    many = writer.split(images[::-1], val_share=0.2, project_id=1)
    assert ids(few.val) == ids(many.val) & set(range(100))
    assert ids(few.train) == ids(many.train) & set(range(100))


def test_projects_draw_differently_and_processes_alike() -> None:
    images = [image(number, BOX) for number in range(100)]
    first, second = (ids(writer.split(images, val_share=0.2, project_id=number).val) for number in (1, 2))
    assert first != second
    code = (
        "from pathlib import Path; from backend.datasets.writer import *; from backend.types import LabeledBox;"
        "images = [LabeledImage(n, Path('x'), (LabeledBox('cat', (.5, .5, .2, .4)),), True) for n in range(100)];"
        "print(sorted(i.task_id for i in split(images, val_share=0.2, project_id=1).val))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(elsewhere.stdout) == sorted(first)


@pytest.mark.parametrize(
    "images",
    [
        [image(1, BOX, random=False), image(2, BOX, random=False)],  # no image was chosen at random
        [image(task, BOX) for task in range(2)],  # so few that all may fall into one part
        [image(task, random=True) for task in range(50)]
        + [image(99, BOX, random=False)],  # the held-out part would have no box
        [image(task, BOX) for task in range(50)] + [image(99, random=False)],
    ],
)
@pytest.mark.parametrize("val_share", [1e-9, 1 - 1e-9])
def test_without_a_usable_held_out_part_val_is_train(images: list[LabeledImage], val_share: float) -> None:
    split = writer.split(images, val_share=val_share, project_id=1)
    assert not split.held_out
    assert split.train == split.val == tuple(images)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "0 labeled images, a training needs 2"),
        ([image(1, BOX)], "1 labeled image, a training needs 2"),
        ([image(1), image(2)], "none of the 2 labeled images has a box"),
    ],
)
def test_too_little_to_train_on_is_a_stated_reason(images: list[LabeledImage], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason) as caught:
        writer.split(images, val_share=0.2, project_id=7)
    assert "project 7" in str(caught.value)
    assert caught.value.fix


def test_unseen_classes() -> None:
    dog = LabeledBox("dog", (0.5, 0.5, 1, 1))
    assert writer.unseen_classes([image(1, BOX, dog), image(2)], ["bird", "cat", "dog", "emu"]) == ("bird", "emu")
    assert writer.unseen_classes([], ["cat"]) == ("cat",)


def test_write_links_images_and_writes_labels(picture: Path, tmp_path: Path) -> None:
    dog = LabeledBox("dög: 'é'\n", (0.25, 0.75, 0.5, 0.5))
    split = writer.Split((image(1, BOX, dog, path=picture),), (image(2, path=picture),), held_out=True)
    root = tmp_path / "run"
    data_yaml = writer.write(split, ["cat", "dög: 'é'\n"], root)
    assert data_yaml == root / "data.yaml"
    assert (root / "images/train/1.png").samefile(picture)
    assert (root / "images/val/2.png").samefile(picture)
    assert (root / "labels/train/1.txt").read_text().splitlines() == [
        "0 0.500000 0.500000 0.200000 0.400000",
        "1 0.250000 0.750000 0.500000 0.500000",
    ]
    assert (root / "labels/val/2.txt").read_text() == ""


def test_data_yaml_reads_back_as_yaml(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    classes = ["cat", "no", "1", "a: b", "# ü 猫 🐈", 'quote " and \\']
    split = writer.Split((image(1, BOX, path=picture),), (image(2, BOX, path=picture),), held_out=True)
    data = yaml.safe_load(writer.write(split, classes, Path("run")).read_text(encoding="utf-8"))
    assert data == {"path": str(tmp_path / "run"), "train": "images/train", "val": "images/val", "names": classes}


def test_val_is_the_train_folder_when_nothing_is_held_out(picture: Path, tmp_path: Path) -> None:
    both = (image(1, BOX, path=picture), image(2, BOX, path=picture))
    data_yaml = writer.write(writer.Split(both, both, held_out=False), ["cat"], tmp_path / "run")
    assert json.loads(data_yaml.read_text())["val"] == "images/train"
    assert not (tmp_path / "run/images/val").exists()


def test_writing_again_replaces_the_data_set(picture: Path, tmp_path: Path) -> None:
    for task_id in (1, 2):
        only = (image(task_id, BOX, path=picture),)
        writer.write(writer.Split(only, only, held_out=False), ["cat"], tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/images/train").iterdir()] == ["2.png"]
    assert [path.name for path in (tmp_path / "run/labels/train").iterdir()] == ["2.txt"]
    assert picture.read_bytes() == b"pixels"


def test_where_a_hard_link_is_impossible_the_image_is_copied(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    only = (image(1, BOX, path=picture),)
    writer.write(writer.Split(only, only, held_out=False), ["cat"], tmp_path / "run")
    copy = tmp_path / "run/images/train/1.png"
    assert copy.read_bytes() == b"pixels"
    assert not copy.samefile(picture)


@pytest.mark.parametrize(
    "xywh",
    [
        (0.5, 0.5, 0.0, 0.1),
        (0.5, 0.5, 0.1, -0.1),
        (0.95, 0.5, 0.2, 0.1),
        (0.5, 0.01, 0.1, 0.1),
        (1.5, 0.5, 0.1, 0.1),
        (math.nan, 0.5, 0.1, 0.1),
        (0.5, 0.5, math.inf, 0.1),
    ],
)
def test_a_box_outside_its_image_is_refused_by_task(
    xywh: tuple[float, float, float, float], picture: Path, tmp_path: Path
) -> None:
    only = (image(41, LabeledBox("cat", xywh), path=picture),)
    with pytest.raises(TrainingError, match=r"of 'cat' is empty or leaves the image \[task 41\]"):
        writer.write(writer.Split(only, only, held_out=False), ["cat"], tmp_path / "run")


def test_a_box_that_rounding_pushed_over_the_border_is_kept(picture: Path, tmp_path: Path) -> None:
    only = (image(1, LabeledBox("cat", (0.5, 0.5, 1.0000001, 1.0)), path=picture),)
    writer.write(writer.Split(only, only, held_out=False), ["cat"], tmp_path / "run")
    assert (tmp_path / "run/labels/train/1.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000\n"


def test_a_label_the_config_lost_is_named(picture: Path, tmp_path: Path) -> None:
    only = (image(41, BOX, path=picture),)
    with pytest.raises(TrainingError, match=r"'cat' is not in the label config \[task 41\]"):
        writer.write(writer.Split(only, only, held_out=False), ["dog"], tmp_path / "run")


def test_a_foreign_data_set_is_measured_where_it_lies(tmp_path: Path) -> None:
    """A data.yaml may say `path: .`, as BCCD's does."""
    data = reader.read(synthetic.generate(tmp_path / "scenes", pool=1, test=2, seed=0))
    data_yaml = writer.write_test_set(data.val, data.classes, tmp_path / "test-set")
    written = reader.read(data_yaml)
    assert written.classes == data.classes
    assert [len(file.boxes) for file in written.val] == [len(file.boxes) for file in data.val]


def test_a_portable_data_set_may_be_moved_and_shares_no_file_with_the_cache(picture: Path, tmp_path: Path) -> None:
    images = tuple(image(number, BOX, path=picture) for number in (1, 2))
    writer.write(writer.Split(images, images, held_out=True), ["cat"], tmp_path / "made", portable=True)
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    assert "path" not in json.loads((moved / "data.yaml").read_text())
    data = reader.read(moved / "data.yaml")
    assert [file.path.name for file in data.train] == ["1.png", "2.png"]
    assert data.val[0].boxes[0].xywh == pytest.approx(BOX.xywh)
    assert picture.stat().st_nlink == 1
