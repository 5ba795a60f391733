"""A round of the demo, with a real Label Studio and a training that this test plays."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from backend.cli.demo_display import Display
from backend.cli.demo_loop import Loop, config_of
from backend.cli.embedded import Backend
from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import reader, synthetic
from backend.loop.context import Context
from backend.queue.run_state import TrainingProgress
from backend.settings import Settings
from backend.store.pointers import Pointers
from backend.store.store import ProjectRecord
from tests.queue_studio import Studio
from tests.support import ImageSite, cycle_of, open_context, publish, serve, tiny_yolo
from tests.world import await_true

LABELS = 2


def test_a_round_waits_until_the_new_version_is_accepted(
    label_studio: LabelStudioProcess,
    settings: Settings,
    images: ImageSite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store has the version a moment before it is accepted."""
    data = reader.read(synthetic.generate(tmp_path / "scenes", pool=8, test=2, seed=1, size=96))
    weights = tiny_yolo(tmp_path / "tiny.pt", data.classes)
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with (
        open_context(settings.model_copy(update={**keys, "retrain_every": LABELS})) as context,
        serve(context) as server,
    ):
        project = context.label_studio.projects.create("demo", config_of(data.classes))
        context.label_studio.tasks.upload_images(project, [file.path for file in data.train])
        context.store.save_project(ProjectRecord(project, config_of(data.classes), "", "", "", ""))
        studio = Studio(context, project, images)
        publish(context.store, project, weights, classes=data.classes)
        bring_into_the_queue(studio)

        display, backend = Display(Console(file=io.StringIO())), Backend(str(server.base_url), ())
        loop = Loop(display, context.label_studio, context.settings, backend, data, project)
        accept = Pointers.point_on

        def accept_late(*arguments: object) -> None:
            time.sleep(2)
            accept(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Pointers, "point_on", accept_late)
        training = threading.Thread(target=train, args=(studio, weights, data.classes))
        training.start()
        played = loop.round()
        training.join()
    assert played is not None
    assert (played.version, played.labels) == ("yolo11n-v2", LABELS)


def bring_into_the_queue(studio: Studio) -> None:
    cycle_of(studio.context).start_scoring(studio.project)
    studio.work()


def train(studio: Studio, weights: Path, classes: tuple[str, ...]) -> None:
    """Publish a version as a training does, and bring its predictions into Label Studio."""
    context, project = studio.context, studio.project
    await_true(lambda: labeled(context, project) == LABELS, "the labels of the round", patience_s=120)
    with context.lock(project, "training"):
        context.progress.set_training(project, TrainingProgress("running", "publish"))
        publish(context.store, project, weights, classes=classes)
        context.progress.set_training(project, TrainingProgress("idle"))
    bring_into_the_queue(studio)


def labeled(context: Context, project: int) -> int:
    return context.label_studio.projects.labeled_count(project)
