"""A real training on videos, with Label Studio: from boxes drawn at key frames to detections in new videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import writer
from backend.datasets.reader import LabeledFile
from backend.evaluation import basis
from backend.geometry import keyframes
from backend.geometry.keyframes import Track
from backend.labelstudio import label_config, tags
from backend.types import Json, LabeledBox
from backend.yolo import evaluate
from tests import clips
from tests.clips import Mover
from tests.support import ImageSite
from tests.world import await_shown, open_servers

pytestmark = [pytest.mark.slow, pytest.mark.label_studio]

CONFIG = (
    '<View><Labels name="labels" toName="video"><Label value="red"/><Label value="blue"/></Labels>'
    '<Video name="video" value="$video" frameRate="25"/>'
    '<VideoRectangle name="box" toName="video" model_every="5" model_score_threshold="0.25"/></View>'
)
(TAG,) = label_config.parse(CONFIG)
SIZE, FRAMES, POOL, LABELED = (160, 120), 40, 10, 8
SETTINGS = {
    "ALLOWED_HOSTS": "127.0.0.1",
    "IMGSZ": "160",
    "BATCH": "8",
    "RETRAIN_EVERY": str(LABELED),
    "TRAIN_STEPS": "300",
    "STEPS_GROWTH": "0",
    "VAL_SHARE": "0.2",
}


def movers(seed: int) -> list[Mover]:
    """Return the objects of a video: a red one from the start, and a blue one that comes later."""
    rng = np.random.default_rng(seed)
    return [
        Mover(label, tuple(rng.uniform(0, 70, 2)), tuple(rng.uniform(-2, 2, 2)), tuple(rng.integers(28, 45, 2)), first)
        for label, first in (("red", 0), ("blue", 10))
    ]


def drawn(seed: int) -> list[Json]:
    """Return an annotator's result: the objects of a video at key frames."""
    regions = []
    for mover in movers(seed):
        frames = np.arange(mover.first + 1, FRAMES + 1)
        boxes = np.array([mover.box(frame - 1, *SIZE) for frame in frames.tolist()], dtype=np.float64)
        keys = keyframes.select(Track(frames, 100 * boxes / (*SIZE, *SIZE)), tau=0.1)
        value = keyframes.to_sequence(keys, FRAMES, 25) | {"labels": [mover.label]}
        regions.append(
            {
                **{"id": f"r{seed}{mover.label}", "type": "videorectangle", "origin": "manual"},
                **{"from_name": TAG.from_name, "to_name": TAG.to_name, "value": value},
            }
        )
    return regions


def frames_of_other_videos(folder: Path, seeds: range) -> list[LabeledFile]:
    """Return every eighth frame of other videos, with its true boxes."""
    files = []
    for seed in seeds:
        for frame, pixels in enumerate(clips.draw(movers(seed), FRAMES, SIZE)):
            if frame % 8 == 0:
                path = folder / f"{seed}-{frame}.png"
                Image.fromarray(pixels[:, :, ::-1]).save(path)
                boxes = [(mover.label, mover.box(frame, *SIZE)) for mover in movers(seed)]
                files.append(LabeledFile(path, tuple(_labeled(label, box) for label, box in boxes if box is not None)))
    return files


def _labeled(label: str, box: tuple[int, int, int, int]) -> LabeledBox:
    x, y, width, height = box
    return LabeledBox(label, ((x + width / 2) / SIZE[0], (y + height / 2) / SIZE[1], width / SIZE[0], height / SIZE[1]))


def test_a_version_of_eight_videos_finds_objects_in_new_ones(
    label_studio: LabelStudioProcess, images: ImageSite, tmp_path: Path
) -> None:
    for seed in range(POOL):
        clips.write(images.folder / f"{seed}.avi", movers(seed), FRAMES, SIZE)
    with open_servers(label_studio, tmp_path / "backend", SETTINGS) as servers:
        client = servers.client
        project = client.projects.create("videos", CONFIG)
        data = [{"video": f"{images.url}/{seed}.avi"} for seed in range(POOL)]
        client.http.send("POST", f"/api/projects/{project}/import", data)
        client.projects.attach_backend(project, servers.url, "yolo")
        await_shown(servers, project, "yolo11n-v0")
        for _ in range(LABELED):
            task = client.tasks.next(project)
            assert task is not None
            client.annotations.create(task.id, drawn(int(str(task.data["video"])[-5])))
        await_shown(servers, project, "yolo11n-v1")
        version = servers.store.version(project, 1)
        failures, after = servers.status(project).failures, servers.predictions(project)
        data_yaml = writer.write_test_set(
            frames_of_other_videos(images.folder, range(100, 108)), TAG.labels, tmp_path / "test-set"
        )
        quality = evaluate.evaluate(servers.store.weights(version, TAG.from_name), data_yaml, 160, "cpu")
    regions = [region for (prediction,) in after.values() for region in prediction.result]
    print(f"videos: mAP50 {basis.on_test(quality)}, {len(regions)} tracks in {len(after)} videos, {version.timings}")
    assert failures == {}
    assert len(version.snapshot.annotations) == LABELED
    assert quality.map50 > 0.5
    assert len(after) == POOL - LABELED
    assert {box.label for box in tags.decode(TAG, regions)} == {"red", "blue"}
    assert sorted(prediction.score or 0 for (prediction,) in after.values()) == pytest.approx([1 / 3, 2 / 3])
