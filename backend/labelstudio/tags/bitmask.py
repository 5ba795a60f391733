"""Bitmask on an Image, with the labels of the Labels beside it: masks in data URLs, stored in the split form."""

from __future__ import annotations

from backend.labelstudio.split_form import split
from backend.labelstudio.tags import bitmasklabels

TAG = split(bitmasklabels.TAG, "Bitmask")
