"""Videos: how uncertain the model is about the frames, and about which boxes are the same object."""

from __future__ import annotations

import numpy as np

from backend.acquisition.aggregation import fill
from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition


@acquisition(
    "video",
    asks="how uncertain is a frame of the video on average, and do its objects come and go?",
    needs=frozenset({"class_probs", "video_doubt"}),
    cost="one pass over the videos",
    paper="entropy of each frame after Settles 2009; fragmentation as trackers are judged by",
    when="tasks are videos; there, entropy and class_entropy use this value",
)
def video_doubt(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the uncertainty of each video (n,); for a video without objects see `aggregation.fill`."""
    return fill(pool.columns["video_doubt"].astype(np.float64), pool.offsets, pool.empty)
