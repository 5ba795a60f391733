"""Thousands of inputs with random changes: each one is answered, or refused with an error of ours.

Each target is a module of this folder with a function `run(cases, seed) -> Report`. `make test` runs a few hundred
cases of each, and the full number runs by hand: `python -m tests.fuzz TARGET --cases N`.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MEGABYTE = 1e6


@dataclass(slots=True)
class Report:
    """The results of a run: how the cases ended, the cases that ended in an error that is not ours, and the costs."""

    cases: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)  # how many cases ended alike
    escapes: list[str] = field(default_factory=list)  # the input and the error
    worst_cpu_s: float = 0.0  # of one case, in this process
    worst_case: str = ""
    peak_mb: float = 0.0  # of this process, from its start

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        lines = [
            f"{self.cases} cases: {outcomes}",
            f"{len(self.escapes)} escapes",
            f"most CPU time of one case: {self.worst_cpu_s:.3f} s ({self.worst_case[:120]})",
            f"peak memory of the process: {self.peak_mb:.0f} MB",
        ]
        return "\n".join([*lines, *self.escapes[:10]])


def measure(inputs: Iterable[object], ask: Callable[[object], str]) -> Report:
    """Give each input to `ask`, which returns how the case ended; any exception of `ask` is an escape."""
    report = Report()
    for item in inputs:
        report.cases += 1
        started = time.process_time()
        try:
            outcome = ask(item)
        except Exception as error:  # noqa: BLE001 - every kind of error is what a fuzz looks for
            outcome = "escapes"
            report.escapes.append(f"{item!r}: {type(error).__name__}: {error}")
        spent = time.process_time() - started
        report.outcomes[outcome] = report.outcomes.get(outcome, 0) + 1
        if spent > report.worst_cpu_s:
            report.worst_cpu_s, report.worst_case = spent, repr(item)
    report.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
    return report
