"""The labels of a project as the data of an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets.writer import LabeledImage, Split
from backend.errors import BackendError
from backend.labelstudio import label_config
from backend.loop import experiment_data
from backend.loop.exported_labels import TagLabels
from backend.settings import Settings
from backend.simulate import simulation_data, simulation_task
from backend.store.store import ProjectRecord
from backend.types import LabeledBox
from backend.yolo.tasks import weights_name
from tests import drawings
from tests.kinds import KINDS, drawn
from tests.support import CONFIG, open_context

(TAG,) = label_config.parse(CONFIG)
BOX = LabeledBox("cat", (0.5, 0.5, 0.2, 0.2))


def labels(count: int, held_out: int = 0, frames: int = 1) -> TagLabels:
    images = tuple(
        LabeledImage(task, Path("x.png"), (BOX,), random=True, frame=frame)
        for task in range(count)
        for frame in range(frames)
    )
    val = images[: held_out * frames]
    split = Split(images[len(val) :], val, held_out=True) if held_out else Split(images, images, held_out=False)
    return TagLabels(TAG, split, {}, {})


def test_held_out_images_are_the_test_split_if_there_are_enough() -> None:
    before = labels(40, held_out=10)
    after, notes = experiment_data.for_experiment(before)
    assert after.split == before.split
    assert notes == []


@pytest.mark.parametrize("held_out", [0, 9])
def test_otherwise_a_fifth_of_the_tasks_is_and_no_task_is_in_both(held_out: int) -> None:
    after, notes = experiment_data.for_experiment(labels(40, held_out, frames=3))
    train, test = ({image.task_id for image in part} for part in (after.split.train, after.split.val))
    assert (len(train), len(test)) == (32, 8)
    assert not train & test
    assert len(after.split.train) == 3 * 32
    assert "a fifth" in notes[0]
    again, _ = experiment_data.for_experiment(labels(40, held_out, frames=3))
    assert again.split == after.split


def test_a_turned_box_that_leaves_its_image_is_left_out() -> None:
    inside = ((0.2, 0.2), (0.4, 0.2), (0.4, 0.4), (0.2, 0.4))
    outside = ((-0.2, 0.5), (0.5, -0.1), (0.7, 0.2), (0.1, 0.8))
    images = tuple(
        LabeledImage(task, Path("x.png"), (LabeledBox("cat", BOX.xywh, outline=(ring,)),), random=True)
        for task, ring in enumerate([inside] * 10 + [outside] * 2)
    )
    tag = label_config.parse(CONFIG.replace("toName", 'model_obb="true" toName'))[0]
    assert tag.task == "obb"
    after, notes = experiment_data.for_experiment(TagLabels(tag, Split(images, images, held_out=False), {}, {}))
    kept = {image.task_id for image in (*after.split.train, *after.split.val)}
    assert kept == set(range(10))
    assert "2 images have a turned box that leaves them" in notes[0]


def test_one_task_is_too_few() -> None:
    with pytest.raises(BackendError, match="1 labeled task"):
        experiment_data.for_experiment(labels(1))


@pytest.mark.label_studio
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.task != "semantic"])
def test_an_experiment_reads_the_labels_of_every_kind(
    name: str, label_studio: LabelStudioProcess, settings: Settings, tmp_path: Path
) -> None:
    kind = KINDS[name]
    tag, keys = kind.tag(), {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("experiment", kind.label_config())
        context.store.save_project(ProjectRecord(project, kind.label_config(), "", "", "", ""))
        pictures = drawings.pictures(tmp_path, kind.draw, 10, seed=0)
        client.tasks.upload_images(project, [picture.path for picture in pictures])
        for task in client.tasks.unlabeled(project):
            (picture,) = [picture for picture in pictures if str(task.data["image"]).endswith(picture.path.name)]
            client.annotations.create(task.id, kind.annotate(tag, drawn(tag, picture)))
        written = experiment_data.write(context, project, tmp_path / "out", lambda *_: None)
        task_name, weights = simulation_task.choose(
            simulation_data.task_by_data(written.place), written.base_model, tmp_path
        )
        assert (task_name, weights) == (kind.task, weights_name("yolo11n.pt", kind.task))
        data = simulation_data.read(written.place, task_name)
        assert (len(data.pool), len(data.test)) == (8, 2)
        assert set(data.classes) == set(tag.labels)
        simulation_data.check(data, 8)
        labels_before = sorted(path.read_text() for path in (tmp_path / "out").rglob("*.txt"))
        client.annotations.delete(next(iter(client.annotations.stamps(project))))
        again = experiment_data.write(context, project, tmp_path / "out", lambda *_: None)
        assert again.place == written.place  # an experiment that goes on keeps the labels of its start
        assert sorted(path.read_text() for path in (tmp_path / "out").rglob("*.txt")) == labels_before
