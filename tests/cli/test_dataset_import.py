"""`import-dataset`: a labeled data set becomes tasks of a real Label Studio, and a second run adds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli import dataset_import
from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import BackendError, DataError
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import LabelStudioClient
from backend.types import LabeledBox
from tests.cli.commands import cli
from tests.support import CONFIG

BOX = LabeledBox("cat", (0.5, 0.5, 0.5, 0.25))


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """A data set of three images, of which two have the same file name, and one no label."""
    images = []
    for place, name in enumerate(("two words (1).png", "b.png", "c.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 40, 3), 50 * place, np.uint8)).save(path)
        images.append(LabeledImage(place, path, () if place == 2 else (BOX,), random=True))
    data_yaml = writer.write(
        Split(tuple(images[:2]), tuple(images[2:]), held_out=True), ("cat", "dog"), tmp_path / "data"
    )
    train, val = sorted((tmp_path / "data").rglob("images/*/*.png"))[:2], (tmp_path / "data").rglob("val/*.png")
    twin = next(path for path in val if path.parent.parent.name == "images")
    twin.rename(twin.with_name(train[0].name))
    return data_yaml


@pytest.fixture
def project(label_studio: LabelStudioProcess) -> Iterator[tuple[LabelStudioClient, int]]:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        yield client, client.projects.create("imported", CONFIG)


@pytest.mark.label_studio
@pytest.mark.parametrize("kind", ["annotations", "predictions"])
def test_a_data_set_is_imported_once(
    project: tuple[LabelStudioClient, int], studio_environ: dict[str, str], data_yaml: Path, kind: str
) -> None:
    client, project_id = project
    for written in (3, 0):
        done = cli(studio_environ, "import-dataset", str(project_id), str(data_yaml), "--as", kind)
        assert done.returncode == 0, done.stderr
        assert f"uploaded {written} images; {3 - written} were in project {project_id} already" in done.stdout
        assert f"wrote {kind} for {written} tasks" in done.stdout
    tasks = list(client.tasks.all(project_id))
    assert len(tasks) == 3
    (tag,) = label_config.parse(CONFIG)
    if kind == "annotations":
        results = [task.result for task in client.annotations.annotated_tasks(project_id)]
    else:
        results = [client.predictions.of_task(task.id)[0].result for task in tasks]
    boxes = [tags.decode(tag, result) for result in results]
    assert sorted(map(len, boxes)) == [0, 1, 1]
    assert {box for several in boxes for box in several} == {BOX}


@pytest.mark.label_studio
def test_a_class_without_a_label_is_refused_before_anything_is_uploaded(
    project: tuple[LabelStudioClient, int], data_yaml: Path
) -> None:
    client, project_id = project
    data_yaml.write_text(data_yaml.read_text().replace("cat", "bird"))
    with pytest.raises(DataError, match="no label for 1 classes of the data: bird") as caught:
        dataset_import.import_dataset(client, project_id, data_yaml, "annotations", "", lambda *_: None)
    assert '<Label value="bird"/>' in caught.value.fix
    assert list(client.tasks.all(project_id)) == []
    with pytest.raises(BackendError, match="no control tag 'other'"):
        dataset_import.import_dataset(client, project_id, data_yaml, "annotations", "other", lambda *_: None)


def test_every_layout_is_read_and_others_are_named(data_yaml: Path, tmp_path: Path) -> None:
    assert len(dataset_import.read(data_yaml, "detect").files) == 3
    assert len(dataset_import.read(data_yaml.parent, "detect").files) == 3
    export = tmp_path / "export"
    for folder in ("images", "labels"):
        (export / folder).mkdir(parents=True)
    (export / "classes.txt").write_text("cat\n")
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(export / "images" / f"{name}.png")
        (export / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.25\n")
    assert {box for file in dataset_import.read(export, "detect").files for box in file.boxes} == {BOX}
    for path, problem in ((tmp_path / "pictures", "no data set in this folder"), (tmp_path / "x", "no such file")):
        with pytest.raises(DataError, match=problem):
            dataset_import.read(path, "detect")
