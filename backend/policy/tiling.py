"""TILE: which control tags are predicted, judged and trained in tiles of their images."""

from __future__ import annotations

from collections.abc import Sequence

from backend.settings import Settings
from backend.types import ControlTag


def tile_side(settings: Settings, tag: ControlTag) -> int:
    """Return the side of a tag's tiles in pixels, 0 for none: boxes in images have tiles, nothing else has."""
    return settings.tile if tag.task == "detect" and not (tag.frame_rate or tag.frame_rate_key) else 0


def warnings(settings: Settings, tags: Sequence[ControlTag]) -> tuple[str, ...]:
    """Return a sentence for each tag that has no tiles although TILE is set.

    >>> choices = ControlTag("choices", "quality", "image", "image", (), {}, task="classify")
    >>> warnings(Settings(tile=640), [choices])
    ('quality: TILE has no effect, because only upright boxes in images are found in tiles',)
    """
    return tuple(
        f"{tag.from_name}: TILE has no effect, because only upright boxes in images are found in tiles"
        for tag in tags
        if settings.tile and not tile_side(settings, tag)
    )
