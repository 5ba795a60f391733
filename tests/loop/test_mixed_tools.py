"""Polygons and brushes with labels in common, on a real Label Studio: what is learned, and what annotators see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry import brush_rle
from backend.labelstudio import label_config
from backend.loop import project_status, serving
from backend.loop.context import Context
from backend.loop.review import round_value
from backend.loop.scoring import pool_ranking, push, scoring
from backend.loop.served_models import models_for
from backend.loop.training import label_reading
from backend.settings import Settings
from backend.types import BoolArray, Json
from tests.support import ImageSite, open_context, publish, tiny_yolo

pytestmark = pytest.mark.label_studio

SIZE = (80, 60)
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<PolygonLabels name="p" toName="image"><Label value="cat"/><Label value="dog"/></PolygonLabels>'
    '<BrushLabels name="b" toName="image"><Label value="dog"/><Label value="owl"/></BrushLabels></View>'
)
NAMES = ("cat", "dog", "owl")


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings) -> Iterator[Context]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys | {"model_score_threshold": 0.01})) as context:
        tiny_yolo(Path(settings.model_dir) / "yolo11n-seg.pt", NAMES, task="segment")
        yield context


@pytest.fixture
def project(studio: Context, images: ImageSite) -> int:
    """Two dogs in one image, of which one is outlined and one is brushed; and images without labels."""
    client = studio.label_studio
    project = client.projects.create("polygons and brushes", CONFIG)
    urls = [images.add(f"{seed}.png", seed, SIZE) for seed in range(4)]
    client.http.send("POST", f"/api/projects/{project}/import", [{"image": url} for url in urls])
    serving.setup(studio, project, CONFIG, "", "", "")
    first = min(client.tasks.unlabeled(project), key=lambda task: task.id)
    client.annotations.create(first.id, [outlined(), brushed()])
    return project


def outlined() -> Json:
    value = {"points": [[5, 10], [45, 10], [45, 90], [5, 90]], "closed": True, "polygonlabels": ["dog"]}
    return region("p", "polygonlabels", value)


def brushed() -> Json:
    mask: BoolArray = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[6:54, 48:72] = True
    return region("b", "brushlabels", {"format": "rle", "rle": brush_rle.encode_rle(mask), "brushlabels": ["dog"]})


def region(name: str, kind: str, value: Json) -> Json:
    size = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
    return {"id": f"of-{name}", "from_name": name, "to_name": "image", "type": kind, "value": value, **size}


def test_no_dog_is_background_and_no_dog_is_answered_twice(studio: Context, project: int) -> None:
    control_tags = label_config.parse(CONFIG)
    annotated = tuple(studio.annotated_tasks(project))
    for read in label_reading.labeled_images(studio, project, control_tags, annotated, frozenset()):
        (image,) = read.images
        assert sorted((box.label, round(box.xywh[0], 2), round(box.xywh[2], 2)) for box in image.boxes) == [
            ("dog", 0.25, 0.4),
            ("dog", 0.75, 0.3),
        ]

    record = studio.store.project(project)
    assert record is not None
    models = models_for(studio, record, accepted=False)
    unlabeled = list(studio.label_studio.tasks.unlabeled(project))
    scoring.save_shards(studio, models, scoring.predict_shards(studio, models, 0, unlabeled))
    pushed = push.push(studio, record, models, pool_ranking.rank_pool(studio, record, models))
    assert (pushed.created, pushed.failed) == (3, 0)
    shown: Counter[tuple[str, str]] = Counter()
    for task in unlabeled:
        (prediction,) = studio.label_studio.predictions.of_task(task.id)
        for item in prediction.result:
            shown.update((item["from_name"], label) for label in item["value"][item["type"]])
    assert set(shown) == {("p", "cat"), ("p", "dog"), ("b", "owl")}
    parent = publish(studio.store, project, Path(studio.settings.model_dir) / "yolo11n-seg.pt", from_name="p")
    assert [count for count, _ in round_value.labels_and_disagreement(studio, parent, annotated)] == [2]
    (warning,) = project_status.status(studio, project).warnings
    assert warning.startswith('BrushLabels "b" gives no answers for dog: PolygonLabels "p" does')
