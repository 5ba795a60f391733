"""Stream admission: decides, task by task, which new tasks enter the front of the queue. Pure, with a small state."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from backend.errors import SettingError

ETA = 0.05  # step size of the threshold; the rate is off by at most (1 + ETA) / (ETA · arrivals)
PERIODS = {"hour": 3600, "day": 86400}
_PART = re.compile(r"\s*(?:(?P<percent>\d+(?:\.\d+)?)\s*%|(?P<quota>\d+)\s*/\s*(?P<period>hour|day))\s*")


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of the new tasks may enter the front."""

    share: float | None = None  # ρ; None: chosen so that the quota lasts for its period
    quota: int | None = None  # highest number per period, None: no limit
    period_s: int = PERIODS["day"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of stream admission between two tasks."""

    threshold: float | None = None  # τ; None: 1 − ρ, which is right for scores that are quantiles
    period: int = 0  # number of the current hour or day
    arrived: int = 0  # tasks that arrived in this period
    queried: int = 0  # tasks of this period that were admitted to the front
    before: int = 0  # tasks that arrived in the previous period


def parse_rate(text: str) -> Rate | None:
    """Return the rate of a setting's text, None for an empty text. Raises SettingError that gives the allowed values.

    >>> parse_rate("100/day"), parse_rate("5%, 10/hour"), parse_rate("")
    (Rate(share=None, quota=100, period_s=86400), Rate(share=0.05, quota=10, period_s=3600), None)
    """
    if not text.strip():
        return None
    rate = Rate()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        percent = float(match["percent"]) if match and match["percent"] else None
        if match is None or (percent is not None and percent > 100):
            raise SettingError(
                f"RATE={text!r} is not a rate",
                where="extra params of the ML backend",
                fix='allowed: a share of 0% to 100%, a quota like "10/hour" or "100/day", or both: "5%, 100/day"',
            )
        if percent is not None:
            rate = replace(rate, share=percent / 100)
        else:
            rate = replace(rate, quota=int(match["quota"]), period_s=PERIODS[match["period"]])
    return rate


def offer(state: StreamState, score: float, rate: Rate, now_s: float, *, eta: float = ETA) -> tuple[StreamState, bool]:
    """Admit a new task if its score is at least τ and the quota is not used up; return the new state and the decision.

    The score is in [0, 1], higher = sooner. Afterwards τ ← τ + η(1[admitted] − ρ). This holds the rate: over T tasks,
    |admitted − ρT| ≤ (1 + η) / η for any scores. Once the quota is used up, τ stays. Times are seconds since 1970.
    Raises ValueError for a score outside [0, 1].

    >>> state, first = offer(StreamState(threshold=0.5), 0.7, Rate(share=0.2), 0.0, eta=0.1)
    >>> first, round(state.threshold, 3)  # 0.5 + 0.1 · (1 − 0.2)
    (True, 0.58)
    >>> state, second = offer(state, 0.55, Rate(share=0.2), 1.0, eta=0.1)
    >>> second, round(state.threshold, 3)  # 0.58 − 0.1 · 0.2
    (False, 0.56)
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score {score} is not in [0, 1]")
    state = _arrive(state, int(now_s // rate.period_s))
    if rate.quota is not None and state.queried >= rate.quota:
        return state, False
    rho = share(state, rate)
    threshold = 1 - rho if state.threshold is None else state.threshold
    queried = score >= threshold
    return replace(state, threshold=threshold + eta * (queried - rho), queried=state.queried + queried), queried


def share(state: StreamState, rate: Rate) -> float:
    """Return ρ: the set share, or quota / arrivals, with the larger of the last period's and this period's arrivals."""
    if rate.share is not None:
        return rate.share
    arrivals = max(state.before, state.arrived, 1)
    return min(1.0, (math.inf if rate.quota is None else rate.quota) / arrivals)


def _arrive(state: StreamState, period: int) -> StreamState:
    if period == state.period:
        return replace(state, arrived=state.arrived + 1)
    before = state.arrived if period == state.period + 1 else 0
    return StreamState(state.threshold, period, arrived=1, queried=0, before=before)
