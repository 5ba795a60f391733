"""What one draws of Label Studio's regions over a picture: rings in percent of it, and labels of the whole picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.geometry import brush_rle, drawn_rings, masks, png_masks
from backend.labelstudio import tags
from backend.labelstudio.regions import Item, id_of
from backend.labelstudio.tags import bitmasklabels, vectorlabels
from backend.types import ControlTag

Ring = npt.NDArray[np.float64]  # (k, 2) points of a closed line, x and y in percent of the picture

# The masks of a picture are decoded while somebody waits for a page: these limits keep that below half a second.
MOST_PIXELS = 100_000_000  # of the masks of one picture together
MOST_RLE = 500_000  # numbers in their run-length codes, or letters in their data URLs
SIDE = 320  # cells of the grid on which a mask is traced: about the pixels of a picture on a page
MOST_POINTS = 2000  # of a region
_WHOLE = ("choices", "taxonomy")
_MASKS = ("rle", bitmasklabels.URL)  # keys of masks of pixels in values
_LABELS = "labels"  # the type of the entry that names a shape, where that has no labels of its own


@dataclass(frozen=True, slots=True)
class RegionOutline:
    """A region over a picture; the even-odd rule over all rings tells its inside."""

    rings: tuple[Ring, ...]
    label: str
    score: float | None = None  # None: a person drew it
    painted: bool = False  # a mask, which is shown filled


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn of one result."""

    outlines: tuple[RegionOutline, ...] = ()
    whole: tuple[str, ...] = ()  # labels of the whole picture
    undrawn: int = 0  # masks that are damaged, or too large for a page


def drawing(result: Iterable[Item]) -> Drawing:
    """Return what a result draws; regions that do not lie on a picture are left out."""
    regions = [region for region in result if isinstance(region.get("value"), Mapping)]
    named = {id_of(region.get("id")) for region in regions if region.get("type") == _LABELS} - {""}
    outlines, whole, undrawn, budget = list[RegionOutline](), list[str](), 0, _Budget()
    for region in regions:
        value, kind = region["value"], str(region.get("type", ""))
        if kind != _LABELS and id_of(region.get("id")) in named:
            continue  # the entry with the labels has the shape too
        labels = _texts(value.get(kind, ()))
        if kind in _WHOLE:
            whole += labels
            continue
        is_mask = not value.keys().isdisjoint(_MASKS)
        try:
            rings = budget.mask_rings(region, value) if is_mask else (_ring(value, _aspect(region)),)
        except (
            KeyError,
            TypeError,
            ValueError,
            RegionError,
        ):  # no region on a picture, or a bad mask
            undrawn += is_mask
            continue
        outlines.append(outline(rings, ", ".join(labels), region.get("score"), painted=is_mask))
    return Drawing(tuple(outlines), tuple(whole), undrawn)


def outline(
    rings: Sequence[npt.ArrayLike], label: str, score: float | None = None, *, painted: bool = False
) -> RegionOutline:
    """Return a region with at most about MOST_POINTS points; `rings` are in percent."""
    arrays = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]
    step = max(1, math.ceil(sum(map(len, arrays)) / MOST_POINTS))
    return RegionOutline(tuple(ring[::step] for ring in arrays), label, score, painted)


def object_outline(
    tag: ControlTag, box: npt.ArrayLike, rings: Sequence[npt.ArrayLike], label: str, score: float | None
) -> RegionOutline:
    """Return an object of a report in the shape that its tag has in Label Studio; all is in percent of the picture.

    `box` (4, 2) are the corners around the object. `rings` are its mask, the corners of its rotated box or its points;
    without them, the box is drawn.
    """
    kind, drawn = tags.get(tag.kind), list(rings or (box,))
    if kind.elliptic:
        drawn = [drawn_rings.inscribed_ellipse(corners) for corners in drawn]
    elif tag.parent and rings:
        drawn.append(box)  # the points of a skeleton lie under a region of its own
    return outline(drawn, label, score, painted=bool(rings) and kind.masks)


class _Budget:
    """Decodes the masks of one picture, up to MOST_PIXELS and MOST_RLE."""

    def __init__(self) -> None:
        self._pixels, self._codes = MOST_PIXELS, MOST_RLE

    def mask_rings(self, region: Item, value: Mapping[str, Any]) -> tuple[Ring, ...]:
        """Return the rings around a mask. Raises RegionError, KeyError or TypeError for one that cannot be decoded."""
        code = value["rle"] if "rle" in value else value[bitmasklabels.URL]
        width, height, codes = int(region["original_width"]), int(region["original_height"]), len(code)
        if width * height > self._pixels or codes > self._codes:
            raise RegionError("the masks of this picture are too large to be drawn", fix="open it in Label Studio")
        self._pixels, self._codes = self._pixels - width * height, self._codes - codes
        mask = (brush_rle.decode_rle if "rle" in value else png_masks.decode)(code, height, width)
        return tuple(100 * ring / (width, height) for ring in masks.coarse_trace(mask, SIDE, MOST_POINTS))


def _ring(value: Mapping[str, Any], aspect: float) -> Ring:
    """Return the line around a region, whose value has the fields of its shape."""
    if "vertices" in value:
        line = vectorlabels.ring_of(value)
        if isinstance(line, str):
            raise ValueError(line)
        return 100 * np.array(line)
    if "points" in value:
        return np.array([(float(x), float(y)) for x, y in value["points"]])
    x, y, turn = float(value["x"]), float(value["y"]), math.radians(float(value.get("rotation", 0)))
    if "radiusX" in value:
        across, down = float(value["radiusX"]), float(value["radiusY"])
        corners = np.array([(-across, -down), (across, -down), (across, down), (-across, down)])
        return drawn_rings.inscribed_ellipse(_turned(x, y, corners, turn, aspect))
    if "height" in value:
        width, height = float(value["width"]), float(value["height"])
        return _turned(x, y, np.array([(0, 0), (width, 0), (width, height), (0, height)]), turn, aspect)
    return drawn_rings.diamond(x, y, max(float(value.get("width", 1.0)), 1.0))  # a key point


def _turned(x: float, y: float, offsets: Ring, turn: float, aspect: float) -> Ring:
    """Return the points at `offsets` from (x, y), turned in pixels as Label Studio turns a region; all in percent."""
    cos, sin = math.cos(turn), math.sin(turn)
    across, down = offsets.T
    return np.stack([x + across * cos - down * aspect * sin, y + across * sin / aspect + down * cos], axis=1)


def _aspect(region: Item) -> float:
    """Return the height of the picture divided by its width; 1 where the region does not tell."""
    width, height = region.get("original_width"), region.get("original_height")
    return height / width if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0 else 1.0


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list | tuple):
        return []
    return [" / ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
