"""The tiles of a training: those of its large images, where the control tag has tiles."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from backend.datasets import image_tiles
from backend.loop.training.snapshot import TagPlan
from backend.policy import tiling

log = logging.getLogger(__name__)


def in_tiles(plan: TagPlan, folder: Path) -> TagPlan:
    """Return the plan with tiles of its training images in `folder`, if the tag has tiles; else the plan itself.

    The validation images stay whole, because the merged predictions are judged.
    """
    side = tiling.tile_side(plan.settings, plan.tag)
    if not side:
        return plan
    train = image_tiles.cut(plan.split.train, side, plan.settings.imgsz, folder)
    name = f"project {plan.record.project_id}, {plan.tag.from_name}"
    log.info("%s: %d images are learned as %d images and tiles", name, len(plan.split.train), len(train))
    return replace(plan, split=replace(plan.split, train=train))
