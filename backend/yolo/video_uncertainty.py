"""How unsure a model is of a video: of each of its frames, and of what is one object."""

from __future__ import annotations

import numpy as np

from backend.acquisition.aggregation import top_sum
from backend.acquisition.uncertainty import binary_entropy
from backend.types import DOUBTED_FRAMES, FloatArray, IntArray

APART_S = 1.0  # two frames nearer to one another show much the same
SHORT_S = 1.0  # an object or a label that comes and goes within it was mistaken, or overlooked before and after


def of_boxes(confidence: FloatArray) -> float:
    """Return the entropy of a frame's boxes in nats, as that of an image: h(s), summed over the 10 largest (k,)."""
    return float(top_sum(binary_entropy(confidence), np.array([0, len(confidence)]))[0]) if len(confidence) else 0.0


def of_labels(probs: FloatArray) -> FloatArray:
    """Return the entropy of n frames in nats (n,); each of C labels is a question of its own, so h(p) is summed (n, C).

    >>> of_labels(np.array([[0.5, 0.5], [0.0, 1.0]])).round(3)  # 2 ln 2, 0
    array([1.386, 0.   ], dtype=float32)
    """
    return np.asarray(binary_entropy(probs).sum(axis=1), dtype=np.float32)


def worst(looked_at: IntArray, entropy: FloatArray, rate: float) -> IntArray:
    """Return the frames with the highest entropy, highest first, DOUBTED_FRAMES at most, a second apart (n,), (n,).

    >>> worst(np.array([1, 6, 51]), np.array([0.2, 0.3, 0.1]), rate=25).tolist()
    [6, 51]
    """
    found: list[int] = []
    for row in np.argsort(-entropy, kind="stable").tolist():
        frame = int(looked_at[row])
        if len(found) == DOUBTED_FRAMES or entropy[row] <= 0:
            break
        if all(abs(frame - other) >= APART_S * rate for other in found):
            found.append(frame)
    return np.array(found, dtype=np.int64)


def fragmentation(frames: IntArray, tracks: IntArray, looked_at: IntArray, rate: float) -> float:
    """Return the share of pieces that last less than a second, 0 where there are none.

    A piece is a run of frames (m,) in a row among those looked at, ascending, that show the same of `tracks` (m,). One
    that begins with the video or ends with it may be longer than we see.

    >>> looked_at = np.arange(1, 101)
    >>> fragmentation(np.r_[1:101, 40:45], np.repeat([0, 1], [100, 5]), looked_at, rate=25)
    0.5
    """
    if not len(frames):
        return 0.0
    order = np.lexsort((frames, tracks))
    places, tracks = np.searchsorted(looked_at, frames[order]), tracks[order]
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(tracks) != 0)) + 1
    first, last = places[np.append(0, breaks)], places[np.append(breaks, len(places)) - 1]
    inside = (first > 0) & (last < len(looked_at) - 1)
    return float((inside & (looked_at[last] - looked_at[first] < SHORT_S * rate)).mean())


def of_video(entropy: FloatArray, fragmented: float) -> float:
    """Return the doubt of a video: the mean entropy of its frames (n,), up to twice that where all comes and goes."""
    return float(entropy.mean()) * (1 + fragmented) if len(entropy) else 0.0
