"""How uncertain a model is about a video, and how videos are ranked by that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from backend import acquisition
from backend.acquisition import aggregation
from backend.acquisition.parts import pool_part
from backend.acquisition.pool import Pool
from backend.errors import ModelError
from backend.types import DOUBTED_FRAMES, Prediction
from backend.yolo import video_uncertainty

pytestmark = pytest.mark.torch

SAMPLED = np.arange(1, 251)  # ten seconds


def pieces(*spans: tuple[int, int, int], rate: float = 25.0) -> float:
    """Return the fragmentation of (track, first frame, last frame)."""
    frames = np.concatenate([np.zeros(0, np.int64), *(np.arange(first, last + 1) for _, first, last in spans)])
    tracks = np.repeat([track for track, *_ in spans], [last - first + 1 for _, first, last in spans])
    order = np.random.default_rng(0).permutation(len(frames))
    return video_uncertainty.fragmentation(frames[order], tracks.astype(np.int64)[order], SAMPLED, rate)


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ((), 0),
        (((0, 1, 250),), 0),
        (((0, 30, 80), (1, 40, 100)), 0),
        (((0, 1, 10), (1, 245, 250)), 0),  # may be longer than the video
        (((0, 30, 54),), 1),  # 24 frames on is less than a second
        (((0, 30, 55),), 0),
        (((0, 30, 35), (0, 40, 45), (0, 50, 100), (1, 1, 250)), 0.5),
        (((0, 30, 35), (1, 36, 41)), 1),  # another object takes its place
    ],
)
def test_short_pieces_are_fragmentation(spans: Sequence[tuple[int, int, int]], share: float) -> None:
    assert pieces(*spans) == share


def test_frames_between_the_sampled_ones_are_no_gaps() -> None:
    looked_at = np.arange(1, 251, 5)
    assert video_uncertainty.fragmentation(looked_at[4:20], np.zeros(16, np.int64), looked_at, 25) == 0
    assert video_uncertainty.fragmentation(np.delete(looked_at, 10)[4:20], np.zeros(16, np.int64), looked_at, 25) == 0
    assert video_uncertainty.fragmentation(np.delete(looked_at, 6)[4:20], np.zeros(16, np.int64), looked_at, 25) == 0.5


def test_a_frame_is_as_unsure_as_an_image_with_its_boxes() -> None:
    for scores in ([], [0.5], [0.9, 0.4, 0.05] * 8):
        table = np.array(scores, np.float32).reshape(-1, 1)
        pool = Pool(np.arange(1), np.array([0, len(table)]), table)
        expected = acquisition.get("entropy")(pool, np.random.default_rng(0))[0]
        assert video_uncertainty.of_boxes(table[:, 0]) == pytest.approx(expected, abs=1e-6)


def test_the_entropies_of_labels_are_summed() -> None:
    entropies = video_uncertainty.of_labels(np.array([[0.5, 0.5], [0.5, 1.0]], np.float32))
    np.testing.assert_allclose(entropies, np.log([4, 2]), rtol=1e-6)
    assert video_uncertainty.of_labels(np.zeros((0, 2), np.float32)).shape == (0,)


def test_short_pieces_double_a_doubt_at_most() -> None:
    entropy = np.array([0.3, 0.5], np.float32)
    assert [video_uncertainty.of_video(entropy, share) for share in (0, 0.5, 1)] == pytest.approx([0.4, 0.6, 0.8])
    assert video_uncertainty.of_video(entropy[:0], 0) == 0


def test_the_worst_frames_lie_a_second_apart() -> None:
    entropy = np.zeros(250, np.float32)
    entropy[[9, 20, 34, 100, 240]] = 0.5, 0.6, 0.4, 0.1, 0.6
    assert video_uncertainty.worst(SAMPLED, entropy, 25.0).tolist() == [21, 241, 101]
    assert video_uncertainty.worst(SAMPLED, np.zeros(250, np.float32), 25.0).tolist() == []
    assert len(video_uncertainty.worst(np.arange(1, 1001), np.ones(1000, np.float32), 25.0)) == DOUBTED_FRAMES
    assert video_uncertainty.worst(SAMPLED[:0], entropy[:0], 25.0).shape == (0,)


# Ranked


def prediction(value: float | None, boxes: int = 1) -> Prediction:
    probs = np.full((boxes, 2), 0.5, np.float32)
    return Prediction(
        8, 8, np.zeros((boxes, 4), np.float32), probs, probs[:, 0], np.ones(3, np.float32), video_doubt=value
    )


def pool(*predictions: Prediction) -> Pool:
    return aggregation.pool_of(np.arange(len(predictions)), predictions, np.array([1, 5], np.float32))


@pytest.mark.parametrize("strategy", ["video", "entropy", "class_entropy"])
def test_videos_are_ranked_by_their_doubt(strategy: str) -> None:
    """The number of key frames does not matter; a video without objects is in the middle."""
    videos = pool(prediction(0.2, 40), prediction(0.6), prediction(0.4, 3), prediction(0.0, 0))
    values = acquisition.get(strategy)(videos, np.random.default_rng(0))
    assert values == pytest.approx([0.2, 0.6, 0.4, 0.4])
    part = pool_part(videos, np.array([1, 0]))
    assert acquisition.get(strategy)(part, np.random.default_rng(0)) == pytest.approx([0.6, 0.2])


def test_images_are_not_ranked_as_videos() -> None:
    images = pool(prediction(None), prediction(None, 12))
    assert "video_doubt" not in images.columns
    assert "video_doubt" not in pool(prediction(0.5), prediction(None)).columns
    with pytest.raises(ModelError, match=r"'video' needs video_doubt.*tasks are images"):
        acquisition.get("video")(images, np.random.default_rng(0))


@pytest.mark.parametrize("bad", [np.ones(2), np.array([np.nan])])
def test_doubts_that_do_not_fit_are_refused(bad: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    with pytest.raises(ValueError, match="video_doubt"):
        replace(pool(prediction(0.1)), columns={"video_doubt": bad.astype(np.float32)})
