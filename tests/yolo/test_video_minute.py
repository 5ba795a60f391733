"""A minute of video of 640 x 480 pixels: the number of its key frames, their accuracy, and the memory it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.geometry import coordinates, keyframes
from backend.geometry.keyframes import Track
from backend.labelstudio import tags
from backend.labelstudio.tags.videorectangle import CONFIDENCE
from backend.media import video
from backend.media.video import Video
from backend.types import HyperParameters, LabeledBox, Prediction
from backend.yolo import tracking, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.detector import load_detector
from backend.yolo.tracking import Follower
from tests import clips
from tests.clips import Mover
from tests.support import CLASSES
from tests.yolo.test_tracking import perfect_prediction, tag

pytestmark = pytest.mark.torch

MINUTE, SIZE = 1500, (640, 480)  # frames, pixels
CROWD = [
    Mover("red", (30, 40), (3.1, 0.9), (120, 90)),
    Mover("blue", (400, 300), (-1.7, 2.3), (90, 120), first=100, last=1300),
    Mover("red", (200, 100), (0.4, -1.3), (100, 140), first=0, last=700),
]
LABELS, IMGSZ = ("red", "blue"), 320
SCRATCH = BaseWeights("yolo11n.yaml", pretrained=False, note="")
PEAK = """
import resource, sys
from pathlib import Path
from backend.labelstudio import tags
from backend.media import video
from backend.yolo import tracking
from backend.yolo.detector import load_detector
from tests.support import CLASSES
from tests.yolo.test_tracking import tag
clip, detector = video.probe(Path(sys.argv[1])), load_detector(Path(sys.argv[2]), 320, "cpu")
prediction = tracking.predict_video(detector, clip, tag().frame_rate, tags.answer_options(tag()))
assert len(prediction.boxes)
print(prediction.tracks.length, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def pictures(folder: Path, count: int, seed: int) -> tuple[LabeledImage, ...]:
    """Draw the rectangles that move in the minute, at other places and in other sizes."""
    rng, drawn = np.random.default_rng(seed), []
    for task_id in range(seed * 1000, seed * 1000 + count):
        scene = [
            Mover(str(label), tuple(rng.uniform(0, 300, 2)), (0, 0), tuple(rng.integers(80, 150, 2)))
            for label in rng.choice(LABELS, rng.integers(1, 4))
        ]
        (pixels,) = clips.draw(scene, 1, SIZE)
        path = folder / f"{task_id}.png"
        Image.fromarray(pixels[:, :, ::-1]).save(path)
        drawn.append(LabeledImage(task_id, path, tuple(labeled(mover) for mover in scene), random=True))
    return tuple(drawn)


def labeled(mover: Mover) -> LabeledBox:
    box = mover.box(0, *SIZE)
    assert box is not None
    x, y, w, h = box
    return LabeledBox(mover.label, ((x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a detector trained on the rectangles that move here."""
    folder = tmp_path_factory.mktemp("minute")
    split = Split(pictures(folder, 48, seed=1), pictures(folder, 4, seed=2), held_out=True)
    data_yaml = writer.write(split, LABELS, folder / "data")
    hyper = HyperParameters(epochs=40, batch=8, imgsz=IMGSZ, seed=0, device="cpu")
    return training.train(data_yaml, SCRATCH, hyper, folder / "run", lambda _: None).weights


def drawn(prediction: Prediction, of: Mapping[str, str]) -> list[Track]:
    """Return the track that Label Studio draws for each object of a prediction."""
    regions = [region.as_json() for region in tags.encode(tag(of), prediction, CLASSES, 0.25, "k")]
    return [keyframes.interpolate(keyframes.from_sequence(region["value"]), range(1, MINUTE + 1)) for region in regions]


def agreement(tracks: Sequence[Track], boxes: Mapping[int, npt.ArrayLike]) -> list[float]:
    """Return for each drawn box its highest IoU with one of the boxes (k, 4) of its frame."""
    percent = np.array(SIZE * 2) / 100
    return [
        float(coordinates.iou([[x, y, x + w, y + h]], boxes[frame]).max(initial=0.0))
        for track in tracks
        for frame, (x, y, w, h) in zip(track.frames.tolist(), track.boxes * percent, strict=True)
    ]


def truth(frame: int) -> coordinates.Boxes:
    """Return the true boxes of a frame (k, 4) xyxy in pixels."""
    boxes = [box for mover in CROWD if (box := mover.box(frame, *SIZE)) is not None]
    return np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=np.float64)


def test_a_minute_of_shaken_boxes_needs_few_key_frames() -> None:
    """The boxes are those of a good detector: 1 pixel off, and a tenth of them missing."""
    clip = Video(Path("minute.avi"), *SIZE, fps=25.0, frames=MINUTE)
    of = {"model_tracker": "bytetrack"}
    follower, pixels = Follower(tags.answer_options(tag(of))), np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
    predictions = {}
    for number in range(1, MINUTE + 1):
        complete = perfect_prediction(CROWD, number - 1, shake=1.0, size=SIZE)
        detected = np.random.default_rng(number).random(len(complete.boxes)) < 0.9
        fields = ("boxes", "class_probs", "confidence")
        predictions[number] = replace(complete, **{name: getattr(complete, name)[detected] for name in fields})
        follower.add(number, predictions[number], pixels)
    key_frames = follower.prediction(clip, 25.0, bridge=tracking.MISSED)
    tracks = drawn(key_frames, of)
    overlaps = np.array(agreement(tracks, {number: prediction.boxes for number, prediction in predictions.items()}))
    assert len(tracks) == len(CROWD)
    assert len(key_frames.boxes) <= 0.15 * len(overlaps)
    assert overlaps[overlaps > 0.5].mean() >= 0.9  # without the boxes overlooked
    assert (overlaps > 0.5).mean() > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    "of",
    [{"model_tracker": "bytetrack"}, {"model_tracker": "botsort"}, {"botsort_with_reid": "true"}],
    ids=["bytetrack", "botsort", "with_reid"],
)
def test_a_minute_of_video_needs_few_key_frames(of: dict[str, str], tmp_path: Path, weights: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "minute.avi", CROWD, MINUTE, SIZE))
    detector = load_detector(weights, IMGSZ, "cpu")
    key_frames = tracking.predict_video(detector, clip, tag(of).frame_rate, tags.answer_options(tag(of)))
    tracks = drawn(key_frames, of)
    numbers = list(clip.numbers(25.0))
    predictions = zip(numbers, detector.predict_frames(video.frames(clip, numbers, 25.0)), strict=True)
    boxes = {number: prediction.boxes[prediction.confidence >= CONFIDENCE] for number, prediction in predictions}
    true = {number: truth(number - 1) for number in numbers}
    overlaps = np.array(agreement(tracks, boxes))
    share, there = len(key_frames.boxes) / len(overlaps), len(overlaps) / sum(map(len, true.values()))
    right = np.mean(agreement(tracks, true))
    print(
        f"{of}: {len(tracks)} objects, {share:.1%} of their frames are key frames, mean IoU {overlaps.mean():.3f} with "
        f"what the detector says, {right:.3f} with the truth; {there:.1%} of the true boxes' number are drawn"
    )
    assert share <= 0.15
    assert overlaps.mean() >= 0.9
    assert right >= 0.85
    assert 0.95 < there < 1.05


@pytest.mark.slow
def test_a_video_six_times_as_long_takes_no_more_memory(tmp_path: Path, weights: Path) -> None:
    short, long = clips.peaks(tmp_path, PEAK, CROWD, weights)
    assert long < short + 20  # all frames would take 1.4 GB
