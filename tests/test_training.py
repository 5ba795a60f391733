from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import dataset, training
from backend.dataset import LabeledImage, Split
from backend.errors import BusyError, ModelError, TrainingError
from backend.inference import KEEP_CONFIDENCE, load_detector, load_model, quiet_ultralytics
from backend.settings import Settings
from backend.training import BaseWeights, EpochReport, Hyper, Trained
from backend.types import LabeledBox

IMGSZ = 64
CLASSES = ("red", "blue")
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SCRATCH = BaseWeights("yolo11n.yaml", pretrained=False, note="")


def squares(folder: Path, count: int, seed: int) -> tuple[LabeledImage, ...]:
    """Draw one red and one blue square on grey noise, left and right in turn."""
    rng = np.random.default_rng(seed)
    images = []
    for task_id in range(seed * 100, seed * 100 + count):
        pixels = rng.normal(120, 10, (IMGSZ, IMGSZ, 3))
        boxes = []
        for x, label in zip((2, 34), rng.permutation(CLASSES), strict=True):
            side, top = int(rng.integers(16, 28)), int(rng.integers(2, 34))
            pixels[top : top + side, x : x + side] = COLOURS[label]
            xywh = ((x + side / 2) / IMGSZ, (top + side / 2) / IMGSZ, side / IMGSZ, side / IMGSZ)
            boxes.append(LabeledBox(str(label), xywh))
        path = folder / f"{task_id}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        images.append(LabeledImage(task_id, path, tuple(boxes), random=True))
    return tuple(images)


def hyper(epochs: int = 1, batch: int = 4, seed: int = 0) -> Hyper:
    return Hyper(epochs=epochs, batch=batch, imgsz=IMGSZ, seed=seed, device="cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("squares")
    return Split(squares(folder, 12, seed=1), squares(folder, 6, seed=2), held_out=True)


@pytest.fixture(scope="module")
def data_yaml(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset.write(split, CLASSES, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reports() -> list[EpochReport]:
    return []


@pytest.fixture(scope="module")
def trained(data_yaml: Path, reports: list[EpochReport], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return training.train(data_yaml, SCRATCH, hyper(epochs=40), tmp_path_factory.mktemp("run"), reports.append)


@pytest.mark.parametrize(
    ("images", "epochs"), [(0, 300), (1, 300), (50, 160), (51, 159), (200, 80), (800, 40), (10**6, 30)]
)
def test_epochs_spend_the_step_budget_within_bounds(images: int, epochs: int) -> None:
    assert training.epochs_for(images, Settings()) == epochs


def test_a_training_ends_within_its_minutes(data_yaml: Path, tmp_path: Path) -> None:
    seen: list[EpochReport] = []
    short = replace(hyper(epochs=500), minutes=0.001)  # the first epoch is longer
    done = training.train(data_yaml, SCRATCH, short, tmp_path, seen.append)
    assert (done.epochs, [each.epochs for each in seen]) == (2, [2, 2])
    assert done.weights.is_file()


@pytest.mark.parametrize(("growth", "steps"), [(0.0, 500.0), (0.5, 1000.0), (1.0, 2000.0)])
def test_steps_grow_with_the_images(growth: float, steps: float) -> None:
    assert training.steps_for(200, Settings(steps_growth=growth)) == steps


def test_training_from_scratch_learns(trained: Trained, data_yaml: Path) -> None:
    metrics = training.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    assert metrics.map50 > 0.3
    assert (metrics.images, metrics.boxes) == (6, 12)
    assert metrics.detections > 0
    assert metrics.map50 == pytest.approx(sum(metrics.class_ap50.values()) / 2)
    assert set(metrics.class_ap50) == set(CLASSES)


def test_every_epoch_is_reported(trained: Trained, reports: list[EpochReport]) -> None:
    assert [report.epoch for report in reports] == list(range(1, 41))
    assert {report.epochs for report in reports} == {40} == {trained.epochs}
    assert all(math.isfinite(loss) for report in reports for loss in report.losses.values())
    assert set(reports[0].losses) == {"box_loss", "cls_loss", "dfl_loss"}
    assert reports[0].eta_s > reports[-2].eta_s > reports[-1].eta_s == 0
    assert reports[-1].losses["cls_loss"] < reports[0].losses["cls_loss"]
    assert trained.losses_finite
    assert trained.seconds > 0


def test_weights_are_stripped_and_predict(trained: Trained, split: Split) -> None:
    import torch

    checkpoint = torch.load(trained.weights, weights_only=False)
    assert checkpoint["optimizer"] is None
    assert trained.weights.stat().st_size < 7e6  # 2.6 million parameters in half precision
    assert sorted(path.suffix for path in trained.weights.parent.rglob("*.pt")) == [".pt"]
    detector = load_detector(trained.weights, IMGSZ, "cpu")
    assert detector.classes == CLASSES
    assert sum(len(found.boxes) for found in detector.predict([image.path for image in split.val])) > 0


def test_evaluation_is_ultralytics_own(trained: Trained, data_yaml: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    ours = training.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    theirs = YOLO(trained.weights).val(
        data=str(data_yaml), imgsz=IMGSZ, device="cpu", plots=False, verbose=False, workers=0, save_dir=str(tmp_path)
    )
    assert ours.map50 == pytest.approx(theirs.box.map50, abs=1e-6)
    assert ours.map50_95 == pytest.approx(theirs.box.map, abs=1e-6)


def test_a_model_is_judged_by_the_names_of_its_classes(trained: Trained, split: Split, tmp_path: Path) -> None:
    expected = training.evaluate(trained.weights, dataset.write(split, CLASSES, tmp_path / "a"), IMGSZ, "cpu")
    more = dataset.write(split, ("green", "blue", "red"), tmp_path / "b")  # another order, and a label added since
    found = training.evaluate(trained.weights, more, IMGSZ, "cpu")
    assert found == expected


def test_a_class_the_model_lacks_counts_as_zero(trained: Trained, split: Split, tmp_path: Path) -> None:
    def renamed(images: tuple[LabeledImage, ...]) -> tuple[LabeledImage, ...]:
        name = {"red": "scarlet", "blue": "blue"}
        return tuple(
            LabeledImage(
                each.task_id, each.path, tuple(LabeledBox(name[box.label], box.xywh) for box in each.boxes), True
            )
            for each in images
        )

    before = training.evaluate(trained.weights, dataset.write(split, CLASSES, tmp_path / "a"), IMGSZ, "cpu")
    newer = Split(renamed(split.train), renamed(split.val), held_out=True)
    data = dataset.write(newer, ("scarlet", "blue"), tmp_path / "b")
    found = training.evaluate(trained.weights, data, IMGSZ, "cpu")
    assert found.class_ap50 == {"scarlet": 0, "blue": pytest.approx(before.class_ap50["blue"], abs=1e-6)}
    assert found.map50 == pytest.approx(before.class_ap50["blue"] / 2, abs=1e-6)


def test_a_model_that_finds_nothing_has_no_detections(data_yaml: Path, tmp_path: Path) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.save({"model": DetectionModel("yolo11n.yaml", nc=2, verbose=False)}, tmp_path / "blind.pt")
    metrics = training.evaluate(tmp_path / "blind.pt", data_yaml, IMGSZ, "cpu")
    assert (metrics.map50, metrics.map50_95, metrics.detections, metrics.boxes) == (0, 0, 0, 12)


def test_a_validation_set_of_background_images_gives_zero(trained: Trained, split: Split, tmp_path: Path) -> None:
    empty = tuple(LabeledImage(each.task_id, each.path, (), random=True) for each in split.val)
    data = dataset.write(Split(split.train, empty, held_out=True), CLASSES, tmp_path)
    metrics = training.evaluate(trained.weights, data, IMGSZ, "cpu")
    assert (metrics.map50, metrics.boxes, metrics.images, metrics.class_ap50) == (0, 0, 6, {})


def test_the_same_seed_trains_the_same_weights(data_yaml: Path, tmp_path: Path) -> None:
    import torch

    def head(seed: int, name: str) -> torch.Tensor:
        done = training.train(data_yaml, SCRATCH, hyper(seed=seed), tmp_path / name, lambda _: None)
        weights: torch.Tensor = load_model(done.weights).model[-1].cv3[0][-1].weight
        return weights

    first, again, other = head(0, "a"), head(0, "b"), head(1, "c")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolo26n.yaml"])
def test_two_images_of_which_one_is_background_suffice(architecture: str, split: Split, tmp_path: Path) -> None:
    first, second = split.train[:2]
    both = (first, LabeledImage(second.task_id, second.path, (), random=True))
    data = dataset.write(Split(both, both, held_out=False), (*CLASSES, "never seen"), tmp_path / "data")
    base = BaseWeights(architecture, pretrained=False, note="")
    done = training.train(data, base, hyper(epochs=2, batch=16), tmp_path / "run", lambda _: None)
    assert done.losses_finite
    assert load_detector(done.weights, IMGSZ, "cpu").classes == (*CLASSES, "never seen")
    assert training.evaluate(done.weights, data, IMGSZ, "cpu").images == 2


def test_pretrained_weights_are_the_start(trained: Trained, split: Split, data_yaml: Path, tmp_path: Path) -> None:
    base = BaseWeights(str(trained.weights), pretrained=True, note="")
    done = training.train(data_yaml, base, hyper(), tmp_path / "run", lambda _: None)
    before, after = (load_model(path).model[0].conv.weight for path in (trained.weights, done.weights))
    assert 0 < float((after - before).norm()) < 0.3 * float(before.norm())  # a few steps away, not drawn anew
    other = dataset.write(split, ("blue", "red", "green"), tmp_path / "data")  # a new head on the same body
    done = training.train(other, base, hyper(), tmp_path / "other", lambda _: None)
    assert load_detector(done.weights, IMGSZ, "cpu").classes == ("blue", "red", "green")


def test_a_lost_lock_ends_the_training_at_once(data_yaml: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def lose(report: EpochReport) -> None:
        seen.append(report.epoch)
        if report.epoch == 2:
            raise BusyError("the lock was lost")

    with pytest.raises(BusyError, match="the lock was lost"):
        training.train(data_yaml, SCRATCH, hyper(epochs=50), tmp_path / "run", lose)
    assert seen == [1, 2]
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_images_that_ultralytics_refuses_are_a_stated_reason(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_text("not an image")
    both = tuple(LabeledImage(i, path, (LabeledBox("red", (0.5, 0.5, 1, 1)),), True) for i, path in enumerate(paths))
    data = dataset.write(Split(both, both, held_out=False), CLASSES, tmp_path / "data")
    with pytest.raises(TrainingError, match=r"the training failed: \w+"):
        training.train(data, SCRATCH, hyper(), tmp_path / "run", lambda _: None)


def test_training_says_nothing_and_stays_in_its_folder(data_yaml: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend import training as t;"
        "t.train(Path(sys.argv[1]), t.BaseWeights('yolo11n.yaml', False, ''),"
        f"t.Hyper(1, 4, {IMGSZ}, 0, 'cpu'), Path(sys.argv[2]), lambda _: None)"
    )
    here, temporary = tmp_path / "here", tmp_path / "tmp"  # torch itself makes a folder in the latter
    here.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-c", code, str(data_yaml), str(tmp_path / "run")]
    environ = {"HOME": str(here), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(here.rglob("*")) == []


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("folder", ["", "base"])
def test_base_weights_in_the_model_dir_are_used(trained: Trained, tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "mine.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(trained.weights.read_bytes())
    assert training.base_weights("mine.pt", tmp_path) == BaseWeights(str(path), pretrained=True, note="")


@pytest.mark.parametrize("name", ["yolo11n.pt", "yolo26n.pt", "yolov8s.pt"])
@pytest.mark.usefixtures("no_network")
def test_without_pretrained_weights_the_architecture_is_the_base(name: str, tmp_path: Path) -> None:
    quiet_ultralytics()
    started = time.monotonic()
    base = training.base_weights(name, tmp_path)
    assert time.monotonic() - started < 10
    assert (base.source, base.pretrained) == (name.replace(".pt", ".yaml"), False)
    assert f"put {name} into {tmp_path}" in base.note
    mark = tmp_path / "base" / name.replace(".pt", ".unavailable")
    attempted = mark.stat().st_mtime_ns
    assert training.base_weights(name, tmp_path) == base
    assert mark.stat().st_mtime_ns == attempted  # not tried again within the hour


@pytest.mark.parametrize(
    "name", ["", "../yolo11n.pt", "/etc/yolo11n.pt", "a/b.pt", "yolo11n", "yolo11n.onnx", ".pt", "..pt", "yolo\n.pt"]
)
def test_a_base_model_is_the_plain_name_of_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="BASE_MODEL"):
        training.base_weights(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mymodel.pt", "no architecture of that name"),
        ("yolo99n.pt", "no architecture of that name"),
        ("yolo11n-seg.pt", "a segment model, not a detection model"),
    ],
)
def test_an_unknown_base_model_is_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        training.base_weights(name, tmp_path)
    assert name in str(caught.value)
    assert caught.value.fix


def test_a_damaged_base_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "yolo11n.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="cannot read the weights"):
        training.base_weights("yolo11n.pt", tmp_path)


def test_detections_are_counted_at_the_confidence_that_is_kept(trained: Trained, data_yaml: Path, split: Split) -> None:
    detector = load_detector(trained.weights, IMGSZ, "cpu")
    probs = [found.class_probs for found in detector.predict([image.path for image in split.val])]
    metrics = training.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    kept = sum(int((each >= KEEP_CONFIDENCE).sum()) for each in probs)
    assert metrics.detections == pytest.approx(kept, rel=0.5)
