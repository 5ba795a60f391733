"""VideoRectangle: tracks as regions, and regions as training labels."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LabelConfigError
from backend.geometry import keyframes
from backend.labelstudio import label_config, tags
from backend.labelstudio.tags.videorectangle import TURNED
from backend.types import Prediction, Region, Tracks
from tests.support import ROOT

EXAMPLE = (ROOT / "label_config" / "videorectangle.xml").read_text(encoding="utf-8")
(TAG,) = label_config.parse(EXAMPLE)
CLASSES = ("Vehicle", "Person")


def key(frame: int, x: float = 10, *, enabled: bool = True, **more: Any) -> dict[str, Any]:
    base = {"frame": frame, "x": x, "y": 20, "width": 10, "height": 30, "rotation": 0, "enabled": enabled}
    return base | {"time": frame / 25} | more


def region(*keys: dict[str, Any], labels: Any = ("Person",), name: str = "r1", **item: Any) -> dict[str, Any]:
    value = {"framesCount": 100, "duration": 4.0, "sequence": list(keys), "labels": list(labels)}
    return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value} | item


def prediction(keys: list[tuple[int, int, bool]], boxes: Any, probs: Any, length: int = 100) -> Prediction:
    """Return a prediction for a video of 200x100 pixels; `keys` are (object, frame, enabled)."""
    columns = np.array(keys, np.int64).reshape(-1, 3)
    certain = np.array(probs, np.float32).reshape(-1, 2)
    return Prediction(
        width=200,
        height=100,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        class_probs=certain,
        confidence=certain.max(axis=1, initial=0),
        embedding=np.zeros(3, np.float32),
        tracks=Tracks(columns[:, 1], columns[:, 0], columns[:, 2].astype(np.bool_), length, 25.0),
    )


# Label config


def test_labels_come_from_the_labels_beside_it() -> None:
    assert (TAG.kind, TAG.from_name, TAG.to_name, TAG.data_key) == ("videorectangle", "box", "video", "video")
    assert TAG.labels == ("Vehicle", "Person")
    assert TAG.class_to_label["bus"] == "Vehicle"
    assert (TAG.task, TAG.frame_rate, TAG.score_threshold) == ("detect", 25.0, 0.25)
    assert TAG.attributes == {"model_tracker": "botsort", "model_conf": "0.25"}


@pytest.mark.parametrize(
    ("attribute", "rate"), [("", 24), ('frameRate="29.97"', 29.97), ('framerate="10"', 10), ('frameRate="0.04"', 25)]
)
def test_frames_are_counted_as_label_studio_does(attribute: str, rate: float) -> None:
    assert label_config.parse(EXAMPLE.replace('frameRate="25"', attribute))[0].frame_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('frameRate="25"', 'frameRate="-25"', 'frameRate="-25" is not a number of frames per second'),
        ('frameRate="25"', 'frameRate="1e9"', 'frameRate="1e9" is not a number'),
        ('name="labels" toName="video"', 'name="labels" toName="other"', "has no Labels tags of the same toName"),
        ('model_tracker="botsort"', 'model_tracker="deepsort"', 'model_tracker="deepsort" is not supported'),
        ('model_conf="0.25"', 'model_conf="2"', 'model_conf="2" is not a number from 0 to 1'),
        ('model_conf="0.25"', 'model_iou="0"', 'model_iou="0" is not a number above 0, up to 1'),
        ('model_conf="0.25"', 'model_iou="1.5"', 'model_iou="1.5" is not a number above 0, up to 1'),
        ('model_conf="0.25"', 'botsort_with_reid="auto"', 'botsort_with_reid="auto" is not supported'),
        ('model_conf="0.25"', 'botsort_model="reid.pt"', 'botsort_model="reid.pt" is not supported'),
        ('model_conf="0.25"', 'botsort_gmc_method="farneback"', 'botsort_gmc_method="farneback" is not supported'),
        ('model_conf="0.25"', 'bytetrack_fuse_score="2"', 'bytetrack_fuse_score="2" is not supported'),
        ('model_conf="0.25"', 'botsort_match_thresh="9"', 'botsort_match_thresh="9" is not a number from 0 to 1'),
        ('model_conf="0.25"', 'botsort_match_tresh="0.9"', "is not a known setting"),
        ('model_conf="0.25"', 'bytetrack_with_reid="false"', "is not a known setting"),
        ("<Video ", "<Image ", 'toName="video" is the name of no Video tag'),
    ],
)
def test_what_cannot_be_used_is_refused(old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(LabelConfigError, match=message):
        label_config.parse(EXAMPLE.replace(old, new))


def test_a_misspelled_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LabelConfigError) as caught:
        label_config.parse(EXAMPLE.replace("model_conf=", 'ByteTrack_buffer="60" model_conf='))
    assert 'bytetrack_buffer="60"' in caught.value.what
    assert "bytetrack_fuse_score, bytetrack_match_thresh, bytetrack_new_track_thresh" in caught.value.fix
    assert "botsort" not in caught.value.fix


def test_another_frame_rate_is_another_training() -> None:
    assert label_config.config_hash(EXAMPLE) != label_config.config_hash(EXAMPLE.replace('"25"', '"$fps"'))
    assert label_config.config_hash(EXAMPLE) != label_config.config_hash(EXAMPLE.replace('"25"', '"24"'))
    assert label_config.config_hash(EXAMPLE) == label_config.config_hash(EXAMPLE.replace("botsort", "bytetrack"))


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("botsort_track_buffer", "60", 60.0),
        ("botsort_fuse_score", "no", False),
        ("botsort_with_reid", "True", True),
        ("botsort_gmc_method", "SparseOptFlow", "sparseOptFlow"),
        ("botsort_gmc_method", "none", "none"),
    ],
)
def test_the_trackers_own_settings_are_asked_for(name: str, value: str, option: object) -> None:
    (tag,) = label_config.parse(EXAMPLE.replace("model_conf=", f'{name}="{value}" model_conf='))
    assert tags.answer_options(tag)[name] == option
    assert name not in tags.answer_options(label_config.parse(EXAMPLE)[0])


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("botsort_proximity_thresh", "0.4", 0.4),
        ("botsort_appearance_thresh", "1", 1.0),
        ("botsort_model", "Auto", "auto"),
    ],
)
def test_what_tells_looks_counts_where_looks_do(name: str, value: str, option: object) -> None:
    written = EXAMPLE.replace("model_conf=", f'{name}="{value}" model_conf=')
    (tag,) = label_config.parse(written.replace("model_conf=", 'botsort_with_reid="1" model_conf='))
    assert tags.answer_options(tag)[name] == option
    assert name not in tags.answer_options(label_config.parse(written)[0])


# Encode


def test_an_object_becomes_one_region() -> None:
    predicted = prediction(
        [(0, 1, True), (0, 50, False), (1, 10, True), (1, 100, False)],
        [[20, 10, 40, 60], [60, 10, 80, 60], [0, 0, 20, 10], [190, 90, 210, 110]],
        [[0.7, 0.2], [0.5, 0.2], [0.1, 0.4], [0.1, 0.2]],
    )
    first, second = (encoded.as_json() for encoded in tags.encode(TAG, predicted, CLASSES, 0.5, "k"))
    assert first["value"] == {
        "framesCount": 100,
        "duration": 4.0,
        "labels": ["Vehicle"],
        "sequence": [
            {"frame": 1, "time": 0.04, "x": 10, "y": 10, "width": 10, "height": 50, "rotation": 0, "enabled": True},
            {"frame": 50, "time": 2.0, "x": 30, "y": 10, "width": 10, "height": 50, "rotation": 0, "enabled": False},
        ],
    }
    assert (first["type"], first["from_name"], first["to_name"]) == ("videorectangle", "box", "video")
    assert (first["score"], second["score"]) == (pytest.approx(0.6), pytest.approx(0.3))
    assert second["value"]["labels"] == ["Person"]
    assert second["value"]["sequence"][1]["width"] == pytest.approx(5)  # clipped to the frame
    assert first["id"] != second["id"]


def test_unsure_objects_and_classes_without_a_label_are_left_out() -> None:
    predicted = prediction(
        [(0, 1, True), (0, 2, False), (1, 1, False)], [[0, 0, 9, 9]] * 3, [[0.2, 0], [0.2, 0], [0, 0.9]]
    )
    assert [encoded.value["labels"] for encoded in tags.encode(TAG, predicted, CLASSES, 0.5, "k")] == [["Person"]]
    assert tags.encode(TAG, predicted, ("ghost", "spirit"), 0.5, "k") == ()


def test_nothing_found_and_no_model() -> None:
    nothing = prediction([], [], [])
    assert tags.encode(TAG, nothing, CLASSES, 0.0, "k") == ()
    blank = Prediction(9, 9, nothing.boxes, nothing.class_probs, nothing.confidence, nothing.embedding)
    assert tags.encode(TAG, blank, (), 0.0, "k") == ()


# Decode


def test_every_object_is_labeled_in_each_frame_that_is_a_key_frame_of_one() -> None:
    drawn = [region(key(1, 10), key(11, 30)), region(key(6, 50), key(21, 50), labels=["Vehicle"], name="r2")]
    decoded = [(box.frame, box.label, round(100 * box.xywh[0] - 5, 6)) for box in tags.decode(TAG, drawn)]
    assert decoded == [
        *((1, "Person", 10), (6, "Person", 20), (6, "Vehicle", 50)),
        *((11, "Person", 30), (11, "Vehicle", 50), (21, "Person", 30), (21, "Vehicle", 50)),
    ]
    assert tags.explain(TAG, drawn) == ()


def test_frames_in_which_an_object_is_not_enabled_have_no_box_of_it() -> None:
    drawn = [
        region(key(1), key(5, enabled=False), key(20), key(30, enabled=False)),
        region(*(key(frame, 50) for frame in (3, 10, 25, 40)), labels=["Vehicle"], name="r2"),
    ]
    people = [box.frame for box in tags.decode(TAG, drawn) if box.label == "Person"]
    assert people == [1, 3, 5, 20, 25, 30]


def test_an_object_with_two_boxes_at_a_frame_is_learned_as_the_editor_draws_it() -> None:
    twice = region(key(1, 10), key(11, 30), key(11, 50), key(21, 60, enabled=False))
    others = region(*(key(frame) for frame in (6, 16)), labels=["Vehicle"], name="r2")
    people = [box for box in tags.decode(TAG, [twice, others]) if box.label == "Person"]
    assert [(box.frame, round(100 * box.xywh[0] - 5, 6)) for box in people] == [
        *((1, 10), (6, 20), (11, 30), (16, 55), (21, 60)),
    ]
    assert tags.explain(TAG, [twice, others]) == ()


def test_frames_between_the_key_frames_are_learned_where_the_tag_says_so() -> None:
    (every,) = label_config.parse(EXAMPLE.replace("model_conf=", 'model_every="10" model_conf='))
    drawn = [region(key(5, 0), key(25, 20, enabled=False))]
    decoded = [(box.frame, round(100 * box.xywh[0] - 5, 6)) for box in tags.decode(every, drawn)]
    assert decoded == [(5, 0), (11, 6), (21, 16), (25, 20)]
    for count in (10**400, 1):  # JSON numbers have no limit; a video that is not loaded has one frame
        drawn[0]["value"]["framesCount"] = count
        assert [box.frame for box in tags.decode(every, drawn)] == [5, 11, 21, 25]
    assert tags.decode(every, []) == ()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(), "region r1 has no key frame"),
        (region(key(1), labels=[]), "region r1 has no label"),
        (region(key(1), labels=["Ghost"]), "the label 'Ghost', which is not in the label config"),
        (region(key(0)), "has the frame 0, and frames count from 1"),
        (region(key(1, x="left")), r"frame 1 has no usable x"),  # type: ignore[arg-type]
        (region(key(1), value=None), "has no label"),
        (region(key(1), value={"labels": ["Person"], "sequence": None}), "no list of key frames"),
        (region(key(1, rotation=30)), "is rotated but does not carry original_width"),
    ],
)
def test_what_is_left_out_is_explained(item: dict[str, Any], reason: str) -> None:
    assert tags.decode(TAG, [item]) == ()
    (explained,) = tags.explain(TAG, [item])
    assert reason in explained


def test_a_region_drawn_at_another_frame_rate_is_left_out() -> None:
    slower = region(key(1))
    slower["value"]["framesCount"] = 96  # of 4 seconds: 24 per second
    assert tags.decode(TAG, [slower]) == ()
    assert tags.explain(TAG, [slower]) == ("region r1 was drawn at 24 frames per second, and the label config says 25",)
    for count in (99, 1):  # a rounded count; the count of a video that was not loaded yet
        slower["value"]["framesCount"] = count
        assert len(tags.decode(TAG, [slower])) == 1


def test_boxes_outside_the_frame_are_clipped_or_dropped() -> None:
    (box,) = tags.decode(TAG, [region(key(1, -5), key(2, 120, enabled=False))])
    assert box.xywh == pytest.approx((0.025, 0.35, 0.05, 0.3))


@pytest.mark.parametrize("empty", [{"x": 120}, {"y": -40}, {"width": 0}, {"height": 0}])
def test_key_frames_that_show_nothing_are_counted_and_the_rest_is_learned(empty: dict[str, Any]) -> None:
    drawn = [region(key(1), key(7, **empty), key(9, enabled=False), labels=["Person", "Vehicle"])]
    assert [box.frame for box in tags.decode(TAG, drawn)] == [1, 1, 9, 9]
    assert tags.explain(TAG, drawn) == ("region r1 has no area inside the image in frame 7",)
    assert tags.unreadable(TAG, drawn) == ()


@pytest.mark.parametrize(
    ("rotation", "note", "hull"),
    [
        (90, "", (0.425, 0.3, 0.15, 0.2)),
        (-180, "", (0.45, 0.1, 0.1, 0.2)),
        (30, TURNED, (0.505801, 0.379904, 0.161603, 0.359808)),
    ],
)
def test_a_rotated_box_becomes_its_hull_and_says_so(
    rotation: float, note: str, hull: tuple[float, float, float, float]
) -> None:
    turned = region(key(1, 50, rotation=rotation), original_width=200, original_height=100)
    (box,) = tags.decode(TAG, [turned])
    assert box.note == note
    assert box.xywh == pytest.approx(hull, abs=1e-6)


def test_regions_of_other_tags_are_none_of_ours() -> None:
    others = [region(key(1), from_name="else"), region(key(1), from_name="labels", type="labels"), {"id": "x"}]
    tag = dataclasses.replace(TAG, controls={"else": TAG.kind, "labels": "labels"})
    assert tags.decode(tag, others) == ()
    assert tags.explain(tag, others) == ()


def test_no_result() -> None:
    assert tags.decode(TAG, []) == ()
    assert tags.explain(TAG, []) == ()


key_frames = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=8, unique_by=lambda k: k[0])


@settings(deadline=None)
@given(st.lists(key_frames, max_size=3), st.integers(0, 2**32))
def test_decode_undoes_encode(objects: list[list[tuple[int, bool]]], seed: int) -> None:
    rows = [(number, frame, on) for number, keys in enumerate(objects) for frame, on in sorted(keys)]
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 50, (len(rows), 2)), rng.uniform(1, 50, (len(rows), 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    probs = [[0.9, 0.1] if number % 2 else [0.1, 0.9] for number, *_ in rows]
    sent = [json.loads(json.dumps(item.as_json())) for item in encode_all(prediction(rows, boxes, probs))]
    assert tags.explain(TAG, sent) == ()
    decoded = [box for item in sent for box in tags.decode(TAG, [item])]
    assert [box.frame for box in decoded] == [frame for _, frame, _ in rows]
    assert [box.label for box in decoded] == ["Vehicle" if number % 2 else "Person" for number, *_ in rows]
    drawn = boxes.astype(np.float64) / (200, 100, 200, 100)
    expected = np.concatenate([(drawn[:, :2] + drawn[:, 2:]) / 2, drawn[:, 2:] - drawn[:, :2]], axis=1)
    np.testing.assert_allclose(np.array([box.xywh for box in decoded]).reshape(-1, 4), expected, rtol=0, atol=1e-9)
    enabled = [on for item in sent for on in keyframes.from_sequence(item["value"]).enabled.tolist()]
    assert enabled == [on for *_, on in rows]


def encode_all(predicted: Prediction) -> tuple[Region, ...]:
    return tags.encode(TAG, predicted, CLASSES, 0.5, "k")
