"""Polygon on an Image, with the labels of the Labels beside it: outlines, stored in the split form."""

from __future__ import annotations

from backend.labelstudio.split_form import split
from backend.labelstudio.tags import polygonlabels

TAG = split(polygonlabels.TAG, "Polygon")
