"""The records of an experiment: its frozen plan, one record per round, the results, and their files.

DIR/plan.json                            the plan; a different plan for the same folder is refused
DIR/data/                                generated scenes, if there is no data set
DIR/seed-<n>/initial/round-001.json      the training on the images drawn at random, shared by the lines that begin so
DIR/seed-<n>/initial-<first>/...         the same for another first batch
DIR/seed-<n>/<strategy>/round-<k>.json   a finished round; written when it is finished
DIR/seed-<n>/<strategy>/weights-<k>.pt   its weights, while a later round needs them
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

INITIAL = "initial"  # in place of a strategy: the training on the first batch, see first_batches
_LISTED = ("strategy", "seed")  # settings that the plan holds as lists


class Frozen(BaseModel):
    """A frozen JSON object that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(Frozen):
    """The start of the first training: a weights file and its sha256, or an architecture to train from scratch."""

    source: str
    sha256: str = ""


class Project(Frozen):
    """A live project whose random draws an experiment repeats: the live loop draws by hashes of these ids."""

    id: int
    task_ids: tuple[int, ...]  # of the pool's images, in their order


class Plan(Frozen):
    """The plan of an experiment: strategies, data and settings."""

    data: str  # absolute path of data.yaml, or of a folder of classes
    data_sha256: str
    classes: tuple[str, ...]
    pool: int  # images
    test: int
    strategies: tuple[str, ...]
    seeds: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]  # trainings, the one on the initial images included
    initial: Annotated[int, Field(ge=2)]  # images of the first batch
    batch: Annotated[int, Field(ge=1)]  # images labeled between two trainings
    base: Base
    settings: dict[str, Any]  # the settings a project learns with, and the device
    software: dict[str, str]
    project: Project | None = None  # None: an imaginary project for each seed
    task: YoloTask = "detect"
    quality: str = "mAP50"  # name of the quality in `map50`

    def without_paths(self) -> Plan:
        """Return the plan without folders, so that it can be published."""
        base = self.base.model_copy(update={"source": Path(self.base.source).name})
        data = Path(self.data)
        shown = f"{data.parent.name}/{data.name}" if data.suffix else data.name  # the name of a folder suffices
        return self.model_copy(update={"data": shown, "base": base})

    def settings_for(self, seed: int) -> Settings:
        """Return the settings of the simulated project."""
        return Settings.model_validate(self.settings | {"seed": seed, "retrain_every": self.batch})

    def differs(self, other: Plan) -> str:
        """Return the difference that makes results of the other plan incomparable with ours, empty if there is none.

        More strategies, seeds or rounds are no such difference: they do not change finished rounds.
        """
        for name in ("data_sha256", "classes", "initial", "batch", "software", "project", "task"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name} was {ours}, now {theirs}"
        if (self.base.sha256 or self.base.source) != (other.base.sha256 or other.base.source):
            return f"trainings began with {self.base.source}, now with {other.base.source}"
        ours, theirs = self.settings_for(0).model_dump(), other.settings_for(0).model_dump()
        changed = [name for name in ours if ours[name] != theirs[name]]
        return f"{changed[0].upper()} was {ours[changed[0]]}, now {theirs[changed[0]]}" if changed else ""


class Pick(Frozen):
    """One image that was annotated."""

    id: int  # the simulated task's
    image: str  # its path, relative to data.yaml's folder
    random: bool  # drawn at random, so it may be held out for validation
    loss: float | None = None  # of the version that ranked it, if the strategy learns from losses


class Round(Frozen):
    """One finished round: the images annotated for it, and the quality of the training on all images so far."""

    round: int  # 1 is the training on the initial images
    images: int  # labeled so far
    boxes: int  # labels in them
    picked: tuple[Pick, ...]  # for this round
    metrics: Metrics  # of this training, on the test split
    validation: Metrics  # on the held-out labeled images; strategies may read only these metrics
    held_out: bool  # False: too few images, so the train set is also the validation set
    published: bool  # decided as in the live loop; if False, the queue keeps its order
    reason: str
    champion: int  # the round whose version serves after this one, 0: none
    started_from: int = 0  # the round whose weights the training went on from, 0: the base weights
    order: tuple[int, ...]  # the queue after these picks, until the next version is published
    explored: tuple[int, ...]  # the tasks in `order` that were placed at random
    losses: dict[int, float]  # of the tasks in `order`, if the strategy learns from losses
    unranked: str = ""  # why the strategy could not rank before this round
    train_s: float
    score_s: float
    rank_s: float


class Row(Frozen):
    """One row of the metrics table."""

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
    interval: tuple[float, float] | None = (
        None  # 95% interval of map50 over the test images; None: results of earlier releases
    )


class Results(Frozen):
    """The results of an experiment."""

    plan: Plan
    date: datetime
    machine: str
    rows: tuple[Row, ...]


def learning_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that influence learning, without addresses and keys."""
    return {name: getattr(settings, name) for name in (*PROJECT_SETTINGS, "device") if name not in _LISTED}


def software() -> dict[str, str]:
    """Return the versions of the software on which the results depend."""
    return {name: version for name, version in software_versions().items() if name != "label-studio-sdk"}


def machine() -> str:
    """Return the machine in words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def unit_folder(folder: Path, strategy: str, seed: int) -> Path:
    """Return the folder with the rounds of one strategy and seed."""
    return folder / f"seed-{seed}" / strategy


def weights_of(unit: Path, number: int) -> Path:
    """Return the file with the weights of a round."""
    return unit / f"weights-{number:03d}.pt"


def save_plan(folder: Path, plan: Plan) -> None:
    """Write the plan. Raises SettingError if the folder holds results that are not comparable with it."""
    if (folder / "plan.json").exists() and (difference := load_plan(folder).differs(plan)):
        raise SettingError(
            f"this folder holds another experiment: {difference}", where=str(folder), fix="name another --out folder"
        )
    write(folder, "plan.json", plan)


def load_plan(folder: Path) -> Plan:
    """Return the plan. Raises NotFoundError if there is none."""
    if not (folder / "plan.json").is_file():
        raise NotFoundError("no experiment here", where=str(folder), fix="run `yolo-backend simulate` with this --out")
    plan: Plan = _read(folder / "plan.json", Plan)
    return plan


def load_rounds(unit: Path) -> tuple[Round, ...]:
    """Return the finished rounds of a unit in order."""
    return tuple(load_round(path) for path in sorted(unit.glob("round-*.json")))


def load_round(path: Path) -> Round:
    """Return a finished round. Raises DataError for a damaged file."""
    finished: Round = _read(path, Round)
    return finished


def save_round(unit: Path, finished: Round) -> None:
    """Write the record of a finished round atomically; it is the last file of the round."""
    write(unit, f"round-{finished.round:03d}.json", finished)


def rows_of(folder: Path, strategy: str, seed: int, rounds: int) -> tuple[Row, ...]:
    """Return the rows of the metrics table of a unit, up to a number of rounds."""
    return tuple(
        Row(
            strategy=strategy,
            seed=seed,
            round=finished.round,
            images=finished.images,
            boxes=finished.boxes,
            map50=finished.metrics.map50,
            map50_95=finished.metrics.map50_95,
            class_ap50=dict(finished.metrics.class_ap50),
            published=finished.published,
            unranked=finished.unranked,
            train_s=finished.train_s,
            score_s=finished.score_s,
            rank_s=finished.rank_s,
            picked=tuple(pick.image for pick in finished.picked),
            interval=finished.metrics.interval,
        )
        for finished in load_rounds(unit_folder(folder, strategy, seed))
        if finished.round <= rounds
    )


def write(folder: Path, name: str, value: BaseModel) -> None:
    """Write a JSON file atomically."""
    LocalFiles(folder).write(name, value.model_dump_json(indent=1).encode())


def load_results(path: Path) -> Results:
    """Return the results of an experiment. Raises DataError for a damaged file."""
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
