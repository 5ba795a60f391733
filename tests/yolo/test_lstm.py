"""The LSTM over embeddings learns labels that only the order of frames shows, with its options for size and end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.types import BoolArray, FloatArray, LstmOptions
from backend.yolo import lstm
from backend.yolo.lstm import Epoch, Fitted

pytestmark = pytest.mark.torch

DIMENSIONS = 24
QUICK = LstmOptions(sequence_size=8, hidden_size=12, epochs=60)
Video = tuple[FloatArray, BoolArray]


def turning(seed: int, frames: int = 60) -> Video:
    """Return the embeddings (n, 24) of a hand that turns in one of two directions, and the direction as labels (n, 2).

    The position does not show the direction, so no single frame shows the labels.
    """
    rng = np.random.default_rng(seed)
    ways = np.repeat(rng.permutation([-1, 1] * 4), -(-frames // 8))[:frames]
    angle = rng.uniform(0, 6.28) + np.cumsum(0.5 * ways)
    mix = np.random.default_rng(99).normal(size=(2, DIMENSIONS))
    embeddings = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ mix + rng.normal(0, 0.05, (frames, DIMENSIONS))
    return embeddings.astype(np.float32), np.stack([ways < 0, ways > 0], axis=1)


LEARNED, OTHERS = [turning(seed) for seed in range(6)], [turning(seed) for seed in range(10, 14)]


def right(fitted: Fitted, videos: list[Video]) -> float:
    """Return the share of right answers, one for each label of each frame."""
    return float(
        np.mean([(lstm.probabilities(fitted.net, embeddings) > 0.5) == labels for embeddings, labels in videos])
    )


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return lstm.train(LEARNED, QUICK, seed=0)


def test_labels_that_only_the_order_shows_are_learned(fitted: Fitted) -> None:
    alone = lstm.train(LEARNED, replace(QUICK, sequence_size=1, epochs=20), seed=0)
    print(f"right with 8 frames {right(fitted, OTHERS):.3f}, with one {right(alone, OTHERS):.3f}")
    assert right(fitted, OTHERS) > 0.9
    assert right(alone, OTHERS) < 0.7


def test_a_dimension_that_varies_in_other_videos_only_does_no_harm() -> None:
    """Scaled by a variance of 0, such a dimension would dominate all others."""
    learned = [(np.pad(embeddings, ((0, 0), (0, 8))), labels) for embeddings, labels in LEARNED]
    noise = np.random.default_rng(0).normal(0, 0.3, (60, 8)).astype(np.float32)
    others = [(np.concatenate([embeddings, noise], axis=1), labels) for embeddings, labels in OTHERS]
    net = lstm.train(learned, QUICK, seed=0)
    print(f"right where it moves {right(net, others):.3f}")
    assert right(net, others) > 0.9


def test_probabilities_are_those_of_each_frame(fitted: Fitted) -> None:
    embeddings, _ = OTHERS[0]
    probs = lstm.probabilities(fitted.net, embeddings)
    assert probs.shape == (60, 2)
    assert probs.dtype == np.float32
    assert ((probs > 0) & (probs < 1)).all()
    assert lstm.probabilities(fitted.net, embeddings[:3]).shape == (3, 2)  # shorter than a sequence
    assert lstm.probabilities(fitted.net, embeddings[:0]).shape == (0, 2)


@pytest.mark.parametrize(("changed", "same"), [(59, range(44)), (0, range(16, 60))])
def test_a_sequence_ends_where_it_ends(fitted: Fitted, changed: int, same: range) -> None:
    """A frame is in sequences of 8 frames, so frames further away change nothing."""
    embeddings, _ = OTHERS[0]
    other = embeddings.copy()
    other[changed] += 3
    before, after = (lstm.probabilities(fitted.net, variant) for variant in (embeddings, other))
    np.testing.assert_array_equal(before[list(same)], after[list(same)])
    assert np.abs(before[changed] - after[changed]).max() > 1e-4


def test_the_sizes_are_those_of_the_weights() -> None:
    options = LstmOptions(sequence_size=5, hidden_size=7, num_layers=3, epochs=1)
    net = lstm.train(LEARNED, options, seed=0).net
    assert net.sequence_size == 5
    assert (net["lstm"].hidden_size, net["lstm"].num_layers) == (7, 3)
    assert net["lstm"].weight_hh_l2_reverse.shape == (4 * 7, 7)
    assert (net["labels"].in_features, net["labels"].out_features) == (14, 2)
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("f1", "accuracy", "ends"), [(0.5, 0.5, True), (0.5, 1.0, False), (1.0, 0.5, False), (0.0, 0.0, True)]
)
def test_a_training_ends_once_both_thresholds_are_reached(f1: float, accuracy: float, ends: bool) -> None:
    options = replace(QUICK, epochs=20, f1_threshold=f1, accuracy_threshold=accuracy)
    epochs: list[Epoch] = []
    last = lstm.train(LEARNED, options, 0, epochs.append).last
    assert [epoch.number for epoch in epochs] == list(range(1, last.number + 1))
    assert last == epochs[-1]
    assert (last.number < 20) == ends
    for epoch in epochs[:-1]:
        assert epoch.f1 < f1 or epoch.accuracy < accuracy
    if ends:
        assert last.f1 >= f1
        assert last.accuracy >= accuracy


def test_the_time_of_a_training_may_be_limited() -> None:
    never = replace(QUICK, epochs=1000, f1_threshold=1, accuracy_threshold=1)
    assert lstm.train(LEARNED, never, seed=0, minutes=1e-6).last.number == 1


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    three = [lstm.train(LEARNED, replace(QUICK, epochs=3), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, else_ = (lstm.probabilities(result.net, OTHERS[0][0]) for result in three)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - else_).max() > 1e-3


def test_an_exception_of_the_callback_ends_the_training() -> None:
    def stop(_: Epoch) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lstm.train(LEARNED, QUICK, 0, stop)


def test_dimensions_that_never_change_do_no_harm() -> None:
    still = [
        (np.concatenate([embeddings, np.full((len(embeddings), 2), 7, np.float32)], axis=1), labels)
        for embeddings, labels in LEARNED
    ]
    result = lstm.train(still, replace(QUICK, epochs=2), seed=0)
    assert np.isfinite(result.last.loss)
    assert np.isfinite(lstm.probabilities(result.net, still[0][0])).all()


def test_a_single_frame_without_a_label_can_be_learned() -> None:
    result = lstm.train([(np.ones((1, 3), np.float32), np.zeros((1, 2), np.bool_))], LstmOptions(epochs=30), seed=0)
    assert (lstm.probabilities(result.net, np.ones((1, 3), np.float32)) < 0.5).all()


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20))
def test_sequences_hold_every_frame(frames: int, size: int) -> None:
    parts = list(lstm.sequence_slices(frames, size))
    assert {frame for part in parts for frame in range(part.start, part.stop)} == set(range(frames))
    assert all(part.stop - part.start == min(size, frames) for part in parts)
    assert len(parts) == len({part.start for part in parts})
