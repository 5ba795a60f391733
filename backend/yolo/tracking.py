"""The objects of a video: a detector finds boxes in every frame, and a tracker of ultralytics links them to objects.

A prediction holds key frames only, because Label Studio draws the boxes between them.
"""

from __future__ import annotations

import math
from itertools import tee
from typing import Any

import numpy as np

from backend.geometry import coordinates, keyframes
from backend.media.video import Video, frames
from backend.media.video_frames import Pixels
from backend.types import BoolArray, FloatArray, IntArray, Prediction, Tracks, VideoOptions
from backend.yolo import thumbnails, video_uncertainty
from backend.yolo.detector import KEEP_CONFIDENCE, Detector

MISSED = 5  # an object that is not detected in at most so many frames in a row has not left


def predict_video(detector: Detector, video: Video, rate: float, options: VideoOptions) -> Prediction:
    """Return the key frames of the objects in a video, by Label Studio's numbers of frames at `rate` per second.

    `options` are `model_tracker`, `model_conf`, `model_iou` and `<tracker>_<key>`, see `tags.answer_options`.
    Memory grows with the number of boxes, not with the pixels. Raises MediaError as `video.frames` does.
    """
    pixels, images = tee(frames(video, video.numbers(rate), rate))  # at most one batch of the detector apart
    iou, lowest = float(options["model_iou"]), min(float(options["model_conf"]), KEEP_CONFIDENCE)
    follower, predictions = Follower(options), detector.predict_frames(pixels, iou, lowest)
    # Not strict, as frames may be missing at the end.
    for number, prediction, image in zip(video.numbers(rate), predictions, images, strict=False):
        follower.add(number, prediction, image)
    step = math.ceil(rate / video.fps)  # Label Studio shows each frame of the file so many times
    return follower.prediction(video, rate, bridge=(MISSED + 1) * step - 1)


class Follower:
    """Follows the objects of one video from frame to frame, and remembers their boxes."""

    def __init__(self, options: VideoOptions) -> None:
        """Take the options of the tracker: `model_tracker`, `model_conf` and `<tracker>_<key>`."""
        self.tracker = _tracker(options)
        self._lowest = float(options["model_conf"])
        self._confirmed: set[int] = set()  # ids; a tracker confirms a new object when it finds it twice
        self._frames: list[IntArray] = []  # for each frame with k boxes: (k,)
        self._ids: list[IntArray] = []  # (k,)
        self._boxes: list[FloatArray] = []  # (k, 4)
        self._probs: list[FloatArray] = []  # (k, C)
        self._embeddings: FloatArray = np.zeros(1, np.float32)  # (D,) their sum so far
        self._thumbnails: IntArray = np.zeros(1, np.int64)  # (192,) their sum so far
        self._entropies: list[float] = []  # of each frame
        self._numbers: list[int] = []

    def add(self, number: int, prediction: Prediction, pixels: Pixels) -> None:
        """Track the objects into the next frame.

        BoT-SORT uses the pixels to estimate the motion of the camera. With `with_reid` it also uses the detector's
        embeddings of the boxes, as ultralytics does for `model: auto` of its tracker.
        """
        rows = np.flatnonzero(prediction.confidence >= self._lowest)
        self._confirmed |= set(self._update(prediction, rows, pixels))
        visible = [track for track in self.tracker.tracked_stracks if track.frame_id == self.tracker.frame_id]
        visible_rows = rows[[int(track.idx) for track in visible]]
        self._frames.append(np.full(len(visible_rows), number, dtype=np.int64))
        self._ids.append(np.array([track.track_id for track in visible], dtype=np.int64))
        self._boxes.append(prediction.boxes[visible_rows])
        self._probs.append(prediction.class_probs[visible_rows])
        self._embeddings = self._embeddings + prediction.embedding
        self._thumbnails = self._thumbnails + prediction.thumbnail
        self._entropies.append(video_uncertainty.of_boxes(prediction.confidence))
        self._numbers.append(number)

    def prediction(self, video: Video, rate: float, bridge: int) -> Prediction:
        """Return the key frames of all objects; gaps of up to `bridge` frames are interpolated.

        Raises ValueError if no frame was added.
        """
        ids, numbers = np.concatenate(self._ids), np.concatenate(self._frames)
        order = np.lexsort((numbers, ids))
        order = order[np.isin(ids[order], list(self._confirmed))]
        _, objects = np.unique(ids[order], return_inverse=True)
        boxes = np.concatenate(self._boxes)[order]
        rows, enabled = _key_rows(numbers[order], objects, boxes, video, bridge)
        probs = np.concatenate(self._probs)[order][rows]
        sampled, entropy = np.array(self._numbers), np.array(self._entropies, dtype=np.float32)
        return Prediction(
            width=video.width,
            height=video.height,
            boxes=boxes[rows],
            class_probs=probs,
            confidence=probs.max(axis=1, initial=0),
            embedding=self._embeddings / np.float32(len(self._frames)),
            tracks=Tracks(numbers[order][rows], objects[rows], enabled, video.length(rate), rate),
            doubted_frames=video_uncertainty.worst(sampled, entropy, rate),
            video_doubt=video_uncertainty.of_video(
                entropy, video_uncertainty.fragmentation(numbers, ids, sampled, rate)
            ),
            thumbnail=thumbnails.mean(self._thumbnails, len(self._frames)),
        )

    def _update(self, prediction: Prediction, rows: IntArray, pixels: Pixels) -> list[int]:
        """Give the tracker the boxes of a frame; return the ids of the objects that it has confirmed."""
        from ultralytics.engine.results import Boxes

        classes = prediction.class_probs[rows].argmax(axis=1)
        columns = (prediction.boxes[rows], prediction.confidence[rows, None], classes[:, None])
        table = np.concatenate(columns, axis=1, dtype=np.float32)
        embeddings = None if prediction.box_embeddings is None else prediction.box_embeddings[rows]
        tracked = self.tracker.update(Boxes(table, pixels.shape[:2]), pixels, embeddings)
        return [int(row[4]) for row in tracked]


def _key_rows(
    numbers: IntArray, objects: IntArray, boxes: FloatArray, video: Video, bridge: int
) -> tuple[IntArray, BoolArray]:
    """Return the rows (k,) of boxes that become key frames, and whether their object stays visible after them (k,)."""
    inside = coordinates.clip_pixels(boxes, video.width, video.height)
    percent = coordinates.pixels_to_percent(inside, video.width, video.height)
    is_key, enabled = np.zeros(len(objects), np.bool_), np.zeros(len(objects), np.bool_)
    for object_ in range(objects.max(initial=-1) + 1):
        object_rows = np.arange(*np.searchsorted(objects, [object_, object_ + 1]))
        keys = keyframes.select(keyframes.Track(numbers[object_rows], percent[object_rows]), bridge=bridge)
        rows = object_rows[np.searchsorted(numbers[object_rows], keys.frames)]
        is_key[rows], enabled[rows] = True, keys.enabled
    return np.flatnonzero(is_key), enabled[is_key]


def _tracker(options: VideoOptions) -> Any:
    """Return a new tracker of ultralytics, with its default settings but for those in `options`.

    It must use nothing else of the tag, because a stored answer is valid as long as `options` stay the same.
    """
    from ultralytics.trackers.bot_sort import BOTSORT
    from ultralytics.trackers.byte_tracker import BYTETracker
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    name = str(options["model_tracker"])
    settings = YAML.load(check_yaml(f"{name}.yaml"))
    settings |= {key: options[f"{name}_{key}"] for key in settings if f"{name}_{key}" in options}
    return {"botsort": BOTSORT, "bytetrack": BYTETracker}[name](IterableSimpleNamespace(**settings))
