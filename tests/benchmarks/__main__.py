"""`python -m tests.benchmarks [name ...]`: run all benchmarks, or some; only a full run is written to results.json."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from tests.benchmarks import (
    clicks,
    committee_cost,
    first_paint,
    latency,
    memory,
    muon,
    predict,
    proof,
    push,
    report,
    sampler,
    warmth,
)

BENCHMARKS: Mapping[str, Callable[[Path], list[report.Result]]] = {
    "predict": predict.run,
    "predict_single": predict.run_single,
    "push": push.run,
    "latency": latency.run,
    "memory": memory.run,
    "committee": committee_cost.run,
    "sampler": sampler.run,
    "proof": proof.run,
}
ALONE: Mapping[str, Callable[[Path], list[report.Result]]] = {  # run only by name
    "clicks": clicks.run,
    "first_paint": first_paint.run,
    "muon": muon.run,
    "warmth": warmth.run,
}
RESULTS = Path(__file__).parent / "results.json"


def main(arguments: list[str]) -> int:
    """Return 0 if every promise was met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all, written to results.json")
    chosen = parser.parse_args(arguments).name or list(BENCHMARKS)
    if unknown := set(chosen) - {*BENCHMARKS, *ALONE}:
        parser.error(f"unknown benchmark {min(unknown)}; use {', '.join(BENCHMARKS)}")
    console = Console()
    results: list[report.Result] = []
    with tempfile.TemporaryDirectory(prefix="yolo-bench-") as folder:
        for name in chosen:
            with console.status(f"measuring {name} ..."):
                results += {**BENCHMARKS, **ALONE}[name](Path(folder))
    console.print(report.table(results))
    if chosen == list(BENCHMARKS):  # results of different runs cannot be compared, so only a full run is written
        report.write(results, RESULTS)
        console.print(f"written to {RESULTS}")
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
