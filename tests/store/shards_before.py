"""Shards that the release before the table of columns wrote: `shards_before/*.npz`.

`python -m tests.store.shards_before FOLDER` writes them with the encoder of the tree that it runs in. The ones that are
kept were written by commit d0b8459.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from backend.store import shard_codec
from backend.store.shard_codec import PoolShard
from backend.types import Prediction, Tracks

FOLDER = Path(__file__).with_suffix("")


def shards() -> dict[str, PoolShard]:
    """Return a shard of each kind, by name."""
    kinds = {"boxes": _boxes(), "turned": _turned(), "outlines": _outlines(), "points": _points(), "video": _video()}
    return {name: PoolShard(0, np.arange(1, len(of) + 1), of, np.arange(len(of)) + 7) for name, of in kinds.items()}


def _prediction(n: int, seed: int, **columns: object) -> Prediction:
    rng = np.random.default_rng(seed)
    probs = rng.random((n, 3), np.float32)
    return Prediction(
        width=64,
        height=48,
        boxes=rng.random((n, 4), np.float32),
        class_probs=probs,
        confidence=probs.max(axis=1, initial=0),
        embedding=rng.random(4, np.float32),
        thumbnail=rng.integers(0, 256, 192).astype(np.uint8),
        **columns,  # type: ignore[arg-type]
    )


def _boxes() -> tuple[Prediction | None, ...]:
    rng = np.random.default_rng(1)
    variances = [rng.random((n, 4), np.float32) for n in (2, 0)]
    # In sixteenths, so that half precision holds them.
    vectors = [rng.integers(0, 16, (n, 5)).astype(np.float32) / 16 for n in (2, 0, 1)]
    return (
        _prediction(2, 1, box_variance=variances[0], box_embeddings=vectors[0]),
        None,
        _prediction(0, 2, box_variance=variances[1], box_embeddings=vectors[1]),
        _prediction(1, 3, box_embeddings=vectors[2]),
    )


def _turned() -> tuple[Prediction | None, ...]:
    rng = np.random.default_rng(2)
    return tuple(_prediction(n, n, rotated=rng.random((n, 5), np.float32)) for n in (1, 2))


def _outlines() -> tuple[Prediction | None, ...]:
    rng = np.random.default_rng(3)
    rings = (((4, 3), ()), (), ((5,),))
    return tuple(
        _prediction(
            len(of),
            len(of),
            outlines=tuple(tuple(rng.random((points, 2), np.float32) for points in ring) for ring in of),
            shape_confidence=rng.random(len(of), np.float32),
        )
        for of in rings
    )


def _points() -> tuple[Prediction | None, ...]:
    rng = np.random.default_rng(4)
    return (_prediction(2, 4, keypoints=rng.random((2, 3, 3), np.float32)), _prediction(0, 5))


def _video() -> tuple[Prediction | None, ...]:
    tracks = Tracks(np.array([1, 5, 2]), np.array([0, 0, 1]), np.array([True, False, True]), length=9, rate=25.0)
    empty = np.zeros(0, np.int64)
    nothing = Tracks(empty, empty, empty.astype(np.bool_), length=3, rate=12.5)
    return (
        _prediction(3, 6, tracks=tracks, doubted_frames=np.array([5, 1]), video_doubt=0.5),
        None,
        _prediction(0, 7, tracks=nothing, doubted_frames=empty, video_doubt=0.0),
    )


if __name__ == "__main__":
    for name, shard in shards().items():
        (Path(sys.argv[1]) / f"{name}.npz").write_bytes(shard_codec.encode(shard))
