"""Helpers that several test modules share: image servers, contexts, tiny models and versions."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import context as contexts
from backend.loop.context import Context
from backend.loop.cycle import Cycle
from backend.loop.served_models import ServedModel, models_for
from backend.model_versions import Metrics, ModelVersion, TagModel, TrainingSnapshot
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord, Store, version_name
from backend.types import YoloTask
from backend.web import listener
from backend.yolo.runtime import quiet_ultralytics
from backend.yolo.semantic_segmentation import BACKGROUND
from backend.yolo.tasks import RECIPES, weights_name
from tests import needs

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("cat", "dog")
IMGSZ = 64
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
)
TWO_TAGS = CONFIG.replace(
    "</View>",
    '<RectangleLabels name="second" toName="image"><Label value="cat"/></RectangleLabels></View>',
)


@dataclass(frozen=True)
class ImageSite:
    """A folder and the address of the web server that serves it."""

    folder: Path
    url: str

    def add(self, name: str, seed: int = 0, size: tuple[int, int] = (80, 60), **options: Any) -> str:
        """Save smooth random blobs, different for each seed, and return their URL."""
        small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(self.folder / name, **options)
        return f"{self.url}/{name}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve_images(folder: Path) -> Iterator[ImageSite]:
    """Make a folder and serve its files."""
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield ImageSite(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def require(condition: bool, message: str) -> None:
    """Skip the test unless `condition` holds; with REQUIRE_ALL=1 in the environment fail instead."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {message}")
    pytest.skip(message)


def require_program(name: str) -> Path:
    """Return the path of a program of Debian, see `needs.PACKAGES`; without it skip, or with REQUIRE_ALL=1 fail."""
    program = needs.find(name)
    if program is None:
        if needs.hidden():
            pytest.skip(needs.complaint(name))
        require(False, needs.complaint(name))
    assert program is not None
    return program


def sign_up(client: LabelStudioClient, email: str, password: str) -> None:
    """Make a user in the same Label Studio by its invite link, as a new colleague does."""
    page = client.http.get("/api/invite")["invite_url"]
    with httpx.Client(base_url=client.url, headers={"Referer": client.url}, timeout=60) as browser:
        browser.get(page).raise_for_status()
        form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post(page, data=form).status_code == 302


@contextmanager
def open_context(settings: Settings) -> Iterator[Context]:
    """Build a context and close its connections afterwards."""
    context = contexts.build(settings)
    try:
        yield context
    finally:
        context.close()


def cycle_of(context: Context) -> Cycle:
    """Return the loop's steps, to run them in this process in place of a worker."""
    return Cycle(context, Jobs(context.redis))


@contextmanager
def serve(context: Context) -> Iterator[httpx.Client]:
    """Serve a context by uvicorn on a free port; yield a client of it."""
    # With `proto` named: else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an acknowledgement.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        server = listener.server(context)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended while starting"
                time.sleep(0.005)
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def small_architecture(task: YoloTask = "detect") -> Path:
    """Return the file of a YOLO of a task with few layers: it trains and predicts in a third of yolo11n's time."""
    return ROOT / "tests" / "architectures" / f"{task}.yaml"


def tiny_yolo(
    path: Path,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    architecture: str = "",
    task: YoloTask = "detect",
    **options: Any,
) -> Path:
    """Save untrained weights that detect many objects, different ones in different images.

    `architecture` is one of ultralytics', for example yolo11n; without it the model is that of `small_architecture`.
    """
    model = _new_model(classes, seed, architecture, task, **options)
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average, so that batch norm learns its statistics in a few passes
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model.predict(torch.nn.functional.interpolate(torch.rand(8, 3, 6, 6), (IMGSZ, IMGSZ), mode="bicubic"))
        if task == "classify":
            model.model[-1].linear.weight.normal_(0, 0.2)
        elif task == "semantic":
            model.model[-1].classifier[-1].weight.normal_(0, 0.2)
        else:
            _detect_everywhere(model.model[-1])
    return _saved(model, path)


def untrained_yolo(path: Path, classes: Sequence[str]) -> Path:
    """Save untrained weights of the small architecture, which detect nothing and learn as a model from scratch does."""
    return _saved(_new_model(classes), path)


def _new_model(
    classes: Sequence[str], seed: int = 0, architecture: str = "", task: YoloTask = "detect", **options: Any
) -> Any:
    quiet_ultralytics()
    import torch
    from ultralytics.nn import tasks

    torch.manual_seed(seed)
    names = (*classes, BACKGROUND) if task == "semantic" else tuple(classes)
    layers = f"{Path(weights_name(f'{architecture}.pt', task)).stem}.yaml" if architecture else small_architecture(task)
    model = getattr(tasks, RECIPES[task].model)(str(layers), **{"nc": len(names), "verbose": False, **options})
    model.names = dict(enumerate(names))
    return model


def _saved(model: Any, path: Path) -> Path:
    import torch

    torch.save({"model": model, "train_args": {}}, path)
    return path


def _detect_everywhere(head: Any) -> None:
    """Change a head's weights so that it detects objects everywhere."""
    for branch in head.cv3:
        branch[-1].weight.normal_(0, 0.2)
        branch[-1].bias.fill_(-2.0)
    for branch in head.cv2:
        branch[-1].weight.normal_(0, 0.5)
    if hasattr(head, "kpt_shape"):
        for branch in head.cv4:
            branch[-1].weight.normal_(0, 0.1)
            branch[-1].bias.fill_(2.0)  # visible points, near the middle of their box


def publish(
    store: Store,
    project_id: int,
    weights: Path,
    *,
    promoted: bool = True,
    classes: tuple[str, ...] = CLASSES,
    train_tasks: tuple[int, ...] = (1,),
    others: Sequence[tuple[TagModel, Path]] = (),
    from_name: str = "label",
    task: YoloTask = "detect",
) -> ModelVersion:
    """Publish weights as the next version of a project; `others` are the models and weights of further tags."""
    number = store.reserve_number(project_id)
    metrics = Metrics(
        *(0.5, 0.3, dict.fromkeys(classes, 0.5)),
        images=12,
        boxes=20,
        detections=30,
        interval=(0.4, 0.6),
        held_out=True,
    )
    reason = "published: the first version" if promoted else "not published: worse"
    first = TagModel(
        *(from_name, task, classes, file_sha256(weights), "yolo11n.pt", metrics, None, {"epochs": 1}, reason)
    )
    current = store.current(project_id)
    version = ModelVersion(
        project_id=project_id,
        number=number,
        name=version_name("yolo11n.pt", number),
        parent=current.number if current else None,
        snapshot=TrainingSnapshot(project_id, "hash", {1: "2026-01-01T00:00:00Z"}, train_tasks, (1,)),
        software={"python": "3.11"},
        timings={"train": 1.0},
        created=datetime(2026, 1, 1, tzinfo=UTC),
        promoted=promoted,
        reason=reason,
        models=(first, *(model for model, _ in others)),
    )
    store.publish(version, {from_name: weights, **{model.from_name: path for model, path in others}})
    return version


def with_model(version: ModelVersion, *others: TagModel, **changes: Any) -> ModelVersion:
    """Return a version with changes to its first model; `others`, if given, replace its further models."""
    first, *further = version.models
    models = (replace(first, **changes), *(others or further))
    return replace(version, models=models)


def model_for(context: Context, record: ProjectRecord, *, accepted: bool) -> ServedModel:
    """Return the served model of the first control tag."""
    return models_for(context, record, accepted=accepted)[0]
