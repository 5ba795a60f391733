from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import BusyError, TrainingError, machine_fault
from backend.types import LabeledBox
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.detector import load_detector
from backend.yolo.runtime import load_model
from backend.yolo.training import EpochReport, Trained
from tests.squares import CLASSES, IMGSZ, SCRATCH, Learned, hyper

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def split(learned: Learned) -> Split:
    return learned.split


@pytest.fixture(scope="module")
def data_yaml(learned: Learned) -> Path:
    return learned.data_yaml


@pytest.fixture(scope="module")
def reports(learned: Learned) -> tuple[EpochReport, ...]:
    return learned.reports


@pytest.fixture(scope="module")
def trained(learned: Learned) -> Trained:
    return learned.trained


def test_a_training_ends_within_its_minutes(data_yaml: Path, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    short = replace(hyper(epochs=500), minutes=0.001)  # the first epoch is longer
    done = training.train(data_yaml, SCRATCH, short, tmp_path, reports.append)
    assert (done.epochs, [report.epochs for report in reports]) == (2, [2, 2])
    assert done.weights.is_file()


def test_training_from_scratch_learns(trained: Trained, data_yaml: Path) -> None:
    metrics = evaluate.evaluate(trained.weights, data_yaml, IMGSZ, "cpu")
    assert metrics.map50 > 0.3
    assert (metrics.images, metrics.boxes) == (6, 12)
    assert metrics.detections > 0
    assert metrics.map50 == pytest.approx(sum(metrics.class_ap50.values()) / 2)
    assert set(metrics.class_ap50) == set(CLASSES)


def test_a_training_from_scratch_on_a_cpu_computes_in_float32(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without instructions for bfloat16, a CPU takes twenty times as long for the updates of the optimiser."""

    def refuse(*_: object) -> None:
        raise AssertionError("computed in bfloat16")

    monkeypatch.setattr("ultralytics.optim.muon.zeropower_via_newtonschulz5", refuse)
    assert training.train(data_yaml, SCRATCH, hyper(epochs=1), tmp_path, lambda _: None).losses_finite


@pytest.mark.parametrize("room", [3, 0])
def test_out_of_gpu_memory_means_half_the_batch(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """This happens in any epoch, until the batch fits; an optimiser step has as many images as before.

    The GPU's error is a fake.
    """
    batches, steps, original = list[int](), list[int](), training.run_class("detect")

    class SmallGpu(original):  # type: ignore[misc, valid-type]
        def optimizer_step(self) -> None:
            batches.append(self.batch_size)
            steps.append(self.args.nbs)
            if self.batch_size > room and self.epoch == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            super().optimizer_step()

    monkeypatch.setattr(training, "run_class", lambda _: SmallGpu)
    options = replace(hyper(epochs=2), batch=8)
    if room:
        done = training.train(data_yaml, SCRATCH, options, tmp_path, lambda _: None)
        assert done.epochs == 2
        assert list(dict.fromkeys(batches)) == [8, 4, 2]
        assert set(steps) == {8}
        return
    with pytest.raises(TrainingError, match="CUDA out of memory") as failure:
        training.train(data_yaml, SCRATCH, options, tmp_path, lambda _: None)
    assert list(dict.fromkeys(batches)) == [8, 4, 2, 1]
    fault = machine_fault(failure.value)
    assert fault is not None
    assert fault.what == "the GPU has no memory left"


def test_every_epoch_is_reported(trained: Trained, reports: tuple[EpochReport, ...]) -> None:
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
    assert sum(len(prediction.boxes) for prediction in detector.predict([image.path for image in split.val])) > 0


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
    data = writer.write(Split(both, both, held_out=False), (*CLASSES, "never seen"), tmp_path / "data")
    base = BaseWeights(architecture, pretrained=False, note="")
    done = training.train(data, base, hyper(epochs=2, batch=16), tmp_path / "run", lambda _: None)
    assert done.losses_finite
    assert load_detector(done.weights, IMGSZ, "cpu").classes == (*CLASSES, "never seen")
    assert evaluate.evaluate(done.weights, data, IMGSZ, "cpu").images == 2


def test_pretrained_weights_are_the_start(trained: Trained, split: Split, data_yaml: Path, tmp_path: Path) -> None:
    base = BaseWeights(str(trained.weights), pretrained=True, note="")
    done = training.train(data_yaml, base, hyper(), tmp_path / "run", lambda _: None)
    before, after = (load_model(path).model[0].conv.weight for path in (trained.weights, done.weights))
    assert 0 < float((after - before).norm()) < 0.3 * float(before.norm())  # a few steps away, not drawn anew
    other = writer.write(split, ("blue", "red", "green"), tmp_path / "data")  # a new head on the same body
    done = training.train(other, base, hyper(), tmp_path / "other", lambda _: None)
    assert load_detector(done.weights, IMGSZ, "cpu").classes == ("blue", "red", "green")


def test_a_lost_lock_ends_the_training_at_once(data_yaml: Path, tmp_path: Path) -> None:
    epochs: list[int] = []

    def lose(report: EpochReport) -> None:
        epochs.append(report.epoch)
        if report.epoch == 2:
            raise BusyError("the lock was lost")

    with pytest.raises(BusyError, match="the lock was lost"):
        training.train(data_yaml, SCRATCH, hyper(epochs=50), tmp_path / "run", lose)
    assert epochs == [1, 2]
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_images_that_ultralytics_refuses_are_a_stated_reason(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_text("not an image")
    both = tuple(LabeledImage(i, path, (LabeledBox("red", (0.5, 0.5, 1, 1)),), True) for i, path in enumerate(paths))
    data = writer.write(Split(both, both, held_out=False), CLASSES, tmp_path / "data")
    with pytest.raises(TrainingError, match=r"the training failed: \w+"):
        training.train(data, SCRATCH, hyper(), tmp_path / "run", lambda _: None)


def test_training_says_nothing_and_stays_in_its_folder(data_yaml: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.yolo import base_weights, training as t;"
        "t.train(Path(sys.argv[1]), base_weights.BaseWeights('yolo11n.yaml', False, ''),"
        f"t.HyperParameters(1, 4, {IMGSZ}, 0, 'cpu'), Path(sys.argv[2]), lambda _: None)"
    )
    here, temporary = tmp_path / "here", tmp_path / "tmp"  # torch itself makes a folder in the latter
    here.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-c", code, str(data_yaml), str(tmp_path / "run")]
    environ = {"HOME": str(here), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(here.rglob("*")) == []
