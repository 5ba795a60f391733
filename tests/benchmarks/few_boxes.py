"""Which rule should decide while hardly any image is held out? The question of few_labels.py, for YOLO.

`python -m tests.benchmarks.few_boxes FOLDER SEEDS [--crossed]`; the option adds cross-validation, which trains thrice.

A project has generated scenes. It uses the parts of `yolo-backend simulate`: task ids, the queue before the first
version, held-out images, trainings and measurements. Each training starts from letters.pt (base.py). So the decision of
a rule changes no later training, and all rules share the trainings. FOLDER only keeps the models' matches; a killed run
continues there. The run writes docs/few-boxes.json; `proof` writes the results into docs/results.md.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from backend.datasets import synthetic, writer
from backend.datasets.writer import LabeledImage, Split
from backend.evaluation.samples import Matches
from backend.policy.hyper_parameters import epochs_for
from backend.sampling import ranking
from backend.settings import Settings
from backend.simulate import records, simulation_data
from backend.simulate.simulation_data import SimulationData
from backend.storage import LocalFiles
from backend.types import HyperParameters, IntArray
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.runtime import fix_threads
from tests.benchmarks import base
from tests.benchmarks.promotion_rules import Challenger, Project, Round, Table, halves_of, losses, table

ROUNDS, PER_ROUND, POOL, TEST = 2, 15, 400, 60
LABELS = ROUNDS * PER_ROUND
SIZE, BATCH, BASE_STEPS, STEPS, SPOILED = 96, 8, 400, 60, 6
SETTINGS: Mapping[str, Settings] = {
    kind: Settings(base_model=base.NAME, imgsz=SIZE, batch=BATCH, train_steps=steps, min_epochs=1)
    for kind, steps in (("good", STEPS), ("spoiled", SPOILED))
}
KEPT = Path(__file__).parents[2] / "docs" / "few-boxes.json"
FINDING = """Where nothing is spoiled, "publish" and "clearly better" lose 0.014, beyond noise. "All labels" loses
least, 0.002, and cross-validation 0.008; their intervals reach 0. Cross-validation trains thrice, and decides no
better. Where the second training is spoiled, only "publish" loses: 0.015, with an interval that reaches 0. Every other
rule refuses the spoiled training at each seed.

An earlier run without `--crossed` had better base weights, because training them gives other numbers on another
machine. The mAP50 of its good trainings was 0.147 and 0.142. "Publish" lost 0.064 (0.016 to 0.119) where the second
training was spoiled, and "all labels" nothing. Where nothing was spoiled, every rule lost 0.011 or less. So the size of
a loss depends on the base weights; in both runs "all labels" lost 0.004 or less. Not measured: longer trainings, more
than two rounds, photographs."""
_FIRST = 10_000  # row 0 as a task id: all rows have as many digits, so that their names sort as they do


def run(folder: Path, seeds: int, *, crossed: bool) -> Table:
    """Run the missing trainings, and return the losses of the rules."""
    fix_threads(1)
    weights = folder / "base" / base.NAME
    if not weights.is_file():
        base.train(weights.parent, size=SIZE, steps=BASE_STEPS)
    data_yaml = folder / "data" / "data.yaml"
    if not data_yaml.is_file():
        synthetic.generate(data_yaml.parent, pool=POOL, test=TEST, seed=0, tail=0.0, size=SIZE)
    data = simulation_data.read(data_yaml)
    projects = [Trainings(data, seed, weights, folder / f"seed-{seed}", crossed).project() for seed in range(seeds)]
    return table(projects, records.software())


@dataclass(frozen=True, slots=True)
class Trainings:
    """The trainings of one seed; the rows of their matches are first the labeled images, then the test images."""

    data: SimulationData
    seed: int
    start: Path
    folder: Path
    crossed: bool

    def project(self) -> Project:
        """Return the rounds, after running the missing trainings."""
        images = self._queue()
        rounds = [self._round(number, images) for number in range(1, ROUNDS + 1)]
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        return Project(rounds, np.arange(LABELS, LABELS + TEST))

    def _queue(self) -> tuple[LabeledImage, ...]:
        """Return the images that get labels, in the queue order of `simulate` before the first version."""
        ids = simulation_data.task_ids(self.data, self.seed)
        order = ranking.shuffled(ids)[:LABELS]
        return tuple(self.data.labeled(int(row), int(ids[row]), random=True) for row in order)

    def _round(self, number: int, images: Sequence[LabeledImage]) -> Round:
        labeled = images[: number * PER_ROUND]
        split = writer.split(labeled, val_share=SETTINGS["good"].val_share, project_id=self.seed + 1)
        row = {image.task_id: place for place, image in enumerate(labeled)}
        learned: IntArray = np.sort([row[image.task_id] for image in split.train]).astype(np.int64)
        held: IntArray = np.sort([row[image.task_id] for image in split.val]).astype(np.int64)
        halves = halves_of(learned[learned >= (number - 1) * PER_ROUND])
        challengers = {
            kind: Challenger(
                self._matches(f"{number}-{kind}-whole", images, learned, settings),
                tuple(
                    self._matches(f"{number}-{kind}-{part}", images, np.setdiff1d(learned, half), settings)
                    for part, half in enumerate(halves, 1)
                    if number > 1 and self.crossed
                ),
            )
            for kind, settings in SETTINGS.items()
        }
        return Round(held if split.held_out else held[:0], np.arange(len(labeled)), halves, challengers)

    def _matches(self, name: str, images: Sequence[LabeledImage], rows: IntArray, settings: Settings) -> Matches:
        """Train on some rows, and return the model's matches in all images; read them from the file if it exists."""
        file_path = self.folder / f"{name}.npz"
        if not file_path.is_file():
            weights = self._train([images[row] for row in rows], settings)
            sample = evaluate.measure(weights, self._everything(images), settings.imgsz, settings.device).sample
            _keep(file_path, cast("Matches", sample))  # boxes are measured by their matches
            print(self.folder.name, name, flush=True)
        with np.load(file_path) as arrays:
            return Matches(**arrays)

    def _train(self, images: Sequence[LabeledImage], settings: Settings) -> Path:
        work, every = self.folder / "work", tuple(images)
        data_yaml = writer.write(Split(every, every, held_out=False), self.data.classes, work / "data")
        epochs = epochs_for(len(every), settings)
        hyper = HyperParameters(epochs, settings.batch, settings.imgsz, self.seed, settings.device)
        start = BaseWeights(str(self.start), pretrained=True, note="")
        return training.train(data_yaml, start, hyper, work / "run", lambda _: None).weights

    def _everything(self, images: Sequence[LabeledImage]) -> Path:
        """Return the data.yaml of all rows, written once."""
        root = self.folder / "work" / "everything"
        if (root / "data.yaml").is_file():
            return root / "data.yaml"
        files = [(image.path, image.boxes) for image in images] + [(file.path, file.boxes) for file in self.data.test]
        rows = tuple(LabeledImage(_FIRST + row, path, boxes, random=True) for row, (path, boxes) in enumerate(files))
        return writer.write(Split(rows, rows, held_out=False), self.data.classes, root)


def _keep(path: Path, matches: Matches) -> None:
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays,
        images=matches.images,
        classes=matches.classes,
        confidence=matches.confidence,
        right=matches.right,
        labels=matches.labels,
    )
    LocalFiles(path.parent).write(path.name, arrays.getvalue())


def section() -> str:
    """Return this experiment's part of docs/results.md."""
    results = Table.model_validate_json(KEPT.read_bytes())
    crossed = " --crossed" if any(line.rule == "cross-validation" for line in results.lines) else ""
    software = ", ".join(f"{name} {number}" for name, number in results.software.items())
    good, spoiled = (", ".join(f"{value:.3f}" for value in values) for values in (results.good, results.spoiled))
    held_out = f"{results.held_out[0]:.1f} to {results.held_out[-1]:.1f}"
    return f"""
## Which rule should decide while hardly any image is held out? The same with YOLO

`python -m tests.benchmarks.few_boxes FOLDER {results.seeds}{crossed}`

{results.seeds} seeds, {software}.
YOLO11n learns generated scenes of {SIZE} px. Each training starts from weights that learned to detect letters in
{BASE_STEPS} steps. There are {results.labels[0]} labels in the first round and {results.labels[-1]} in the last one;
on average, {held_out} of them are held out. Good trainings have {STEPS} steps. Their mAP50 in the
rounds is {good}, on {TEST} test images. Spoiled trainings have `TRAIN_STEPS={SPOILED}`, and an mAP50 of {spoiled}.
The table shows the losses of the rules above.

{losses(results)}
{FINDING}
"""


if __name__ == "__main__":
    records.write(KEPT.parent, KEPT.name, run(Path(sys.argv[1]), int(sys.argv[2]), crossed="--crossed" in sys.argv))
