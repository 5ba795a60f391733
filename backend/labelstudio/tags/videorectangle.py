"""VideoRectangle on a Video, with the labels of the Labels beside it: one region per object, stored as key frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import RegionError
from backend.geometry import coordinates, keyframes
from backend.geometry.keyframes import MAX_FRAMES, KeyFrames, Track
from backend.labelstudio import regions
from backend.labelstudio.label_xml import FALSE, TRUE, is_true
from backend.labelstudio.tags import Tag
from backend.types import ControlTag, EmptyRegion, IntArray, LabeledBox, Prediction, Region, VideoOptions

TURNED = "turned boxes in videos learned as the upright boxes around them"
LABELS = "labels"  # key of the labels in a region's value
CONFIDENCE = 0.25  # default of model_conf: the lowest confidence of a box that is tracked
IOU = 0.7  # default of model_iou: two boxes of a class that overlap more count as one, the more confident
TRACKERS = ("botsort", "bytetrack")
# How BoT-SORT finds the camera's own motion: spelling in the label config -> spelling of ultralytics.
MOTION = {"sparseoptflow": "sparseOptFlow", "orb": "orb", "sift": "sift", "ecc": "ecc", "none": "none"}
SETTINGS = {
    "track_high_thresh": 1,
    "track_low_thresh": 1,
    "new_track_thresh": 1,
    "match_thresh": 1,
    "track_buffer": 1e4,
}
THRESHOLDS = ("botsort_proximity_thresh", "botsort_appearance_thresh")
APPEARANCE = (*THRESHOLDS, "botsort_model")  # of no effect without botsort_with_reid
OWN_FEATURES = "auto"  # objects are compared by the detector's own features
SWITCHES = (*(f"{name}_fuse_score" for name in TRACKERS), "botsort_with_reid")


def answer_options(attributes: Mapping[str, str]) -> VideoOptions:
    """Return the options of detection and tracking, with the settings of the tracker in use and of no other.

    >>> answer_options({"model_tracker": "ByteTrack", "bytetrack_match_thresh": "0.80", "botsort_track_buffer": "9"})
    {'model_conf': 0.25, 'model_iou': 0.7, 'model_tracker': 'bytetrack', 'bytetrack_match_thresh': 0.8}
    """
    tracker = attributes.get("model_tracker", TRACKERS[0]).strip().lower()
    with_reid = is_true(attributes, "botsort_with_reid", default=False)
    own = (name for name in attributes if name.startswith(f"{tracker}_") and (with_reid or name not in APPEARANCE))
    return {
        "model_conf": float(attributes.get("model_conf", CONFIDENCE)),
        "model_iou": float(attributes.get("model_iou", IOU)),
        "model_tracker": tracker,
        **{name: _value(attributes, name) for name in sorted(own)},
    }


def _value(attributes: Mapping[str, str], name: str) -> float | bool | str:
    """Return a tracker's setting in the type that ultralytics expects: a bool, a word, or a number."""
    if name in SWITCHES:
        return is_true(attributes, name, default=False)
    text = attributes[name].strip().lower()
    return OWN_FEATURES if text == OWN_FEATURES else MOTION.get(text) or float(text)


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return the objects of a video as regions; label and score come from the mean over an object's key frames.

    It leaves out objects under the tag's own threshold (else `threshold`), and classes that no label of the tag covers.
    """
    if prediction.tracks is None:  # no model yet
        return ()
    tracks, labels = prediction.tracks, regions.class_labels(tag, classes)
    percent = coordinates.percent_boxes(prediction)
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    encoded = []
    for object_id in range(tracks.objects.max(initial=-1) + 1):
        rows = tracks.objects == object_id
        probs = prediction.class_probs[rows].mean(axis=0)
        label, score = labels[int(probs.argmax())], float(probs.max())
        if label is not None and score >= lowest:
            keys = KeyFrames(tracks.frames[rows], percent[rows], tracks.enabled[rows])
            value = keyframes.to_sequence(keys, tracks.length, tracks.rate) | {LABELS: [label]}
            encoded.append(_region(tag, prediction, key, object_id, value, score))
    return tuple(encoded)


def _region(
    tag: ControlTag, prediction: Prediction, key: str, object_id: int, value: Mapping[str, Any], score: float
) -> Region:
    return Region(
        id=regions.region_id(key, tag.from_name, object_id),
        kind=tag.kind,
        from_name=tag.from_name,
        to_name=tag.to_name,
        value=value,
        score=score,
        original_width=prediction.width,
        original_height=prediction.height,
    )


def read(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield the training boxes of every key frame of any region, by frame, and why other regions are not learned.

    With `model_every` it also yields the boxes of every so many frames, which Label Studio interpolates.

    A key frame of one object has the boxes of all other objects too, where Label Studio draws them; without them the
    training would learn these objects as background. An object outside of the frame has no box there.
    """
    drawn: list[_DrawnLabel] = []
    for part in _drawn_labels(tag, result):
        if isinstance(part, _DrawnLabel):
            drawn.append(part)
        else:
            yield part
    frames = np.unique(np.concatenate([_between(tag, drawn), *(part.keys.frames for part in drawn)]))
    boxes = [box for part in drawn for box in _boxes(part, keyframes.interpolate(part.keys, frames))]
    yield from sorted(boxes, key=lambda box: box.frame)


@dataclass(frozen=True, slots=True)
class _DrawnLabel:
    """One label of one region, with what the region says of its video."""

    label: str
    keys: KeyFrames
    size: tuple[float, float] | None  # of the video in pixels; None: the region does not say
    length: float  # the number of the last frame


def _between(tag: ControlTag, drawn: Sequence[_DrawnLabel]) -> IntArray:
    """Return the frames at every `model_every`-th place, none where the tag does not set it."""
    every = int(regions.setting(tag, "model_every", 0))
    longest = max((drawn_label.length for drawn_label in drawn), default=0)
    return np.arange(1, min(longest, MAX_FRAMES) + 1, every, dtype=np.int64) if every else np.zeros(0, np.int64)


def _boxes(drawn: _DrawnLabel, track: Track) -> Iterator[LabeledBox]:
    angles = np.zeros(len(track.frames)) if track.rotation is None else track.rotation
    for (frame, inside), angle in zip(_inside(track, drawn.size), angles.tolist(), strict=True):
        if inside[2] > 0 and inside[3] > 0:
            note = TURNED if angle % 90 else ""
            yield LabeledBox(drawn.label, coordinates.percent_to_normalised(inside), frame=frame, note=note)


def _inside(track: Track, size: tuple[float, float] | None) -> Iterator[tuple[int, coordinates.Box]]:
    """Yield each frame of a track with the part of its upright box that is inside the image, in percent."""
    if size is not None:
        track = keyframes.upright(track, *size)
    for frame, box in zip(track.frames.tolist(), track.boxes.tolist(), strict=True):
        yield frame, coordinates.clip_percent((box[0], box[1], box[2], box[3]))


def _drawn_labels(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> Iterator[_DrawnLabel | EmptyRegion | str]:
    """Yield each label of each region of this tag, or why it is left out."""
    for item in result:
        if item.get("from_name") != tag.from_name or item.get("type") != tag.kind:
            continue
        name, labels = regions.name_of(item), regions.labels_of(item, LABELS)
        keys = _keys(tag, item) if labels else "has no label"
        if isinstance(keys, str):
            yield f"{name} {keys}"
            continue
        if not len(keys.frames):
            yield EmptyRegion(f"{name} has no key frame")
            continue
        size = regions.image_size(item)
        if outside := _frames_outside(keys, size):
            yield EmptyRegion(f"{name} has no area inside the image in frame {', '.join(map(str, outside))}")
        for label in labels:
            if isinstance(label, str) and label in tag.labels:
                yield _DrawnLabel(label, keys, size, _length(item, keys))
            else:
                yield f"{name} {regions.unknown_label(label)}"


def _frames_outside(keys: KeyFrames, size: tuple[float, float] | None) -> list[int]:
    """Return the first five key frames whose box has no area inside the image."""
    drawn = _inside(keyframes.interpolate(keys, keys.frames), size)
    return [frame for frame, inside in drawn if not (inside[2] > 0 and inside[3] > 0)][:5]


def _length(item: Mapping[str, Any], keys: KeyFrames) -> float:
    """Return the number of the video's frames by its region, and at least the region's last key frame.

    Label Studio writes 1 where the annotator did not wait until the video was loaded.
    """
    count = regions.number(item["value"].get("framesCount"))
    return max(float(keys.frames[-1]), count if count > 0 else 0)


def _keys(tag: ControlTag, item: Mapping[str, Any]) -> KeyFrames | str:
    """Return the key frames of a region, or what is wrong with it."""
    try:
        keys = keyframes.from_sequence(item["value"])
    except RegionError as error:
        return f"({error.where}): {error.what}"
    if keys.rotation is not None and regions.image_size(item) is None:
        return "is rotated but does not carry original_width and original_height"
    rate = keyframes.frame_rate(item["value"])
    # The whole number of frames may be off by one at either end.
    if rate is not None and abs(tag.frame_rate / rate - 1) * item["value"]["framesCount"] > 2:
        return f"was drawn at {rate:g} frames per second, and the label config says {tag.frame_rate:g}"
    return keys


TAG = Tag(
    name="VideoRectangle",
    object_name="Video",
    encode=encode,
    read=read,
    task=lambda _: "detect",
    labels_beside="Labels",
    attributes={
        "model_tracker": TRACKERS,
        **dict.fromkeys(SWITCHES, (*TRUE, *FALSE)),
        "botsort_gmc_method": tuple(MOTION),
        "botsort_model": (OWN_FEATURES,),
    },
    numbers={
        "model_conf": 1,
        "model_iou": 1,
        "model_every": MAX_FRAMES,
        **{f"{name}_{key}": most for name in TRACKERS for key, most in SETTINGS.items()},
        **dict.fromkeys(THRESHOLDS, 1),
    },
    above_zero=frozenset({"model_iou"}),
    answer_options=answer_options,
)
