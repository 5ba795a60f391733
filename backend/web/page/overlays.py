"""Outlines of regions as SVG shapes over a picture, in percent of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.labelstudio.region_outlines import Drawing, RegionOutline

UNKNOWN_COLOUR = "#888888"  # of a label that the label config does not have


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape over a picture: an SVG path in percent of it, its label, and its confidence."""

    path: str  # for <path d="...">
    label: str
    colour: str
    score: float | None = None  # None: a person drew it
    kind: str = ""  # "annotator" or "model", where both are shown; it becomes a CSS class
    painted: bool = False  # a mask, which is filled


@dataclass(frozen=True, slots=True)
class Overlay:
    """The shapes of a task, and the labels that belong to the whole picture."""

    shapes: tuple[Shape, ...]
    whole: tuple[str, ...]  # choices
    undrawn: int = 0  # masks that cannot be drawn


def overlay(drawing: Drawing, colours: Mapping[str, str], kind: str = "") -> Overlay:
    """Return a drawing in the colours of its labels."""
    shapes = (shape(outline, colours.get(outline.label, UNKNOWN_COLOUR), kind) for outline in drawing.outlines)
    return Overlay(tuple(shapes), drawing.whole, drawing.undrawn)


def shape(outline: RegionOutline, colour: str, kind: str = "") -> Shape:
    """Return a region as a shape; its rings become one path, whose holes are empty."""
    path = " ".join("M" + " ".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist()) + "Z" for ring in outline.rings)
    return Shape(path, outline.label, colour, outline.score, kind, outline.painted)


def corners(left: float, top: float, right: float, bottom: float) -> Sequence[tuple[float, float]]:
    """Return the corners of a box as a ring."""
    return (left, top), (right, top), (right, bottom), (left, bottom)
