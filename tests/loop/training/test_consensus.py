"""CONSENSUS on a real Label Studio where two people annotate a task."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.errors import TrainingError
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import demands
from backend.loop.context import Context
from backend.loop.training import label_counts, label_reading, snapshot
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json
from tests.support import CONFIG, ImageSite, open_context, sign_up

pytestmark = pytest.mark.label_studio


RULES = ("newest", "vote", "ground_truth")


def box(x: float) -> Json:
    value = {"x": x, "y": 10, "width": 40, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    return {"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}


@pytest.fixture
def desk(settings: Settings, label_studio: LabelStudioProcess, images: ImageSite) -> Iterator[tuple[Context, int]]:
    """A task with two people's boxes, of which the second person drew one more."""
    access = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=access)) as context:
        client = context.label_studio
        project = client.projects.create("consensus", CONFIG)
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": images.add("a.png")}])
        (task,) = client.tasks.unlabeled(project)
        client.annotations.create(task.id, [box(10)])
        login = {"email": f"second-{project}@example.com", "password": "a-second-password"}
        sign_up(client, **login)
        with LabelStudioClient(label_studio.url, personal_access_token(label_studio.url, **login)) as second:
            second.annotations.create(task.id, [box(14), box(55) | {"id": "b"}])
        yield context, project


def choose(context: Context, project: int, consensus: str) -> None:
    extra = f'{{"CONSENSUS": "{consensus}"}}'
    context.store.save_project(ProjectRecord(project, CONFIG, extra, "", "", ""))


def counted(context: Context, project: int, consensus: str) -> tuple[int, int]:
    """Return how many labels count as new without any training, and how many tasks wait for a ground truth."""
    choose(context, project, consensus)
    counts = label_counts.count(context, project)
    assert (counts.tasks, counts.labeled) == (1, 1)
    return counts.new, counts.waiting


def learned(context: Context, project: int, consensus: str) -> list[list[float]]:
    """Return the left edges of the boxes of each image that a training would learn, in percent."""
    choose(context, project, consensus)
    tags = label_config.parse(CONFIG)
    (read,) = label_reading.labeled_images(context, project, tags, tuple(context.annotated_tasks(project)), frozenset())
    return [[round(100 * (box.xywh[0] - box.xywh[2] / 2), 6) for box in image.boxes] for image in read.images]


def test_the_setting_decides_what_two_peoples_labels_teach(desk: tuple[Context, int]) -> None:
    context, project = desk
    assert learned(context, project, "newest") == [[14, 55]]
    assert learned(context, project, "vote") == [[12]]
    with pytest.raises(Exception, match="no labeled task could be read"):
        learned(context, project, "ground_truth")
    assert {rule: counted(context, project, rule) for rule in RULES} == {
        "newest": (1, 0),
        "vote": (2, 0),
        "ground_truth": (0, 1),  # a training would learn nothing from it
    }
    with pytest.raises(TrainingError, match=r"0 tasks are labeled[^?]*1 tasks wait for a ground truth"):
        demands.require_labels(context, project)
    (reason,) = context.progress.failures(project).values()
    assert reason.startswith("left out of training: 2 people annotated it, and no annotation is the ground truth")
    (task,) = context.annotated_tasks(project)
    context.label_studio.annotations.update(task.annotation_id, ground_truth=True)
    for rule in RULES:
        assert learned(context, project, rule) == [[14, 55]]
        assert counted(context, project, rule) == (1, 0)
    assert context.progress.failures(project) == {}


def test_a_training_leaves_no_label_to_count(desk: tuple[Context, int], images: ImageSite) -> None:
    """Its snapshot names exactly the annotations that the count takes for read."""
    context, project = desk
    names = [images.add(f"{seed}.png", seed) for seed in (1, 2)]
    context.label_studio.http.send("POST", f"/api/projects/{project}/import", [{"image": name} for name in names])
    for task in context.label_studio.tasks.unlabeled(project):
        context.label_studio.annotations.create(task.id, [box(20)])
    for rule, count in (("newest", 3), ("vote", 4), ("ground_truth", 2)):
        choose(context, project, rule)
        taken = snapshot.take(context, project, lambda: None).snapshot.annotations
        assert taken == label_counts.current(context, project).read
        assert len(taken) == count
