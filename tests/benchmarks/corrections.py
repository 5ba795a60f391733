"""Do wrong labels, corrected later, harm a version that continues from the last one?

`python -m tests.benchmarks.corrections FOLDER` trains on random scenes with a long tail and writes
docs/experiments/corrections.json. With the same folder it continues after a kill. Before the second round, all wrong
labels of the first round are corrected.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.environment import versions as software_versions
from backend.model_versions import Metrics
from backend.policy.hyper_parameters import epochs_for
from backend.settings import Settings
from backend.simulate import records, runner, simulation_data
from backend.simulate.simulation_data import SimulationData
from backend.storage import LocalFiles
from backend.types import HyperParameters
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.runtime import fix_threads
from tests.benchmarks import base
from tests.benchmarks.lines import COMMITTED, Line, Table

NAME, RECORD = "corrections", "round.json"
SEEDS, IMAGES, WRONG = 3, (60, 120, 180), 0.3  # WRONG: share of the first images' boxes with another class
SETTINGS = Settings(base_model=base.NAME, imgsz=base.SIZE, train_steps=150, min_epochs=10)


@dataclass(frozen=True, slots=True)
class Arm:
    """One line: whether some of its first labels are wrong, and where its later trainings start."""

    name: str
    mistakes: bool
    goes_on: bool


ARMS = (
    Arm("restart", mistakes=True, goes_on=False),
    Arm("continue", mistakes=True, goes_on=True),
    Arm("continue, nothing was wrong", mistakes=False, goes_on=True),
)


class Round(records.Frozen):
    """One finished training of an arm."""

    metrics: Metrics
    boxes: int


def run(folder: Path) -> Table:
    """Run the missing trainings, and return the learning curves."""
    fix_threads(1)
    weights = folder / "base" / base.NAME
    if not weights.is_file():
        base.train(weights.parent)
    data = simulation_data.read(runner.generated("scenes", folder / "data" / "scenes"))
    lines = []
    for arm in ARMS:
        by_seed = [rounds(data, arm, seed, weights, folder / NAME) for seed in range(SEEDS)]
        lines.append(
            Line(
                name=arm.name,
                images=tuple(tuple(map(float, IMAGES)) for _ in by_seed),
                boxes=tuple(tuple(float(finished.boxes) for finished in rounds_of_seed) for rounds_of_seed in by_seed),
                quality=tuple(
                    tuple(round(finished.metrics.map50, 4) for finished in rounds_of_seed) for rounds_of_seed in by_seed
                ),
                map50_95=tuple(
                    tuple(round(finished.metrics.map50_95, 4) for finished in rounds_of_seed)
                    for rounds_of_seed in by_seed
                ),
            )
        )
    facts = (
        f"Random images, {len(data.test)} test images, {SETTINGS.imgsz} px, fine-tuned from {base.NAME}, "
        f"{SETTINGS.train_steps} · (n/50)^{SETTINGS.steps_growth:g} steps; {WRONG:.0%} of the boxes of the first "
        f"{IMAGES[0]} images have a wrong class, corrected before the second training."
    )
    return Table(
        lines=tuple(lines),
        facts=facts,
        date=datetime.now(UTC),
        machine=records.machine(),
        software=software_versions(),
    )


def rounds(data: SimulationData, arm: Arm, seed: int, base_weights: Path, folder: Path) -> list[Round]:
    """Return the rounds of an arm with a seed; arms with the same first training share it."""
    order = np.random.default_rng(seed).permutation(len(data.pool))
    done: list[Round] = []
    start = base_weights
    for number, count in enumerate(IMAGES, 1):
        first = number == 1
        name = f"first-{arm.mistakes}" if first else f"{arm.name}-{number}"
        place = folder / f"seed-{seed}" / name.replace(" ", "-").replace(",", "")
        images = [data.labeled(image, image + 1, random=True) for image in order[:count].tolist()]
        if first and arm.mistakes:
            images = [_spoiled(image, data.classes, np.random.default_rng((seed, image.task_id))) for image in images]
        if not (place / RECORD).is_file():
            _fit(data, images, start, seed, place)
        done.append(Round.model_validate_json((place / RECORD).read_bytes()))
        start = place / "weights.pt" if arm.goes_on else base_weights
    return done


def _spoiled(image: LabeledImage, classes: Sequence[str], rng: np.random.Generator) -> LabeledImage:
    """Return an image in which each box gets a wrong class with probability WRONG."""
    boxes = tuple(
        replace(box, label=str(rng.choice([name for name in classes if name != box.label])))
        if rng.random() < WRONG
        else box
        for box in image.boxes
    )
    return replace(image, boxes=boxes)


def _fit(data: SimulationData, images: Sequence[LabeledImage], start: Path, seed: int, place: Path) -> None:
    """Train and measure; the record is written last, and marks the training as finished."""
    shutil.rmtree(place, ignore_errors=True)
    every = tuple(images)
    train_set = writer.write(Split(every, every, held_out=False), data.classes, place / "data")
    hyper = HyperParameters(epochs_for(len(every), SETTINGS), SETTINGS.batch, SETTINGS.imgsz, seed, SETTINGS.device)
    weights = BaseWeights(str(start), pretrained=True, note="")
    done = training.train(train_set, weights, hyper, place / "run", lambda _: None)
    test_set = writer.write_test_set(data.test, data.classes, place / "test")
    metrics = evaluate.evaluate(done.weights, test_set, SETTINGS.imgsz, SETTINGS.device)
    done.weights.replace(place / "weights.pt")
    for folder in ("data", "test", "run"):
        shutil.rmtree(place / folder)
    print(place.parent.name, place.name, f"{metrics.map50:.3f}", flush=True)
    finished = Round(metrics=metrics, boxes=sum(len(image.boxes) for image in every))
    LocalFiles(place).write(RECORD, finished.model_dump_json().encode())


if __name__ == "__main__":
    records.write(COMMITTED, f"{NAME}.json", run(Path(sys.argv[1])))
