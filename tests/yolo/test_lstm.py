"""An LSTM over embeddings: it learns what only the order of frames tells, to the sizes and thresholds it is given."""

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
    """Return the embeddings (n, 24) of a hand that turns one way or the other, and which way (n, 2).

    Where it stands says nothing of where it goes, so no single frame tells the labels.
    """
    rng = np.random.default_rng(seed)
    ways = np.repeat(rng.permutation([-1, 1] * 4), -(-frames // 8))[:frames]
    angle = rng.uniform(0, 6.28) + np.cumsum(0.5 * ways)
    mix = np.random.default_rng(99).normal(size=(2, DIMENSIONS))
    seen = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ mix + rng.normal(0, 0.05, (frames, DIMENSIONS))
    return seen.astype(np.float32), np.stack([ways < 0, ways > 0], axis=1)


LEARNED, OTHERS = [turning(seed) for seed in range(6)], [turning(seed) for seed in range(10, 14)]


def right(fitted: Fitted, videos: list[Video]) -> float:
    """Return the share of the answers about frames that are right."""
    return float(np.mean([(lstm.probabilities(fitted.net, seen) > 0.5) == labels for seen, labels in videos]))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return lstm.train(LEARNED, QUICK, seed=0)


def test_what_only_the_order_tells_is_learned(fitted: Fitted) -> None:
    alone = lstm.train(LEARNED, replace(QUICK, sequence_size=1, epochs=20), seed=0)
    print(f"right with 8 frames {right(fitted, OTHERS):.3f}, with one {right(alone, OTHERS):.3f}")
    assert right(fitted, OTHERS) > 0.9
    assert right(alone, OTHERS) < 0.7


def test_what_stands_still_in_the_learned_videos_does_no_harm_where_it_moves() -> None:
    """Scaled by a spread of nothing it would drown all that was learned."""
    learned = [(np.pad(seen, ((0, 0), (0, 8))), labels) for seen, labels in LEARNED]
    noise = np.random.default_rng(0).normal(0, 0.3, (60, 8)).astype(np.float32)
    others = [(np.concatenate([seen, noise], axis=1), labels) for seen, labels in OTHERS]
    net = lstm.train(learned, QUICK, seed=0)
    print(f"right where it moves {right(net, others):.3f}")
    assert right(net, others) > 0.9


def test_probabilities_are_those_of_each_frame(fitted: Fitted) -> None:
    seen, _ = OTHERS[0]
    probs = lstm.probabilities(fitted.net, seen)
    assert probs.shape == (60, 2)
    assert probs.dtype == np.float32
    assert ((probs > 0) & (probs < 1)).all()
    assert lstm.probabilities(fitted.net, seen[:3]).shape == (3, 2)  # shorter than a sequence
    assert lstm.probabilities(fitted.net, seen[:0]).shape == (0, 2)


@pytest.mark.parametrize(("changed", "same"), [(59, range(44)), (0, range(16, 60))])
def test_a_sequence_ends_where_it_ends(fitted: Fitted, changed: int, same: range) -> None:
    """A frame is in sequences of 8: one further away than that changes nothing."""
    seen, _ = OTHERS[0]
    other = seen.copy()
    other[changed] += 3
    before, after = (lstm.probabilities(fitted.net, each) for each in (seen, other))
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
    assert not any(one.requires_grad for one in net.parameters())


@pytest.mark.parametrize(
    ("f1", "accuracy", "ends"), [(0.5, 0.5, True), (0.5, 1.0, False), (1.0, 0.5, False), (0.0, 0.0, True)]
)
def test_a_training_ends_once_both_thresholds_are_reached(f1: float, accuracy: float, ends: bool) -> None:
    options = replace(QUICK, epochs=20, f1_threshold=f1, accuracy_threshold=accuracy)
    epochs: list[Epoch] = []
    last = lstm.train(LEARNED, options, 0, epochs.append).last
    assert [one.number for one in epochs] == list(range(1, last.number + 1))
    assert last == epochs[-1]
    assert (last.number < 20) == ends
    for one in epochs[:-1]:
        assert one.f1 < f1 or one.accuracy < accuracy
    if ends:
        assert last.f1 >= f1
        assert last.accuracy >= accuracy


def test_the_time_of_a_training_may_be_limited() -> None:
    never = replace(QUICK, epochs=1000, f1_threshold=1, accuracy_threshold=1)
    assert lstm.train(LEARNED, never, seed=0, minutes=1e-6).last.number == 1


def test_of_a_seed_follow_the_weights_and_nothing_else_is_drawn() -> None:
    before = torch.random.get_rng_state()
    three = [lstm.train(LEARNED, replace(QUICK, epochs=3), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, else_ = (lstm.probabilities(one.net, OTHERS[0][0]) for one in three)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - else_).max() > 1e-3


def test_who_is_told_of_an_epoch_may_end_the_training() -> None:
    def stop(_: Epoch) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lstm.train(LEARNED, QUICK, 0, stop)


def test_dimensions_that_never_change_do_no_harm() -> None:
    still = [
        (np.concatenate([seen, np.full((len(seen), 2), 7, np.float32)], axis=1), labels) for seen, labels in LEARNED
    ]
    found = lstm.train(still, replace(QUICK, epochs=2), seed=0)
    assert np.isfinite(found.last.loss)
    assert np.isfinite(lstm.probabilities(found.net, still[0][0])).all()


def test_a_single_frame_without_a_label_can_be_learned() -> None:
    found = lstm.train([(np.ones((1, 3), np.float32), np.zeros((1, 2), np.bool_))], LstmOptions(epochs=30), seed=0)
    assert (lstm.probabilities(found.net, np.ones((1, 3), np.float32)) < 0.5).all()


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20))
def test_sequences_hold_every_frame(frames: int, size: int) -> None:
    parts = list(lstm.sequence_slices(frames, size))
    assert {frame for part in parts for frame in range(part.start, part.stop)} == set(range(frames))
    assert all(part.stop - part.start == min(size, frames) for part in parts)
    assert len(parts) == len({part.start for part in parts})
