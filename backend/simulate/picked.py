"""The images that each strategy picked, round by round, for the page of an experiment."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from backend.simulate.records import Row

THUMBNAILS = 24  # per round
THUMBNAIL_PX = 72


@dataclass(frozen=True, slots=True)
class RoundPicks:
    """The shown part of a strategy's picks for one round."""

    title: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StrategyPicks:
    """The picks of a strategy, round by round."""

    name: str
    rounds: tuple[RoundPicks, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The picks of all strategies, and their thumbnails; each thumbnail is in the page once."""

    strategies: tuple[StrategyPicks, ...]
    pictures: tuple[str, ...]  # data URLs of thumbnails
    places: Mapping[str, int]  # image -> index in `pictures`


def gallery(names: Sequence[str], rows: Sequence[Row], paths: Mapping[str, Path]) -> Gallery:
    """Return the picks of each strategy's first seed; `paths` maps the names of images to their files."""
    strategies = []
    for name in names:
        first_seed = sorted((row for row in rows if row.strategy == name and row.seed == 0), key=lambda row: row.round)
        strategies.append(StrategyPicks(name, tuple(_round(row) for row in first_seed)))
    shown = dict.fromkeys(image for strategy in strategies for picks in strategy.rounds for image in picks.images)
    places = {image: place for place, image in enumerate(shown)}
    return Gallery(tuple(strategies), tuple(_thumbnail(paths[image]) for image in shown), places)


def _round(row: Row) -> RoundPicks:
    more = f", {THUMBNAILS} of them" if len(row.picked) > THUMBNAILS else ""
    chosen = "of the first batch" if row.round == 1 else f"for round {row.round}"
    return RoundPicks(f"{len(row.picked)} images {chosen}{more}", tuple(row.picked[:THUMBNAILS]))


def _thumbnail(path: Path) -> str:
    """Return a small JPEG of an image as a data URL."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        small.save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
