"""How uncertain a model is about a video: about each of its frames, and about which boxes are one object."""

from __future__ import annotations

import numpy as np

from backend.acquisition.aggregation import top_sum
from backend.acquisition.uncertainty import binary_entropy
from backend.types import DOUBTED_FRAMES, FloatArray, IntArray

APART_S = 1.0  # frames that are closer together show almost the same picture
SHORT_S = 1.0  # an object or a label that lasts less is probably wrong, or was missed before and after


def of_boxes(confidence: FloatArray) -> float:
    """Return the entropy of a frame in nats, as for an image: the sum over the 10 boxes of (k,) with the largest."""
    return float(top_sum(binary_entropy(confidence), np.array([0, len(confidence)]))[0]) if len(confidence) else 0.0


def of_labels(probs: FloatArray) -> FloatArray:
    """Return the entropies (n,) of frames in nats: the sum over C labels of the binary entropies of `probs` (n, C).

    >>> of_labels(np.array([[0.5, 0.5], [0.0, 1.0]])).round(3)  # 2 ln 2, 0
    array([1.386, 0.   ], dtype=float32)
    """
    return np.asarray(binary_entropy(probs).sum(axis=1), dtype=np.float32)


def worst(sampled: IntArray, entropy: FloatArray, rate: float) -> IntArray:
    """Return the frames with the highest entropy, highest first: at most DOUBTED_FRAMES, and at least APART_S apart.

    `looked_at` (n,) are the numbers of the sampled frames, `entropy` (n,) is theirs.

    >>> worst(np.array([1, 6, 51]), np.array([0.2, 0.3, 0.1]), rate=25).tolist()
    [6, 51]
    """
    chosen: list[int] = []
    for row in np.argsort(-entropy, kind="stable").tolist():
        frame = int(sampled[row])
        if len(chosen) == DOUBTED_FRAMES or entropy[row] <= 0:
            break
        if all(abs(frame - other) >= APART_S * rate for other in chosen):
            chosen.append(frame)
    return np.array(chosen, dtype=np.int64)


def fragmentation(frames: IntArray, tracks: IntArray, sampled: IntArray, rate: float) -> float:
    """Return the share of pieces that last less than SHORT_S, 0 if there are no pieces.

    `looked_at` (n,) are the numbers of the sampled frames, ascending. `frames` (m,) and `tracks` (m,) are the frames
    that show a track. A piece is a run of successive sampled frames with one track. Pieces that begin or end with the
    video do not count as short, because they may be longer than the video.

    >>> looked_at = np.arange(1, 101)
    >>> fragmentation(np.r_[1:101, 40:45], np.repeat([0, 1], [100, 5]), looked_at, rate=25)
    0.5
    """
    if not len(frames):
        return 0.0
    order = np.lexsort((frames, tracks))
    places, tracks = np.searchsorted(sampled, frames[order]), tracks[order]
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(tracks) != 0)) + 1
    first, last = places[np.append(0, breaks)], places[np.append(breaks, len(places)) - 1]
    inside = (first > 0) & (last < len(sampled) - 1)
    return float((inside & (sampled[last] - sampled[first] < SHORT_S * rate)).mean())


def of_video(entropy: FloatArray, fragmented: float) -> float:
    """Return the doubt of a video: the mean entropy of its frames (n,), times 1 + the share of short pieces."""
    return float(entropy.mean()) * (1 + fragmented) if len(entropy) else 0.0
