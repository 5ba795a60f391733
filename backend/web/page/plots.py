"""Charts for plotly's bundle: each becomes a JSON text in the page, which `plots.mjs` draws when one scrolls to it.

A chart always has a table or a sentence beside it that says the same, for people who cannot see it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["lines+markers", "lines", "markers"]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one series, (k,) each, with their 95% intervals, if known."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()  # (k,) or ()
    high: Sequence[float | None] = ()
    colour: str = ""  # "": the accent
    mode: Mode = "lines+markers"
    dashed: bool = False
    texts: Sequence[str] = ()  # (k,) or (): shown when one points at a value


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of series; `label` is its text for a screen reader."""

    label: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    y_range: tuple[float, float] | None = None

    @property
    def json(self) -> str:
        """The chart as JSON for `plots.mjs`, safe inside <script type="application/json">."""
        value = {
            "x_title": self.x_title,
            "y_title": self.y_title,
            "y_range": self.y_range,
            "series": [
                {
                    "name": series.name,
                    "x": list(series.x),
                    "y": list(series.y),
                    "low": list(series.low),
                    "high": list(series.high),
                    "colour": series.colour,
                    "mode": series.mode,
                    "dashed": series.dashed,
                    "texts": list(series.texts),
                }
                for series in self.series
            ],
        }
        return script_safe(json.dumps(value, allow_nan=False))


@dataclass(frozen=True, slots=True)
class SparkLine:
    """A small curve without axes, as an SVG path in a box of 100 x 24."""

    path: str  # "" for fewer than two values

    @classmethod
    def of(cls, values: Sequence[float]) -> SparkLine:
        """Return the curve of values, the oldest first.

        >>> SparkLine.of([0.0, 0.5, 1.0]).path
        'M0.0,22.0 L50.0,12.0 L100.0,2.0'
        """
        if len(values) < 2:
            return cls("")
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        points = [
            f"{100 * place / (len(values) - 1):.1f},{22 - 20 * (value - low) / span:.1f}"
            for place, value in enumerate(values)
        ]
        return cls("M" + " L".join(points))


def script_safe(text: str) -> str:
    r"""Return JSON that cannot end the script element around it.

    >>> script_safe('"</script>"')
    '"\\u003c/script>"'
    """
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
