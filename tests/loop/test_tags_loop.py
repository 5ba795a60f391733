"""Boxes and a choice on one image, all the way through the real Label Studio: predict, correct, retrain, score, again.

The models learn next to nothing in a few steps; what is tested is that both tags make the whole way side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import StoredPrediction
from backend.model_versions import ModelVersion
from backend.store.store import PoolSigns
from backend.types import ControlTag, Json, LabeledBox, Task
from tests import drawings
from tests.kinds import assert_same, boxes, choices, drawn
from tests.support import IMGSZ, tiny_yolo
from tests.world import Servers, await_shown, open_servers

pytestmark = [pytest.mark.label_studio, pytest.mark.slow]

POOL, LABELED = 12, 5
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="red"/>'
    '<Label value="blue"/></RectangleLabels><Choices name="left" toName="image" model_score_threshold="0">'
    '<Choice value="red"/><Choice value="blue"/></Choices></View>'
)
TAGS = label_config.parse(CONFIG)


@dataclass(frozen=True)
class Look:
    """What Label Studio held after one flip, by unlabeled task."""

    version: str
    predictions: dict[int, list[StoredPrediction]]


@dataclass(frozen=True)
class Story:
    """What happened in one project."""

    looks: tuple[Look, Look, Look]  # v0, v1, v2
    learned: dict[int, tuple[tuple[LabeledBox, ...], ...]]  # of what was drawn, read back by each tag, by task
    true: dict[int, tuple[tuple[LabeledBox, ...], ...]]
    versions: tuple[ModelVersion, ...]
    signs: tuple[PoolSigns, ...]
    failures: Mapping[int, str]
    handed: int  # by the queue of v1
    changed: tuple[int, ...]  # tasks whose choice alone was changed before v2


@pytest.fixture(scope="module")
def servers(label_studio: LabelStudioProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    settings = {
        "IMGSZ": str(IMGSZ),
        "RETRAIN_EVERY": str(LABELED),
        "TRAIN_STEPS": "1",
        "MIN_EPOCHS": "2",
        "MAX_EPOCHS": "2",
        "BATCH": "4",
        "MODEL_SCORE_THRESHOLD": "0.05",
        "TOLERANCE": "1",
    }
    with open_servers(label_studio, tmp_path_factory.mktemp("tags"), settings) as servers:
        yield servers


@pytest.fixture(scope="module")
def story(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Story:
    client, folder = servers.client, Path(servers.settings.model_dir)
    tiny_yolo(folder / "yolo11n.pt", ("red", "blue"))
    tiny_yolo(folder / "yolo11n-cls.pt", ("red", "blue"), task="classify")
    pictures = drawings.pictures(tmp_path_factory.mktemp("pictures"), drawings.bar, POOL, seed=0)
    project = client.projects.create("boxes and a choice", CONFIG)
    client.tasks.upload_images(project, [picture.path for picture in pictures])
    true = {}
    for task in client.tasks.unlabeled(project):
        picture = next(one for one in pictures if str(task.data["image"]).endswith(f"-{one.path.name}"))
        true[task.id] = tuple(drawn(tag, picture) for tag in TAGS)
    client.projects.attach_backend(project, servers.url, "yolo")
    await_shown(servers, project, "yolo11n-v0")
    before = look(servers, project)
    for _ in range(LABELED):
        label(servers, next_task(servers, project), true)
    learned = read_back(servers, project)
    await_shown(servers, project, "yolo11n-v1")
    after = look(servers, project)

    first = next_task(servers, project)
    annotated = list(client.annotations.annotated_tasks(project))[: LABELED - 1]
    for one in annotated:  # the boxes stay as they are
        other = [*one.result[:-1], {**one.result[-1], "value": {"choices": ["blue"]}}]
        client.http.send("PATCH", f"/api/annotations/{one.annotation_id}/", {"result": other})
    label(servers, first, true)
    await_shown(servers, project, "yolo11n-v2")
    return Story(
        looks=(before, after, look(servers, project)),
        learned=learned,
        true=true,
        versions=servers.store.versions(project),
        signs=servers.store.state.signs(project),
        failures=servers.status(project).failures,
        handed=first.id,
        changed=tuple(one.task.id for one in annotated),
    )


def next_task(servers: Servers, project: int) -> Task:
    task = servers.client.tasks.next(project)
    assert task is not None
    return task


def label(servers: Servers, task: Task, true: Mapping[int, tuple[tuple[LabeledBox, ...], ...]]) -> None:
    drawn_boxes, choice = true[task.id]
    result: list[Json] = [*boxes(TAGS[0], drawn_boxes), *choices(TAGS[1], choice)]
    servers.client.annotations.create(task.id, result)


def read_back(servers: Servers, project: int) -> dict[int, tuple[tuple[LabeledBox, ...], ...]]:
    annotated = servers.client.annotations.annotated_tasks(project)
    return {one.task.id: tuple(tags.decode(tag, one.result) for tag in TAGS) for one in annotated}


def look(servers: Servers, project: int) -> Look:
    return Look(servers.shown_version(project), servers.predictions(project))


def regions_of(tag: ControlTag, found: StoredPrediction) -> list[Mapping[str, object]]:
    return [each for each in found.result if each["from_name"] == tag.from_name]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_task_has_one_prediction_with_the_regions_of_both_tags(story: Story, place: int) -> None:
    seen = story.looks[place]
    assert seen.version == f"yolo11n-v{place}"
    found = [one for (one,) in seen.predictions.values()]
    assert all(len(regions_of(TAGS[1], one)) == 1 for one in found)  # a choice each
    assert any(regions_of(TAGS[0], one) for one in found)
    assert {each["type"] for one in found for each in one.result} == {"rectanglelabels", "choices"}
    count = (POOL, POOL - LABELED, POOL - LABELED - 1)[place]
    scores = sorted(one.score for one in found if one.score is not None)
    assert scores == pytest.approx([rank / (count - 1) for rank in range(count)], abs=1e-6)


def test_what_is_annotated_is_learned_by_both(story: Story) -> None:
    assert len(story.learned) == LABELED
    for task, found in story.learned.items():
        for one, wanted in zip(found, story.true[task], strict=True):
            assert_same(one, wanted)
    assert story.failures == {}


def test_each_tag_has_a_model_of_its_own(story: Story) -> None:
    for version in story.versions:
        assert [(one.from_name, one.task, one.classes) for one in version.models] == [
            ("label", "detect", ("red", "blue")),
            ("left", "classify", ("red", "blue")),
        ]
        assert len({one.sha256 for one in version.models}) == 2
        assert version.reason.startswith("label: published")
        assert "; left: published" in version.reason


def test_both_tags_say_how_sure_they_are_of_the_pool(story: Story) -> None:
    signs = {one.tag: one for one in story.signs if one.version == 1}
    assert signs.keys() == {"", TAGS[1].from_name}
    assert all(one.uncertainty is not None and one.stability is None for one in signs.values())


def test_the_queue_hands_out_the_lowest_score(story: Story) -> None:
    scores = {task: one.score or 0.0 for task, (one,) in story.looks[1].predictions.items()}
    assert story.handed == min(scores, key=lambda task: scores[task])


def test_corrections_of_one_tag_alone_count_and_a_new_image_is_one_for_both(story: Story) -> None:
    first, second = story.versions
    assert (second.parent, len(second.snapshot.annotations)) == (1, LABELED + 1)
    changed = [
        one
        for one, stamp in first.snapshot.annotations.items()
        if second.snapshot.annotations.get(one) not in (None, stamp)
    ]
    assert len(changed) == len(story.changed) == LABELED - 1
    assert [one.champion_metrics is not None for one in second.models] == [True, True]
