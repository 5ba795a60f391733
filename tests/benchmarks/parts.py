"""The real parts of the benchmarks: images, trained weights, and a backend server beside an image server."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from backend.cli.redis_process import start_redis
from backend.datasets import synthetic
from backend.model_versions import ModelVersion, TagModel, TrainingSnapshot
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord, Store, version_name
from backend.subprocesses import free_port
from backend.types import HyperParameters, Json
from backend.yolo import base_weights, training
from backend.yolo.detector import KEEP_CONFIDENCE

PROJECT = 1
TOKEN = "0" * 40  # as long as a legacy token of Label Studio, which is sent as it is
LABELS = "".join(f'<Label value="{name}"/>' for name in synthetic.CLASSES)
CONFIG = (
    f'<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{LABELS}'
    "</RectangleLabels></View>"
)
START_S = 240.0  # on a busy machine


@dataclass(frozen=True, slots=True)
class Served:
    """A running server with one published version."""

    url: str
    pid: int
    store: Store


def images(folder: Path, count: int, size: int) -> tuple[Path, ...]:
    """Return `count` JPEG scenes of size x size pixels."""
    synthetic.generate(folder, pool=count, test=1, seed=1, size=size)
    return tuple(sorted((folder / "images" / "pool").glob("*.jpg")))


def weights(folder: Path) -> Path:
    """Return yolo11n weights that find about ten boxes per image, as photos have; made once per folder."""
    made = folder / "weights.pt"
    if not made.is_file():
        data_yaml = synthetic.generate(folder / "data", pool=64, test=1, seed=0)
        hyper = HyperParameters(epochs=40, batch=8, imgsz=160, seed=0, device="cpu")
        base = base_weights.BaseWeights("yolo11n.yaml", pretrained=False, note="")
        training.train(data_yaml, base, hyper, folder, lambda _: None)
    return made


@contextmanager
def served(folder: Path, files: Path, trained: Path, imgsz: int, *, early: bool = True) -> Iterator[Served]:
    """Run `yolo-backend serve` with `trained` as project 1's version; images lie under the origin's /data/upload/.

    Unless it is published `early`, before the start, the caller does that.
    """
    with ExitStack() as stack:
        studio = stack.enter_context(origin(files))
        redis = stack.enter_context(start_redis(folder / "redis"))
        settings = Settings(
            label_studio_url=studio, label_studio_api_key=TOKEN, model_dir=str(folder / "models"), imgsz=imgsz
        )
        store = Store(settings.model_dir)
        if early:
            publish(store, trained)
        port = free_port()
        environ = {
            "LABEL_STUDIO_URL": studio,
            "LABEL_STUDIO_API_KEY": TOKEN,
            "MODEL_DIR": settings.model_dir,
            "REDIS_URL": redis.url,
            "PORT": str(port),
            "IMGSZ": str(imgsz),
            "DEVICE": "cpu",
            "LOG_LEVEL": "WARNING",
            "MODEL_SCORE_THRESHOLD": str(KEEP_CONFIDENCE),  # every box the rival returns becomes a region
        }
        server = stack.enter_context(_serve(os.environ | environ))
        url = f"http://127.0.0.1:{port}"
        _await(url, server)
        yield Served(url, server.pid, store)


def publish(store: Store, trained: Path) -> None:
    """Make `trained` the version that serves project 1."""
    sha256 = file_sha256(trained)
    model = TagModel("label", "detect", synthetic.CLASSES, sha256, "yolo11n.pt", None, None, {}, "for the benchmark")
    version = ModelVersion(
        project_id=PROJECT,
        number=1,
        name=version_name("yolo11n.pt", 1),
        parent=None,
        snapshot=TrainingSnapshot(PROJECT, "", {}, (), ()),
        software={},
        timings={},
        created=datetime.now(UTC),
        promoted=True,
        reason="for the benchmark",
        models=(model,),
    )
    store.save_project(ProjectRecord(PROJECT, CONFIG, "", "", "", ""))
    store.publish(version, {"label": trained})
    store.activate(PROJECT, 1)


def tasks(files: tuple[Path, ...], first_id: int = 1) -> list[Json]:
    """Return a task per image as Label Studio sends it."""
    return [
        {"id": first_id + place, "data": {"image": f"/data/upload/1/{path.name}"}} for place, path in enumerate(files)
    ]


def predict(client: httpx.Client, body: bytes) -> list[Json]:
    """POST /predict and return its results."""
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"}, timeout=600)
    results: list[Json] = answer.raise_for_status().json()["results"]
    return results


def body(sent: list[Json]) -> bytes:
    """Return the body of a /predict request as Label Studio sends it."""
    return json.dumps({"tasks": sent, "label_config": CONFIG, "project": f"{PROJECT}.1700000000"}).encode()


class _Files(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return str(Path(self.directory) / Path(path).name)

    def do_GET(self) -> None:
        if not self.path.startswith("/api/"):
            return super().do_GET()
        answer = b'{"email": "bench@example.com"}'  # of whoami, which the server asks at its start
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def origin(files: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(files))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def _serve(environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen([sys.executable, "-m", "backend.cli", "serve"], env=environ)
    try:
        yield server
    finally:
        server.terminate()
        server.wait(30)


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not come up at {url}: exit status {server.poll()}")
