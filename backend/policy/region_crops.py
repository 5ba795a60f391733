"""REGION_CHOICES: how models of single boxes see their crops."""

from __future__ import annotations

from backend.settings import Settings
from backend.types import ControlTag

LARGEST_SIDE = 224  # pixels to which a crop is scaled: a task has many crops, and one is a small part of its image


def model_settings(settings: Settings, tag: ControlTag) -> Settings:
    """Return the settings of a tag's models: those of single boxes see crops of at most LARGEST_SIDE pixels.

    >>> about_boxes = ControlTag("choices", "state", "image", "image", (), {}, task="classify", regions_of="label")
    >>> model_settings(Settings(imgsz=640), about_boxes).imgsz, model_settings(Settings(imgsz=64), about_boxes).imgsz
    (224, 64)
    """
    if not tag.regions_of:
        return settings
    return settings.model_copy(update={"imgsz": min(settings.imgsz, LARGEST_SIDE)})
