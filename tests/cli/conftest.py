"""The environment of commands, and a project with labels for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.loop.context import Context
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json, Task
from tests.support import CONFIG, ROOT, ImageSite, open_context, tiny_yolo

QUICK = {"train_steps": 1, "min_epochs": 2, "max_epochs": 2, "batch": 4, "tolerance": 1.0, "device": "cpu"}


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    """The environment of a backend with an empty store and a redis, without Label Studio."""
    return {
        **{name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields},
        "MODEL_DIR": settings.model_dir,
        "REDIS_URL": settings.redis_url,
        "COLUMNS": "160",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def studio_environ(environ: dict[str, str], label_studio: LabelStudioProcess) -> dict[str, str]:
    """The same with Label Studio."""
    return environ | {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": label_studio.api_key}


@dataclass(frozen=True)
class LabeledProject:
    """A project of boxes: its first tasks have a label, and trainings take seconds."""

    environ: dict[str, str]
    context: Context
    project: int
    tasks: tuple[Task, ...]
    labeled: int


def box(label: str, x: float = 20.0) -> Json:
    """Return a region of half an image's size."""
    value = {"x": x, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    return {"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}


@pytest.fixture
def labeled(
    studio_environ: dict[str, str], label_studio: LabelStudioProcess, settings: Settings, images: ImageSite
) -> Iterator[LabeledProject]:
    """A project with ten images, six of them labeled."""
    studio = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    quick = {name.upper(): str(value) for name, value in QUICK.items()}
    environ = studio_environ | quick | {"IMGSZ": str(settings.imgsz), "ALLOWED_HOSTS": settings.allowed_hosts}
    with open_context(settings.model_copy(update=studio | QUICK)) as context:
        folder = Path(settings.model_dir)
        folder.mkdir(exist_ok=True)
        tiny_yolo(folder / "yolo11n.pt")
        client = context.label_studio
        project = client.projects.create("labeled", CONFIG)
        urls = [images.add(f"{number}.png", number) for number in range(10)]
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": url} for url in urls])
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        tasks = tuple(client.tasks.unlabeled(project))
        for place, task in enumerate(tasks[:6]):
            client.annotations.create(task.id, [box(("cat", "dog")[place % 2])])
        yield LabeledProject(environ, context, project, tasks, 6)
