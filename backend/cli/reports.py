"""What the reading commands print: a table for people, or with --json one JSON document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import typer
from pydantic import BaseModel, TypeAdapter
from rich.console import Console, RenderableType

from backend.acquisition import Acquisition
from backend.loop.checks.finding import Finding
from backend.model_versions import ModelVersion
from backend.types import Ranking
from backend.web.status_schemas import VersionOut, version_out

Report: TypeAlias = BaseModel | Sequence[BaseModel] | Sequence[int]
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class ListedVersionOut(VersionOut):
    """A version as `yolo-backend versions --json` prints it."""

    serves: bool  # Label Studio gets its predictions


class StrategyOut(BaseModel):
    """A strategy as `yolo-backend strategies --json` prints it."""

    name: str
    asks: str
    needs: list[str]
    costs: str
    use_it_when: str
    paper: str


class PlaceOut(BaseModel):
    """A place of the order that `yolo-backend rank --json` prints."""

    place: int  # from 1
    task: int
    value: float
    explored: bool  # drawn at random


class FindingOut(BaseModel):
    """A check as `yolo-backend doctor --json` prints it."""

    subject: str
    ok: bool
    detail: str
    fix: str


def findings(outcomes: Sequence[Finding]) -> list[FindingOut]:
    """Return the outcomes of checks."""
    return [FindingOut(**asdict(outcome)) for outcome in outcomes]


def listed_versions(versions: Sequence[ModelVersion], serving: str) -> list[ListedVersionOut]:
    """Return versions, and which of them serves."""
    return [
        ListedVersionOut(**version_out(version).model_dump(), serves=version.name == serving) for version in versions
    ]


def listed_strategies(acquisitions: Sequence[Acquisition]) -> list[StrategyOut]:
    """Return the facts of strategies."""
    return [
        StrategyOut(
            name=acquisition.name,
            asks=acquisition.asks,
            needs=sorted(acquisition.needs),
            costs=acquisition.cost,
            use_it_when=acquisition.when,
            paper=acquisition.paper,
        )
        for acquisition in acquisitions
    ]


def places(ranking: Ranking, count: int) -> list[PlaceOut]:
    """Return the first `count` places of a ranking."""
    rows = np.argsort(ranking.priority, kind="stable")[:count].tolist()
    return [
        PlaceOut(
            place=place,
            task=int(ranking.task_ids[row]),
            value=float(ranking.acquisition[row]),
            explored=bool(ranking.explored[row]),
        )
        for place, row in enumerate(rows, 1)
    ]


def show(report: Report, table: RenderableType, *, as_json: bool) -> None:
    """Print a report as JSON, or its table."""
    if as_json:
        typer.echo(_JSON.dump_json(report, indent=2).decode())
    else:
        Console().print(table)
