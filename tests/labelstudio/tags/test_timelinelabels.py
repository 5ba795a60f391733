"""TimelineLabels: predictions as regions, and regions as training labels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LabelConfigError
from backend.geometry.timeline_segments import LAST_FRAME
from backend.labelstudio import label_config, tags
from backend.labelstudio.tags.timelinelabels import borders, epochs, lstm
from backend.types import WHOLE, LabeledBox, LstmOptions, Prediction, Tracks
from tests.support import ROOT

EXAMPLE = (ROOT / "label_config" / "timelinelabels.xml").read_text(encoding="utf-8")
(TAG,) = label_config.parse(EXAMPLE)
PLAY, GOAL = CLASSES = ("Ball in play", "Goal")


def predict(probs: npt.ArrayLike, every: int = 1, length: int = 0) -> Prediction:
    """Return a prediction with probabilities (n, C) for every `every`-th frame of a video."""
    table = np.asarray(probs, np.float32)
    n = len(table)
    return Prediction(
        width=64,
        height=48,
        boxes=np.tile(np.array([0, 0, 64, 48], np.float32), (n, 1)),
        class_probs=table,
        confidence=table.max(axis=1, initial=0),
        embedding=np.zeros(2, np.float32),
        tracks=Tracks(
            np.arange(n) * every + 1, np.zeros(n, np.int64), np.ones(n, np.bool_), length or (n - 1) * every + 1, 25.0
        ),
    )


def region(*ranges: Any, labels: Any = (GOAL,), **item: Any) -> dict[str, Any]:
    value = {"ranges": list(ranges), "timelinelabels": list(labels)}
    return {"id": "r1", "type": "timelinelabels", "from_name": "event", "to_name": "video", "value": value} | item


def spans(
    predicted: Prediction, classes: tuple[str, ...] = CLASSES, threshold: float = 0.5
) -> list[tuple[str, int, int]]:
    regions = [region.as_json() for region in tags.encode(TAG, predicted, classes, threshold, "k")]
    boxes = tags.decode(TAG, json.loads(json.dumps(regions)))
    return [(box.label, box.frame, box.last) for box in boxes]


# Label config


def test_the_example() -> None:
    assert (TAG.kind, TAG.from_name, TAG.to_name, TAG.data_key) == ("timelinelabels", "event", "video", "video")
    assert (TAG.task, TAG.multiple, TAG.frame_rate, TAG.score_threshold) == ("classify", True, 25.0, 0.5)
    assert TAG.labels == CLASSES
    assert TAG.class_to_label["soccer ball"] == GOAL


def test_the_attributes_of_label_studios_example_backend() -> None:
    sizes = ['epochs="1000"', 'sequence_size="64"', 'hidden_size="32"', 'num_layers="1"', 'f1_threshold="0.95"']
    attributes = " ".join(f"model_classifier_{attribute}" for attribute in [*sizes, 'accuracy_threshold="0.99"'])
    (tag,) = label_config.parse(EXAMPLE.replace("model_every", f'model_trainable="True" {attributes} model_every'))
    assert tag.trainable
    assert lstm(tag) == LstmOptions(64, 32, 1, 1000, 0.95, 0.99)
    assert epochs(tag) == 0  # they are the epochs of the LSTM


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        ("", None),
        ('model_classifier_epochs="40" model_classifier_f1_threshold="0.5"', None),
        ('model_classifier_accuracy_threshold="0.5"', None),
        ('model_classifier_sequence_size="9.5"', LstmOptions(sequence_size=10)),
        ('model_classifier_hidden_size="64"', LstmOptions(hidden_size=64)),
        ('model_classifier_num_layers="2" model_classifier_epochs="7"', LstmOptions(num_layers=2, epochs=7)),
        (
            'model_classifier_num_layers="2" model_classifier_f1_threshold="0"',
            LstmOptions(num_layers=2, f1_threshold=0),
        ),
        (
            'model_classifier_hidden_size="8" model_classifier_accuracy_threshold="0.9"',
            LstmOptions(hidden_size=8, accuracy_threshold=0.9),
        ),
    ],
)
def test_a_tag_asks_for_an_lstm_by_its_sizes(attributes: str, options: LstmOptions | None) -> None:
    (tag,) = label_config.parse(EXAMPLE.replace("model_every", f"{attributes} model_every"))
    assert lstm(tag) == options
    assert lstm(replace(tag, kind="choices")) is None


def test_a_training_depends_on_them() -> None:
    hashes = [
        label_config.config_hash(EXAMPLE.replace("model_every", f"{attributes} model_every"))
        for attributes in ("", 'hotkey="1"', *(f'model_classifier_num_layers="{n}"' for n in (1, 2)))
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("attributes", "expected"), [("", 0), ('model_classifier_epochs="40"', 40), ('model_classifier_epochs="0.5"', 1)]
)
def test_a_tag_may_say_how_many_epochs_are_run(attributes: str, expected: int) -> None:
    (tag,) = label_config.parse(EXAMPLE.replace("model_every", f"{attributes} model_every"))
    assert epochs(tag) == expected
    assert epochs(replace(tag, kind="choices")) == 0  # nobody has checked this config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model_every", 'model_trainable="maybe" model_every', 'model_trainable="maybe" is neither true nor false'),
        ("model_every", 'model_classifier_epochs="many" model_every', "model_classifier_epochs="),
        ("model_every", 'model_classifier_sequence_size="0" model_every', "is not a number above 0, up to 1000"),
        ("model_every", 'model_classifier_sequence_size="1001" model_every', "is not a number above 0, up to 1000"),
        ("model_every", 'model_classifier_hidden_size="2000" model_every', "is not a number above 0, up to 1024"),
        ("model_every", 'model_classifier_num_layers="9" model_every', "is not a number above 0, up to 8"),
        ("model_every", 'model_classifier_f1_threshold="95" model_every', "is not a number from 0 to 1"),
        ("model_every", 'model_classifier_accuracy_threshold="-1" model_every', "is not a number from 0 to 1"),
        ("model_every", 'model_classifier_epochs="0" model_every', 'epochs="0" is not a number above 0, up to 1e\\+06'),
        ('model_every="5"', 'model_every="1e9"', "is not a number from 0 to 1000"),
        ("<Video ", "<Image ", 'toName="video" is the name of no Video tag'),
    ],
)
def test_what_cannot_be_used_is_refused(old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(LabelConfigError, match=message):
        label_config.parse(EXAMPLE.replace(old, new))


# Encode


def test_a_region_is_as_label_studio_stores_it() -> None:
    probs = np.zeros((100, 2))
    probs[30:60, 1] = 1
    (region,) = tags.encode(TAG, predict(probs), CLASSES, 0.5, "k")
    assert region.as_json()["value"] == {"ranges": [{"start": 31, "end": 60}], "timelinelabels": [GOAL]}
    assert (region.kind, region.from_name, region.to_name) == ("timelinelabels", "event", "video")
    assert 0.8 < region.score < 1  # the frames at its borders have lower probabilities


def test_labels_may_overlap_and_a_flicker_is_none() -> None:
    probs = np.zeros((200, 2))
    probs[10:80, 0] = probs[50:120, 1] = 1
    probs[[30, 31], 0] = 0  # the model misses an event for a few frames
    probs[160:163, 1] = 1  # the model sees an event in a few frames only
    assert spans(predict(probs)) == [(PLAY, 11, 80), (GOAL, 51, 120)]


def test_a_frame_that_is_looked_at_stands_for_those_around_it() -> None:
    probs = np.repeat([[0.0, 0.0], [0.9, 0.0], [0.0, 0.0]], [2, 4, 2], axis=0)
    assert spans(predict(probs, every=5)) == [(PLAY, 9, 28)]
    assert spans(predict([[0.9, 0]] * 4, every=5, length=19)) == [(PLAY, 1, 19)]
    assert spans(predict([[0.9, 0]], every=5, length=3)) == [(PLAY, 1, 3)]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 8))
def test_every_frame_has_the_nearest_that_was_looked_at(n: int, every: int, more: int) -> None:
    frames, length = np.arange(n) * every + 1, (n - 1) * every + 1 + min(more, every - 1)
    first, last = borders(frames, length)
    stands = np.concatenate([np.arange(*pair) for pair in zip(first, last + 1, strict=True)])
    assert stands.tolist() == list(range(1, length + 1))
    owner = np.repeat(frames, last - first + 1)
    assert (np.abs(owner - stands) == np.abs(frames[:, None] - stands).min(axis=0)).all()


def test_of_several_classes_of_a_label_the_surest_counts() -> None:
    config = EXAMPLE.replace("soccer ball", "soccer ball, rugby ball")
    (tag,) = label_config.parse(config)
    probs = np.tile([0.1, 0.4, 0.7], (30, 1))
    (region,) = tags.encode(tag, predict(probs), ("tench", "soccer ball", "rugby ball"), 0.5, "k")
    assert region.value["timelinelabels"] == [GOAL]
    assert region.score == pytest.approx(0.7)
    assert tags.encode(tag, predict(probs), ("tench", "cat", "dog"), 0.5, "k") == ()


def test_the_threshold_of_the_tag_wins() -> None:
    predicted = predict(np.full((20, 2), 0.6))
    assert len(spans(predicted, threshold=0.9)) == 2
    (strict,) = label_config.parse(EXAMPLE.replace('threshold="0.5"', 'threshold="0.7"'))
    assert tags.encode(strict, predicted, CLASSES, 0.1, "k") == ()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(8, 30), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_decode_undoes_encode(runs: list[tuple[int, bool, bool]]) -> None:
    """Segments longer than the smoothing window come back exactly."""
    marks = np.concatenate([np.tile([first, second], (length, 1)) for length, first, second in runs]).astype(np.bool_)
    expected = []
    for column, label in enumerate(CLASSES):
        edges = np.flatnonzero(np.diff(marks[:, column].astype(int), prepend=0, append=0))
        expected += [(label, int(first) + 1, int(end)) for first, end in edges.reshape(-1, 2)]
    assert sorted(spans(predict(marks))) == sorted(expected)


# Read


def test_each_label_of_each_range_is_learned() -> None:
    drawn = region({"start": 3, "end": 9}, {"start": 12, "end": None}, labels=(PLAY, GOAL))
    assert tags.decode(TAG, [drawn]) == tuple(
        LabeledBox(label, WHOLE, frame=start, last=end)
        for start, end in ((3, 9), (12, LAST_FRAME))
        for label in (PLAY, GOAL)
    )
    assert tags.explain(TAG, [drawn]) == ()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region({"start": 1, "end": 2}, labels=["Foul"]), "has the label 'Foul', which is not in the label config"),
        (region({"start": 1, "end": 2}, labels=[]), "has no label"),
        (region(), "has no range"),
        (region({"start": 0, "end": 2}), "has the frame 0"),
        (region({"end": "x"}), "has the frame 'x'"),
        (region("x"), "a range is not an object"),
        (region(value={"timelinelabels": [GOAL]}), "has no list of ranges"),
        (region(value=None), "has no label"),
    ],
)
def test_what_is_left_out_is_explained(item: dict[str, Any], reason: str) -> None:
    assert tags.decode(TAG, [item]) == ()
    (explained,) = tags.explain(TAG, [item])
    assert reason in explained
    assert explained.startswith("region r1")


def test_regions_of_other_tags_are_none_of_ours() -> None:
    choice = {"from_name": "weather", "type": "choices", "value": {"choices": ["rain"]}}
    others = [choice, region({"start": 1, "end": 2}, from_name="else"), {"id": "x"}]
    tag = dataclasses.replace(TAG, controls={"else": TAG.kind, "labels": "labels"})
    assert tags.decode(tag, others) == ()
    assert tags.explain(tag, others) == ()
