"""The objects of a video: a detector looks at every frame, a tracker of ultralytics says which boxes are one object.

Only key frames are kept: Label Studio draws what is between them.
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

MISSED = 5  # looked-at frames in a row: an object overlooked for no longer has not left


def watch(detector: Detector, video: Video, rate: float, options: VideoOptions) -> Prediction:
    """Return the key frames of the objects in a video, in the frames that Label Studio counts: `rate` a second.

    `options` are `model_tracker`, `model_conf`, `model_iou` and `<tracker>_<key>`, see `tags.answer_options`.
    Memory grows with the boxes found, not with the pixels seen. Raises MediaError as `video.frames` does.
    """
    pixels, images = tee(frames(video, video.numbers(rate), rate))  # apart by one batch of the detector at most
    iou, lowest = float(options["model_iou"]), min(float(options["model_conf"]), KEEP_CONFIDENCE)
    follower, said = Follower(options), detector.watch(pixels, iou, lowest)
    # A header may promise a frame too many.
    for number, prediction, image in zip(video.numbers(rate), said, images, strict=False):
        follower.add(number, prediction, image)
    step = math.ceil(rate / video.fps)  # Label Studio shows each frame of the file that often
    return follower.prediction(video, rate, bridge=(MISSED + 1) * step - 1)


class Follower:
    """Follows the objects of one video from frame to frame, and remembers their boxes."""

    def __init__(self, options: VideoOptions) -> None:
        """Take how to follow: `model_tracker`, `model_conf` and `<tracker>_<key>`."""
        self.tracker = _tracker(options)
        self._lowest = float(options["model_conf"])
        self._confirmed: set[int] = set()  # a tracker believes in a new object when it sees it twice
        self._frames: list[IntArray] = []  # one item per frame, of k boxes each: (k,)
        self._ids: list[IntArray] = []  # (k,)
        self._boxes: list[FloatArray] = []  # (k, 4)
        self._probs: list[FloatArray] = []  # (k, C)
        self._embeddings: FloatArray = np.zeros(1, np.float32)  # (D,) their sum so far
        self._thumbnails: IntArray = np.zeros(1, np.int64)  # (192,) their sum so far
        self._entropies: list[float] = []  # of each frame
        self._numbers: list[int] = []

    def add(self, number: int, found: Prediction, pixels: Pixels) -> None:
        """Follow the objects into the next frame.

        BoT-SORT looks at the pixels for how the camera moves; with `with_reid` also at what the detector made of each
        box, as ultralytics does for its tracker's `model: auto`.
        """
        rows = np.flatnonzero(found.confidence >= self._lowest)
        self._confirmed |= set(self._update(found, rows, pixels))
        here = [track for track in self.tracker.tracked_stracks if track.frame_id == self.tracker.frame_id]
        kept = rows[[int(track.idx) for track in here]]
        self._frames.append(np.full(len(kept), number, dtype=np.int64))
        self._ids.append(np.array([track.track_id for track in here], dtype=np.int64))
        self._boxes.append(found.boxes[kept])
        self._probs.append(found.class_probs[kept])
        self._embeddings = self._embeddings + found.embedding
        self._thumbnails = self._thumbnails + found.thumbnail
        self._entropies.append(video_uncertainty.of_boxes(found.confidence))
        self._numbers.append(number)

    def prediction(self, video: Video, rate: float, bridge: int) -> Prediction:
        """Return the key frames of all objects; `bridge`: so many frames without one are interpolated.

        Raises ValueError where no frame was added.
        """
        ids, numbers = np.concatenate(self._ids), np.concatenate(self._frames)
        order = np.lexsort((numbers, ids))
        order = order[np.isin(ids[order], list(self._confirmed))]
        _, objects = np.unique(ids[order], return_inverse=True)
        boxes = np.concatenate(self._boxes)[order]
        rows, enabled = _key_rows(numbers[order], objects, boxes, video, bridge)
        probs = np.concatenate(self._probs)[order][rows]
        looked_at, entropy = np.array(self._numbers), np.array(self._entropies, dtype=np.float32)
        return Prediction(
            width=video.width,
            height=video.height,
            boxes=boxes[rows],
            class_probs=probs,
            confidence=probs.max(axis=1, initial=0),
            embedding=self._embeddings / np.float32(len(self._frames)),
            tracks=Tracks(numbers[order][rows], objects[rows], enabled, video.length(rate), rate),
            doubted_frames=video_uncertainty.worst(looked_at, entropy, rate),
            video_doubt=video_uncertainty.of_video(
                entropy, video_uncertainty.fragmentation(numbers, ids, looked_at, rate)
            ),
            thumbnail=thumbnails.mean(self._thumbnails, len(self._frames)),
        )

    def _update(self, found: Prediction, rows: IntArray, pixels: Pixels) -> list[int]:
        """Give the tracker the boxes of a frame; return the ids of the objects it is sure of."""
        from ultralytics.engine.results import Boxes

        classes = found.class_probs[rows].argmax(axis=1)
        columns = (found.boxes[rows], found.confidence[rows, None], classes[:, None])
        table = np.concatenate(columns, axis=1, dtype=np.float32)
        seen = None if found.box_embeddings is None else found.box_embeddings[rows]
        tracked = self.tracker.update(Boxes(table, pixels.shape[:2]), pixels, seen)
        return [int(row[4]) for row in tracked]


def _key_rows(
    numbers: IntArray, objects: IntArray, boxes: FloatArray, video: Video, bridge: int
) -> tuple[IntArray, BoolArray]:
    """Return which boxes become key frames, and after which of them the object is still seen."""
    inside = coordinates.clip_pixels(boxes, video.width, video.height)
    percent = coordinates.pixels_to_percent(inside, video.width, video.height)
    kept, enabled = np.zeros(len(objects), np.bool_), np.zeros(len(objects), np.bool_)
    for one in range(objects.max(initial=-1) + 1):
        mine = np.arange(*np.searchsorted(objects, [one, one + 1]))
        keys = keyframes.select(keyframes.Track(numbers[mine], percent[mine]), bridge=bridge)
        rows = mine[np.searchsorted(numbers[mine], keys.frames)]
        kept[rows], enabled[rows] = True, keys.enabled
    return np.flatnonzero(kept), enabled[kept]


def _tracker(options: VideoOptions) -> Any:
    """Return a new tracker of ultralytics, with its own settings but for those that are asked for.

    It sees nothing else of the tag: what it gets decides whether a stored answer still holds.
    """
    from ultralytics.trackers.bot_sort import BOTSORT
    from ultralytics.trackers.byte_tracker import BYTETracker
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    name = str(options["model_tracker"])
    settings = YAML.load(check_yaml(f"{name}.yaml"))
    settings |= {key: options[f"{name}_{key}"] for key in settings if f"{name}_{key}" in options}
    return {"botsort": BOTSORT, "bytetrack": BYTETracker}[name](IterableSimpleNamespace(**settings))
