"""MagicWand on an Image: masks of a flood fill, named by the Labels beside it, which a Brush beside it learns.

It has no model of its own, because Label Studio imports no predictions of it. Without a Labels it helps to paint for a
BrushLabels.
"""

from __future__ import annotations

from dataclasses import replace

from backend.labelstudio.split_form import split
from backend.labelstudio.tags import brushlabels

TAG = replace(
    split(brushlabels.TAG, "MagicWand"),
    unnamed=False,
    unanswered="gets no answers, because Label Studio imports no predictions of it",
    instead='write a Brush tag with name="mask" and toName="IMAGE" beside it: its model learns what the wand selects',
)
