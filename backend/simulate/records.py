"""What an experiment is and what it gives: its frozen plan, a record of each round, and how both lie on disk.

DIR/plan.json                            the plan; another one in the same folder is refused
DIR/data/                                generated scenes, where there is no data set
DIR/seed-<n>/initial/round-001.json      the training on the images drawn at random, shared by all strategies
DIR/seed-<n>/<strategy>/round-<k>.json   a finished round; it does not exist before it is finished
DIR/seed-<n>/<strategy>/weights-<k>.pt   kept while a later round needs them
DIR/results.json, DIR/report.html
"""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.environment import versions as software_versions
from backend.errors import DataError, NotFoundError, SettingError
from backend.model_versions import Metrics
from backend.settings import PROJECT_SETTINGS, Settings
from backend.storage import LocalFiles
from backend.types import YoloTask

INITIAL = "initial"  # stands for all strategies before the first ranking
_GIVEN = ("strategy", "seed")  # settings that the plan has lists of


class Frozen(BaseModel):
    """A JSON object of ours; a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(Frozen):
    """Where a first training starts: a weights file and its sha256, or an architecture to train from scratch."""

    source: str
    sha256: str = ""


class Project(Frozen):
    """A live project whose chance an experiment repeats: production draws by hashes of these ids."""

    id: int
    task_ids: tuple[int, ...]  # of the pool's images, in their order


class Plan(Frozen):
    """What is compared, on which data, under which settings."""

    data: str  # absolute path of data.yaml, or of a folder of classes
    data_sha256: str
    classes: tuple[str, ...]
    pool: int  # images
    test: int
    strategies: tuple[str, ...]
    seeds: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]  # trainings, the one on the initial images included
    initial: Annotated[int, Field(ge=2)]  # images drawn at random
    batch: Annotated[int, Field(ge=1)]  # images labeled between two trainings
    base: Base
    settings: dict[str, Any]  # the settings a project learns with, and the device
    software: dict[str, str]
    project: Project | None = None  # None: one for each seed, that does not exist
    task: YoloTask = "detect"
    quality: str = "mAP50"  # what stands under map50

    def without_paths(self) -> Plan:
        """Return the plan as it may be shown to others: files by their names."""
        base = self.base.model_copy(update={"source": Path(self.base.source).name})
        data = Path(self.data)
        shown = f"{data.parent.name}/{data.name}" if data.suffix else data.name  # of a folder its own name says enough
        return self.model_copy(update={"data": shown, "base": base})

    def settings_for(self, seed: int) -> Settings:
        """Return the settings of the simulated project."""
        return Settings.model_validate(self.settings | {"seed": seed, "retrain_every": self.batch})

    def differs(self, other: Plan) -> str:
        """Return what makes results under the other plan incomparable with ours, empty if nothing does.

        More strategies, seeds or rounds do not: what is finished stays as it would have been.
        """
        for name in ("data_sha256", "classes", "initial", "batch", "software", "project", "task"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} was {mine}, now {theirs}"
        if (self.base.sha256 or self.base.source) != (other.base.sha256 or other.base.source):
            return f"trainings began with {self.base.source}, now with {other.base.source}"
        mine, theirs = self.settings_for(0).model_dump(), other.settings_for(0).model_dump()
        changed = [name for name in mine if mine[name] != theirs[name]]
        return f"{changed[0].upper()} was {mine[changed[0]]}, now {theirs[changed[0]]}" if changed else ""


class Pick(Frozen):
    """One image that was annotated."""

    id: int  # the simulated task's
    image: str  # its path, relative to data.yaml's folder
    random: bool  # chance chose it, so it may be held out for validation
    loss: float | None = None  # of the version that put it to the front, where the strategy learns from losses


class Round(Frozen):
    """One finished round: which images were annotated, and how good the training on all so far is."""

    round: int  # 1 is the training on the initial images
    images: int  # labeled so far
    boxes: int  # labels in them
    picked: tuple[Pick, ...]  # for this round
    metrics: Metrics  # of this training, on the test split
    validation: Metrics  # on the held-out part of the labeled images: all that a strategy may know
    held_out: bool  # False: too few images, validation is the train set
    published: bool  # as production decides; if not, the queue keeps its order
    reason: str
    champion: int  # the round whose version serves after this one, 0: none
    started_from: int = 0  # the round whose weights the training went on from, 0: the base weights
    order: tuple[int, ...]  # the queue behind these picks, which lasts until a version is published
    explored: tuple[int, ...]  # the tasks in it that chance placed
    losses: dict[int, float]  # of the tasks in it, where the strategy learns from losses
    unranked: str = ""  # why the strategy could not rank before this round
    train_s: float
    score_s: float
    rank_s: float


class Row(Frozen):
    """One line of the metrics table."""

    strategy: str
    seed: int
    round: int
    images: int
    boxes: int
    map50: float
    map50_95: float
    class_ap50: dict[str, float]
    published: bool
    unranked: str
    train_s: float
    score_s: float
    rank_s: float
    picked: tuple[str, ...]
    interval: tuple[float, float] | None = None  # of map50, 95%, over the test images; None: results from before


class Results(Frozen):
    """What an experiment gave."""

    plan: Plan
    date: datetime
    machine: str
    rows: tuple[Row, ...]


def learning_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide what a project learns: no addresses, no keys."""
    return {name: getattr(settings, name) for name in (*PROJECT_SETTINGS, "device") if name not in _GIVEN}


def software() -> dict[str, str]:
    """Return the versions on which the numbers depend."""
    return {name: version for name, version in software_versions().items() if name != "label-studio-sdk"}


def machine() -> str:
    """Return the machine in words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def unit_folder(folder: Path, strategy: str, seed: int) -> Path:
    """Return where the rounds of one strategy and seed lie."""
    return folder / f"seed-{seed}" / strategy


def weights_of(unit: Path, number: int) -> Path:
    """Return the weights of a round."""
    return unit / f"weights-{number:03d}.pt"


def save_plan(folder: Path, plan: Plan) -> None:
    """Keep the plan; raises SettingError if the folder holds results of one that does not compare with it."""
    if (folder / "plan.json").exists() and (difference := load_plan(folder).differs(plan)):
        raise SettingError(
            f"this folder holds another experiment: {difference}", where=str(folder), fix="name another --out folder"
        )
    write(folder, "plan.json", plan)


def load_plan(folder: Path) -> Plan:
    """Return the plan; raises NotFoundError if there is none."""
    if not (folder / "plan.json").is_file():
        raise NotFoundError("no experiment here", where=str(folder), fix="run `yolo-backend simulate` with this --out")
    plan: Plan = _read(folder / "plan.json", Plan)
    return plan


def load_rounds(unit: Path) -> tuple[Round, ...]:
    """Return the finished rounds of a unit in order."""
    return tuple(load_round(path) for path in sorted(unit.glob("round-*.json")))


def load_round(path: Path) -> Round:
    """Return a finished round; raises DataError for a damaged file."""
    finished: Round = _read(path, Round)
    return finished


def save_round(unit: Path, finished: Round) -> None:
    """Keep a finished round: the last write of it, whole or not at all."""
    write(unit, f"round-{finished.round:03d}.json", finished)


def rows_of(folder: Path, strategy: str, seed: int, rounds: int) -> tuple[Row, ...]:
    """Return the lines of the metrics table that a unit has so far."""
    return tuple(
        Row(
            strategy=strategy,
            seed=seed,
            round=one.round,
            images=one.images,
            boxes=one.boxes,
            map50=one.metrics.map50,
            map50_95=one.metrics.map50_95,
            class_ap50=dict(one.metrics.class_ap50),
            published=one.published,
            unranked=one.unranked,
            train_s=one.train_s,
            score_s=one.score_s,
            rank_s=one.rank_s,
            picked=tuple(pick.image for pick in one.picked),
            interval=one.metrics.interval,
        )
        for one in load_rounds(unit_folder(folder, strategy, seed))
        if one.round <= rounds
    )


def write(folder: Path, name: str, value: BaseModel) -> None:
    """Write a JSON file atomically."""
    LocalFiles(folder).write(name, value.model_dump_json(indent=1).encode())


def load_results(path: Path) -> Results:
    """Return the results of an experiment; raises DataError for a damaged file."""
    results: Results = _read(path, Results)
    return results


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"not a file of an experiment: {place} {first['msg']}", where=str(path), fix="delete it, and run again"
        ) from None
