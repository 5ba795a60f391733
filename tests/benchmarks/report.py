"""Results of benchmarks, as a table for the terminal and as a small JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.table import Table

from backend.environment import versions


@dataclass(frozen=True, slots=True)
class Result:
    """One measured promise: `value` must be at least `target`, or at most, if `at_most`."""

    benchmark: str
    title: str
    value: float
    target: float
    unit: str  # "x" for a ratio
    at_most: bool = False
    details: Mapping[str, float] = field(default_factory=dict)  # measurements behind the value

    @property
    def met(self) -> bool:
        """Whether the promise holds; never for NaN.

        >>> Result("predict", "speed", 0.9, 0.9, "x").met, Result("memory", "growth", 1.2, 1.15, "x", True).met
        (True, False)
        """
        return self.value <= self.target if self.at_most else self.value >= self.target


def table(results: Sequence[Result]) -> Table:
    """Return the results for the terminal."""
    shown = Table("benchmark", "what", "measured", "target", "met", "details", title="make bench")
    for result in results:
        details = ", ".join(f"{name} {value:.4g}" for name, value in result.details.items())
        sign = "≤" if result.at_most else "≥"
        shown.add_row(
            result.benchmark,
            result.title,
            f"{result.value:.3g} {result.unit}",
            f"{sign} {result.target:g} {result.unit}",
            "[green]yes[/]" if result.met else "[red]NO[/]",
            details,
        )
    return shown


def write(results: Sequence[Result], path: Path) -> None:
    """Write the results with the date, the software and the machine."""
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": versions(),
        "machine": machine(),
        "results": [_as_json(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def machine() -> dict[str, str | int | float]:
    """Return the properties of the machine on which the results depend."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def _as_json(result: Result) -> dict[str, object]:
    return {
        "benchmark": result.benchmark,
        "what": result.title,
        "value": _rounded(result.value),
        "unit": result.unit,
        "target": result.target,
        "at_most": result.at_most,
        "met": result.met,
        "details": {name: _rounded(value) for name, value in result.details.items()},
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
