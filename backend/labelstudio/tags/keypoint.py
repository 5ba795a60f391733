"""KeyPoint on an Image, with the labels of the Labels beside it: points of skeletons, stored in the split form."""

from __future__ import annotations

from backend.labelstudio.split_form import split
from backend.labelstudio.tags import keypointlabels

TAG = split(keypointlabels.TAG, "KeyPoint")
