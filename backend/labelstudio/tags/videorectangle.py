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
from backend.labelstudio.label_xml import FALSE, TRUE, says
from backend.labelstudio.tags import Tag
from backend.types import ControlTag, EmptyRegion, IntArray, LabeledBox, Prediction, Region, VideoOptions

TURNED = "turned boxes in videos learned as the upright boxes around them"
LABELS = "labels"  # where a region's value has them
CONFIDENCE = 0.25  # lowest of a box that is tracked, where the tag says nothing
IOU = 0.7  # of two boxes of one class in a frame, above which the surer one counts, where the tag says nothing
TRACKERS = ("botsort", "bytetrack")
# How BoT-SORT finds the camera's own motion, as Label Studio's config and as ultralytics spells it.
MOTION = {"sparseoptflow": "sparseOptFlow", "orb": "orb", "sift": "sift", "ecc": "ecc", "none": "none"}
SETTINGS = {
    "track_high_thresh": 1,
    "track_low_thresh": 1,
    "new_track_thresh": 1,
    "match_thresh": 1,
    "track_buffer": 1e4,
}
THRESHOLDS = ("botsort_proximity_thresh", "botsort_appearance_thresh")
LOOKS = (*THRESHOLDS, "botsort_model")  # of no effect without with_reid
OWN = "auto"  # whose features tell looks: the detector's own
SWITCHES = (*(f"{name}_fuse_score" for name in TRACKERS), "botsort_with_reid")


def asked(attributes: Mapping[str, str]) -> VideoOptions:
    """Return how objects are found and followed: of the trackers' settings those that are given to the one used.

    >>> asked({"model_tracker": "ByteTrack", "bytetrack_match_thresh": "0.80", "botsort_track_buffer": "9"})
    {'model_conf': 0.25, 'model_iou': 0.7, 'model_tracker': 'bytetrack', 'bytetrack_match_thresh': 0.8}
    """
    tracker = attributes.get("model_tracker", TRACKERS[0]).strip().lower()
    of_looks = says(attributes, "botsort_with_reid", default=False)
    own = (name for name in attributes if name.startswith(f"{tracker}_") and (of_looks or name not in LOOKS))
    return {
        "model_conf": float(attributes.get("model_conf", CONFIDENCE)),
        "model_iou": float(attributes.get("model_iou", IOU)),
        "model_tracker": tracker,
        **{name: _value(attributes, name) for name in sorted(own)},
    }


def _value(attributes: Mapping[str, str], name: str) -> float | bool | str:
    """Return a setting as ultralytics takes it: a switch, a word, or a number."""
    if name in SWITCHES:
        return says(attributes, name, default=False)
    text = attributes[name].strip().lower()
    return OWN if text == OWN else MOTION.get(text) or float(text)


def encode(
    tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return the objects of a video as regions; each has the label and the score of its key frames' mean.

    Left out: objects under the tag's own threshold (else `threshold`), and classes no label of the tag stands for.
    """
    if prediction.tracks is None:  # no model yet
        return ()
    tracks, labels = prediction.tracks, regions.class_labels(tag, classes)
    percent = coordinates.percent_boxes(prediction)
    lowest = threshold if tag.score_threshold is None else tag.score_threshold
    found = []
    for one in range(tracks.objects.max(initial=-1) + 1):
        mine = tracks.objects == one
        probs = prediction.class_probs[mine].mean(axis=0)
        label, score = labels[int(probs.argmax())], float(probs.max())
        if label is not None and score >= lowest:
            keys = KeyFrames(tracks.frames[mine], percent[mine], tracks.enabled[mine])
            value = keyframes.to_sequence(keys, tracks.length, tracks.rate) | {LABELS: [label]}
            found.append(_region(tag, prediction, key, one, value, score))
    return tuple(found)


def _region(
    tag: ControlTag, prediction: Prediction, key: str, one: int, value: Mapping[str, Any], score: float
) -> Region:
    return Region(
        id=regions.region_id(key, tag.from_name, one),
        kind=tag.kind,
        from_name=tag.from_name,
        to_name=tag.to_name,
        value=value,
        score=score,
        original_width=prediction.width,
        original_height=prediction.height,
    )


def read(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield the training boxes of every frame that is a key frame of some region, by frame, and why others are none.

    With `model_every` also those of every so many frames, where Label Studio interpolates.

    In such a frame the other objects are labeled too, where Label Studio draws them: unlabeled they would be learned as
    background. A frame in which an object is not seen has no box of it.
    """
    drawn: list[_Drawn] = []
    for each in _drawn(tag, result):
        if isinstance(each, _Drawn):
            drawn.append(each)
        else:
            yield each
    frames = np.unique(np.concatenate([_between(tag, drawn), *(each.keys.frames for each in drawn)]))
    boxes = [box for each in drawn for box in _boxes(each, keyframes.interpolate(each.keys, frames))]
    yield from sorted(boxes, key=lambda box: box.frame)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One label of one region; what it says of its video: the size in pixels, None if nothing, and the frames."""

    label: str
    keys: KeyFrames
    size: tuple[float, float] | None
    length: float  # the last frame there is, as far as it says


def _between(tag: ControlTag, drawn: Sequence[_Drawn]) -> IntArray:
    every = int(regions.setting(tag, "model_every", 0))
    longest = max((each.length for each in drawn), default=0)
    return np.arange(1, min(longest, MAX_FRAMES) + 1, every, dtype=np.int64) if every else np.zeros(0, np.int64)


def _boxes(drawn: _Drawn, track: Track) -> Iterator[LabeledBox]:
    angles = np.zeros(len(track.frames)) if track.rotation is None else track.rotation
    for (frame, inside), angle in zip(_inside(track, drawn.size), angles.tolist(), strict=True):
        if inside[2] > 0 and inside[3] > 0:
            note = TURNED if angle % 90 else ""
            yield LabeledBox(drawn.label, coordinates.percent_to_normalised(inside), frame=frame, note=note)


def _inside(track: Track, size: tuple[float, float] | None) -> Iterator[tuple[int, coordinates.Box]]:
    """Yield each frame of a track, and what of its upright box is inside the image."""
    if size is not None:
        track = keyframes.upright(track, *size)
    for frame, box in zip(track.frames.tolist(), track.boxes.tolist(), strict=True):
        yield frame, coordinates.clip_percent((box[0], box[1], box[2], box[3]))


def _drawn(tag: ControlTag, result: Iterable[Mapping[str, Any]]) -> Iterator[_Drawn | EmptyRegion | str]:
    """Yield what each label of each region of this tag means, or why it is left out."""
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
        if unseen := _unseen(keys, size):
            yield EmptyRegion(f"{name} has no area inside the image in frame {', '.join(map(str, unseen))}")
        for label in labels:
            if isinstance(label, str) and label in tag.labels:
                yield _Drawn(label, keys, size, _length(item, keys))
            else:
                yield f"{name} {regions.unknown_label(label)}"


def _unseen(keys: KeyFrames, size: tuple[float, float] | None) -> list[int]:
    """Return the first five key frames whose box shows nothing inside the image."""
    drawn = _inside(keyframes.interpolate(keys, keys.frames), size)
    return [frame for frame, inside in drawn if not (inside[2] > 0 and inside[3] > 0)][:5]


def _length(item: Mapping[str, Any], keys: KeyFrames) -> float:
    """Return how many frames a region says its video has, at least those it is drawn on.

    Label Studio says one where the annotator did not wait for the video.
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
        "botsort_model": (OWN,),
    },
    numbers={
        "model_conf": 1,
        "model_iou": 1,
        "model_every": MAX_FRAMES,
        **{f"{name}_{key}": most for name in TRACKERS for key, most in SETTINGS.items()},
        **dict.fromkeys(THRESHOLDS, 1),
    },
    above_zero=frozenset({"model_iou"}),
    asked=asked,
)
