"""Vector on an Image, with the labels of the Labels beside it: closed lines, stored in the split form."""

from __future__ import annotations

from backend.labelstudio.split_form import split
from backend.labelstudio.tags import vectorlabels

TAG = split(vectorlabels.TAG, "Vector")
