"""Line charts as SVG text, without a library, a script or anything to load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_WIDTH, _HEIGHT = 620, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 150, 12, 44  # margins; the names of the lines stand at the right
_NAME_HEIGHT, _NAME_LETTERS = 14, 24


@dataclass(frozen=True, slots=True)
class Line:
    """One line, with the band between the lowest and the highest of its repetitions."""

    name: str
    colour: str
    x: Floats  # (r,)
    y: Floats  # (r,)
    low: Floats  # (r,)
    high: Floats  # (r,)
    dashed: bool = False


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return about this many round numbers between low and high.

    >>> ticks(0.0, 0.83), ticks(60, 300)
    ([0.0, 0.2, 0.4, 0.6, 0.8], [100.0, 150.0, 200.0, 250.0, 300.0])
    """
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * about >= span * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Return the lines as an <svg> element; the vertical axis starts at 0."""
    xs = np.concatenate([line.x for line in lines])
    top = max(float(np.concatenate([line.high for line in lines]).max()), 0.05)
    box = _Box(float(xs.min()), max(float(xs.max()), float(xs.min()) + 1), top * 1.05)
    parts = [*_axes(box, x_label, y_label)]
    for line in lines:
        parts += _band(line, box)
    for line in lines:
        parts += _line(line, box)
    parts += _names(lines, box)
    title = escape(f"{y_label} over {x_label}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}" font-size="12" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Box:
    """The mapping of values to positions on the canvas."""

    left: float
    right: float
    top: float

    def x(self, value: float) -> float:
        """Return the horizontal position of a value, in pixels."""
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value, in pixels."""
        return _HEIGHT - _BOTTOM - value / self.top * (_HEIGHT - _TOP - _BOTTOM)

    def points(self, x: Floats, y: Floats) -> str:
        """Return the points of a polyline, in the syntax of SVG."""
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _axes(box: _Box, x_label: str, y_label: str) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor" opacity="0.6"/>']
    for value in ticks(0.0, box.top):
        y = box.y(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="currentColor" opacity="0.15"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(box.left, box.right):
        x = box.x(value)
        parts.append(f'<path d="M{x:.1f} {bottom}v5" stroke="currentColor" opacity="0.6"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text x="14" y="{centre}" text-anchor="middle" transform="rotate(-90 14 {centre})">{escape(y_label)}</text>'
    )
    return parts


def _band(line: Line, box: _Box) -> list[str]:
    around = box.points(np.concatenate([line.x, line.x[::-1]]), np.concatenate([line.high, line.low[::-1]]))
    return [f'<polygon points="{around}" fill="{line.colour}" opacity="0.13"/>']


def _line(line: Line, box: _Box) -> list[str]:
    dash = ' stroke-dasharray="6 4"' if line.dashed else ""
    parts = [
        f'<polyline points="{box.points(line.x, line.y)}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>'
    ]
    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True):
        title = f"<title>{escape(f'{line.name}: {y:.3f} at {x:g}')}</title>"
        parts.append(f'<circle cx="{box.x(x):.1f}" cy="{box.y(y):.1f}" r="3.5" fill="{line.colour}">{title}</circle>')
    return parts


def _names(lines: Sequence[Line], box: _Box) -> list[str]:
    """Return each line's name beside its last point, moved up or down where two names would overlap."""
    places = spread([box.y(float(line.y[-1])) for line in lines], _NAME_HEIGHT)
    parts = []
    for line, y in zip(lines, places, strict=True):
        name = line.name if len(line.name) <= _NAME_LETTERS else f"{line.name[: _NAME_LETTERS - 1]}…"
        x = box.x(float(line.x[-1])) + 8
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{line.colour}" font-weight="600">{escape(name)}</text>')
    return parts


def spread(heights: Sequence[float], least: float) -> list[float]:
    """Return heights that lie at least `least` apart, in the same order from top to bottom, around the old ones.

    >>> spread([10.0, 12.0, 40.0], 14.0)
    [4.0, 18.0, 40.0]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    groups: list[tuple[list[int], float]] = []  # lines whose names touch, and the middle of the group
    for index in order:
        members, middle = [index], heights[index]
        while groups:
            above, centre = groups[-1]
            if middle - centre >= least * (len(above) + len(members)) / 2:
                break
            groups.pop()
            middle = (centre * len(above) + middle * len(members)) / (len(above) + len(members))
            members = above + members
        groups.append((members, middle))
    places = [0.0] * len(heights)
    for members, middle in groups:
        for rank, index in enumerate(members):
            places[index] = middle + (rank - (len(members) - 1) / 2) * least
    return places
