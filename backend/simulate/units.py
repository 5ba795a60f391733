"""Offline pool-based experiments: the live loop's ranking, inference and training, with true labels as the annotator.

A unit is one strategy with one seed. Its state is its history on disk, so a unit that was killed continues where it
stopped. Every unit runs in its own process with one thread, so that its results depend on the plan only.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import DataError, ModelError
from backend.evaluation.bootstrap import Measured
from backend.model_versions import Metrics
from backend.policy.hyper_parameters import hyper_parameters
from backend.policy.judgement import judge_challenger
from backend.policy.training_start import Origin, starts_from_served
from backend.settings import Settings
from backend.simulate import first_batches, queues, records, simulation_data
from backend.simulate.history import History
from backend.simulate.queues import Queue
from backend.simulate.records import Pick, Plan, Project, Round
from backend.simulate.simulated_pool import Knowledge, PastLosses, gather
from backend.simulate.simulation_data import SimulationData
from backend.yolo import evaluate, training
from backend.yolo.base_weights import BaseWeights, architecture_to_learn
from backend.yolo.runtime import fix_threads
from backend.yolo.training import EpochReport

log = logging.getLogger(__name__)

THREADS = 1  # per unit; with more threads, the sums of a training depend on the machine


@dataclass(frozen=True, slots=True)
class Judged:
    """The measurements of a round, and whether its version is published."""

    test: Metrics
    validation: Metrics
    published: bool
    reason: str


def run_unit(folder: Path, strategy: str, seed: int) -> None:
    """Run the missing rounds of a unit: of a line, or of the training on a first batch that lines of a seed share.

    Waits while another process runs the same unit.
    """
    unit = records.unit_folder(folder, strategy, seed)
    unit.mkdir(parents=True, exist_ok=True)
    with _locked(unit):
        try:
            Unit(folder, strategy, seed).run()
        finally:
            shutil.rmtree(unit / "work", ignore_errors=True)


class Unit:
    """One strategy with one seed, from its last finished round to the last round of the plan."""

    def __init__(self, folder: Path, strategy: str, seed: int) -> None:
        self._plan: Plan = records.load_plan(folder)
        self._data: SimulationData = _data(self._plan)
        self._settings: Settings = self._plan.settings_for(seed)
        self._is_initial = first_batches.first_of(strategy) is not None
        first, self._strategy = first_batches.parts(strategy, self._settings.first_batch)
        self._first = first_batches.first_of(strategy) or first
        self._seed = seed
        self._history = History(folder, strategy, seed, self._settings)
        self._work = records.unit_folder(folder, strategy, seed) / "work"
        project = _project(self._plan, self._data, seed)
        self._project_id = project.id  # decides which images are held out, as in the live loop
        self._ids = np.array(project.task_ids, dtype=np.int64)
        self._image_of = {task_id: image for image, task_id in enumerate(self._ids.tolist())}

    def run(self) -> None:
        """Run the missing rounds."""
        fix_threads(THREADS)
        shutil.rmtree(self._work, ignore_errors=True)  # a killed unit leaves an incomplete folder
        last = 1 if self._is_initial else self._plan.rounds
        if not self._history and not self._is_initial:
            self._history.begin()
        while len(self._history) < last:
            self._history.keep(*self._round(len(self._history) + 1))

    def _round(self, number: int) -> tuple[Round, Path]:
        """Run a round; return its record and its weights."""
        self._history.report(0.0)
        queue = self.queue(number)
        count = self._plan.batch if number > 1 else self._plan.initial
        picks = tuple(self._pick(task_id, queue) for task_id in queue.order[:count])
        labeled = self._labeled((*self._history.picks, *picks))
        split = self._split(labeled)
        data_yaml = writer.write(split, self._data.classes, self._work / "data", self._plan.task, self._data.details)
        start = self._start(split)
        weights, seconds = self._train(data_yaml, split, start)
        judged = self._judge(weights, data_yaml, split)
        finished = Round(
            round=number,
            images=len(labeled),
            boxes=sum(len(image.boxes) for image in labeled),
            picked=picks,
            metrics=judged.test,
            validation=judged.validation,
            held_out=split.held_out,
            published=judged.published,
            reason=judged.reason,
            champion=number if judged.published else self._history.champion,
            started_from=start,
            order=queue.order[count:],
            explored=tuple(task_id for task_id in queue.order[count:] if task_id in queue.explored),
            losses={task_id: queue.losses[task_id] for task_id in queue.order[count:] if task_id in queue.losses},
            unranked=queue.unranked,
            train_s=seconds,
            score_s=queue.score_s,
            rank_s=queue.rank_s,
        )
        return finished, weights

    def queue(self, number: int) -> Queue:
        """Return the unlabeled tasks in the order of the queue, as in the live loop."""
        if number == 1:
            return self._first_queue()
        last_round = self._history.last
        unchanged = Queue(last_round.order, frozenset(last_round.explored), last_round.losses)
        return self._ranked(last_round, unchanged) if last_round.published else unchanged

    def _first_queue(self) -> Queue:
        """Return the queue before the first training: at random, or as the first batch ranks it by the base weights."""
        if self._first == first_batches.RANDOM:
            return queues.by_chance(self._ids)
        knowledge = Knowledge(
            versions=(Path(self._plan.base.source),),
            unlabeled=tuple(self._task(task_id, random=False) for task_id in sorted(self._image_of)),
            split=Split((), (), held_out=False),
            learned=frozenset(),
            past=(),
            validation=None,
            threads=THREADS,
        )
        settings = self._settings.model_copy(update={"retrain_every": self._plan.initial})
        return queues.by_first_batch(knowledge, self._first, settings, self._project_id)

    def _ranked(self, before: Round, unchanged: Queue) -> Queue:
        """Return the queue as ranked by the version of round `before`; the unchanged queue if that cannot rank."""
        settings = self._settings
        started = time.perf_counter()
        losses = unchanged.losses
        try:
            scored = gather(self._knowledge(before), self._strategy, settings)
            losses, spent = scored.losses, time.perf_counter() - started
            return queues.by_strategy(
                scored, self._strategy, settings, self._project_id, number=before.round, score_s=spent
            )
        except ModelError as error:  # the live loop keeps the order too, and shows the reason on the status page
            log.warning("%s, seed %d: %s", self._strategy, self._seed, error)
            return replace(unchanged, losses=losses, unranked=str(error), score_s=time.perf_counter() - started)

    def _knowledge(self, before: Round) -> Knowledge:
        """Return the knowledge of the project after round `before`, whose version serves."""
        return Knowledge(
            versions=tuple(self._history.weights(number) for number in self._history.voters()),
            unlabeled=tuple(self._task(task_id, random=False) for task_id in sorted(before.order)),
            split=self._split(self._labeled(self._history.picks)),
            learned=self._learned(before.round),
            past=tuple(
                PastLosses(self._learned(number), self._history.losses(number))
                for number in self._history.older_versions()
            ),
            validation=before.validation,
            threads=THREADS,
        )

    def _start(self, split: Split) -> int:
        """Return the round whose weights a training starts from, 0: the base weights."""
        champion = self._history.champion
        continues = starts_from_served(
            Origin(self._data.classes, self._plan.base.source, self._learned(champion)) if champion else None,
            train_from=self._settings.train_from,
            classes=self._data.classes,
            base_model=self._plan.base.source,
            held_out=split.held_out_tasks,
        )
        return champion if continues else 0

    def _learned(self, number: int) -> frozenset[int]:
        """Return the tasks that the weights of a round have ever learned from."""
        return self._history.learned(number, lambda picks: self._split(self._labeled(picks)).learned_tasks)

    def _train(self, data_yaml: Path, split: Split, start: int) -> tuple[Path, float]:
        settings, base = self._settings, self._plan.base
        task, learned = self._plan.task, architecture_to_learn(Path(base.source).name, self._plan.task)
        base_weights = BaseWeights(base.source, bool(base.sha256), note="", task=task, architecture=learned)
        if start:
            base_weights = replace(
                base_weights, architecture="", source=str(self._history.weights(start)), pretrained=True
            )
        hyper = hyper_parameters(len(split.train), settings)

        def on_epoch(report: EpochReport) -> None:
            """Report the progress of the training."""
            self._history.report(report.epoch / report.epochs)

        trained = training.train(data_yaml, base_weights, hyper, self._work / "run", on_epoch)
        self._finite = trained.losses_finite
        return trained.weights, trained.seconds

    def _judge(self, weights: Path, data_yaml: Path, split: Split) -> Judged:
        """Measure on the test split, and decide by the validation set alone, as the live loop does."""
        size, device = self._settings.imgsz, self._settings.device
        test = evaluate.evaluate(weights, self._test_set(), size, device)
        models = [weights]
        if number := self._history.champion:
            models.append(self._history.weights(number))
        outcome = judge_challenger(
            self._measured(models, data_yaml),
            lambda: self._on_labels(models, split),
            held_out=split.held_out,
            finite=self._finite,
            tolerance=self._settings.tolerance,
            quality=self._plan.quality,
        )
        return Judged(test, outcome.challenger, outcome.promoted, outcome.reason)

    def _measured(self, models: Sequence[Path], data_yaml: Path) -> list[Measured]:
        settings = self._settings
        return [evaluate.measure(weights, data_yaml, settings.imgsz, settings.device) for weights in models]

    def _on_labels(self, models: Sequence[Path], split: Split) -> list[Measured]:
        """Measure the models on all labeled images."""
        folder, data = self._work / "labels", self._data
        data_yaml = writer.write(split.whole(), data.classes, folder, self._plan.task, data.details)
        return self._measured(models, data_yaml)

    def _test_set(self) -> Path:
        """Return the data.yaml of the test split, written once, because that takes long for a large split."""
        root, data = self._work / "test", self._data
        if (root / "data.yaml").is_file():
            return root / "data.yaml"
        return writer.write_test_set(data.test, data.classes, root, self._plan.task, data.details)

    def _labeled(self, picks: Sequence[Pick]) -> tuple[LabeledImage, ...]:
        """Return picked images with their labels, ordered by task id as Label Studio does."""
        return tuple(self._task(pick.id, random=pick.random) for pick in sorted(picks, key=lambda pick: pick.id))

    def _split(self, images: Sequence[LabeledImage]) -> Split:
        return writer.split(images, val_share=self._settings.val_share, project_id=self._project_id)

    def _task(self, task_id: int, *, random: bool) -> LabeledImage:
        return self._data.labeled(self._image_of[task_id], task_id, random=random)

    def _pick(self, task_id: int, queue: Queue) -> Pick:
        image = self._data.name(self._image_of[task_id])
        return Pick(id=task_id, image=image, random=task_id in queue.explored, loss=queue.losses.get(task_id))


def _data(plan: Plan) -> SimulationData:
    data = simulation_data.read(Path(plan.data), plan.task)
    if data.sha256() != plan.data_sha256:
        raise DataError("the data set has changed since the experiment began", where=plan.data, fix="use another --out")
    return data


def _project(plan: Plan, data: SimulationData, seed: int) -> Project:
    """Return the plan's project, else an imaginary project of the seed."""
    return plan.project or Project(id=seed + 1, task_ids=tuple(simulation_data.task_ids(data, seed).tolist()))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs; wait for it if needed. It ends with the process.

    The unit of a killed command runs on for a moment, or for longer on a worker.
    """
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
