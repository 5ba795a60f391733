"""The images that each strategy picked, round by round, as part of the page of an experiment."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from backend.simulate.records import Row

THUMBNAILS = 24  # per round
THUMBNAIL_PX = 72


def show(names: Sequence[str], rows: Sequence[Row], paths: Mapping[str, Path]) -> str:
    """Show what the first seed of each strategy picked; `paths` are the images' files, by name.

    Each picture is in the page once, as the background of a class.
    """
    classes: dict[str, str] = {}
    parts = []
    for name in names:
        first = [row for row in rows if row.strategy == name and row.seed == 0]
        for row in first:
            for image in row.picked[:THUMBNAILS]:
                classes.setdefault(image, f"p{len(classes)}")
        rounds = "".join(_round(row, classes) for row in sorted(first, key=lambda row: row.round))
        parts.append(f"<details><summary>{escape(name)}</summary>{rounds}</details>")
    styles = "".join(f".{kind}{{background-image:url({_thumbnail(paths[image])})}}" for image, kind in classes.items())
    return f"<h2>What was picked (seed 0)</h2><style>{styles}</style>{''.join(parts)}"


def _round(row: Row, classes: Mapping[str, str]) -> str:
    shown = row.picked[:THUMBNAILS]
    pictures = "".join(f'<i class="{classes[image]}" title="{escape(image)}"></i>' for image in shown)
    more = f", {THUMBNAILS} of them" if len(row.picked) > THUMBNAILS else ""
    chosen = "at random" if row.round == 1 else f"for round {row.round}"
    return f'<p class="small">{len(row.picked)} images {chosen}{more}:</p><div class="picks">{pictures}</div>'


def _thumbnail(path: Path) -> str:
    """Return a small JPEG of an image as a data address."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        small.save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
