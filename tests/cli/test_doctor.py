"""`yolo-backend doctor` against a real Label Studio, redis and server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess, label_studio_binary, start_label_studio
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.queue import presence
from backend.queue.rq_queue import QUEUES
from backend.store.store import ProjectRecord
from backend.subprocesses import free_port
from tests.cli.commands import cli
from tests.prompted import tiny_open
from tests.studio_database import LOGIN, fresh_label_studio
from tests.support import CONFIG, require, serve, tiny_yolo

pytestmark = pytest.mark.torch


@contextmanager
def workers_alive(context: Context) -> Iterator[None]:
    """Write the signs of life of workers while the block runs, every few seconds as they do."""
    stop = threading.Event()

    def note() -> None:
        """Write them until the block ends."""
        while not stop.is_set():
            presence.note_workers(context.redis, QUEUES)
            stop.wait(2)

    thread = threading.Thread(target=note)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def by_subject(output: str) -> dict[str, dict[str, object]]:
    return {finding["subject"]: finding for finding in json.loads(output)}


@pytest.mark.label_studio
def test_a_whole_installation_is_fine(
    studio_environ: dict[str, str], label_studio: LabelStudioProcess, context: Context
) -> None:
    tiny_yolo(model_dir(context) / "yolo11n.pt")
    with serve(context) as server, workers_alive(context):
        environ = studio_environ | {"BACKEND_URL": str(server.base_url).rstrip("/")}
        done = cli(environ, "doctor", "--json")
        checks = by_subject(done.stdout)
        assert [name for name, check in checks.items() if not check["ok"]] == [], done.stdout
        assert set(checks) >= {"redis", "workers", "disk", "device", "store", "weights", "token", "clock", "rights"}
        assert "an event came" in str(checks["webhook"]["detail"])
        assert done.returncode == 0
        text = cli(environ | {"COLUMNS": "80"}, "doctor")
        assert text.returncode == 0
        assert max(map(len, text.stdout.splitlines())) <= 80
        assert "FIX" not in text.stdout
    assert label_studio.api_key not in done.stdout + done.stderr
    titles = {project["title"] for project in projects(context, studio_environ)}
    assert "yolo-backend doctor" not in titles


@pytest.mark.label_studio
def test_what_does_not_work_has_a_cure(studio_environ: dict[str, str], context: Context) -> None:
    context.store.save_project(ProjectRecord(10**6, CONFIG, "", "", "http://b.example", ""))
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = cli(studio_environ | {"BACKEND_URL": nowhere, "BASE_MODEL": "mine.pt", "DEVICE": "7"}, "doctor", "--json")
    assert done.returncode == 1
    checks = by_subject(done.stdout)
    wrong = {name for name, check in checks.items() if not check["ok"]}
    assert wrong == {"workers", "device", "weights", "webhook", "project 1000000"}
    assert all(checks[name]["fix"] for name in wrong)
    assert "no event came" in str(checks["webhook"]["detail"])
    assert "start the backend" in str(checks["webhook"]["fix"])


def test_without_label_studio_and_redis_the_other_checks_go_on(environ: dict[str, str], context: Context) -> None:
    tiny_yolo(model_dir(context) / "yolo11n.pt")
    studio = f"http://127.0.0.1:{free_port()}"
    change = {"REDIS_URL": "redis://127.0.0.1:1", "LABEL_STUDIO_URL": studio, "LABEL_STUDIO_API_KEY": "legacy"}
    done = cli(environ | change, "doctor", "--json")
    assert done.returncode == 1
    checks = by_subject(done.stdout)
    assert {name for name, check in checks.items() if not check["ok"]} == {"redis", "token"}
    assert checks["disk"]["ok"]
    assert checks["device"]["ok"]


def test_a_damaged_file_of_weights_is_named(environ: dict[str, str], context: Context) -> None:
    (model_dir(context) / "yolo11n.pt").write_bytes(b"not a model")
    checks = by_subject(cli(environ, "doctor", "--json").stdout)
    assert "cannot read the weights" in str(checks["weights"]["detail"])


def test_the_text_encoder_of_prompts_is_looked_for(environ: dict[str, str], context: Context) -> None:
    tiny_open(model_dir(context) / "yolov8n-worldv2.pt")
    checks = by_subject(cli(environ | {"BASE_MODEL": "yolov8n-worldv2.pt"}, "doctor", "--json").stdout)
    assert checks["weights"]["ok"]
    assert checks["text encoder"]["detail"] == "prompts need the Python package clip, which is not installed"
    assert "put ViT-B-32.pt (OpenAI's CLIP downloads it for ViT-B/32) into MODEL_DIR" in str(
        checks["text encoder"]["fix"]
    )


def model_dir(context: Context) -> Path:
    folder = Path(context.settings.model_dir)
    folder.mkdir(exist_ok=True)
    return folder


def projects(context: Context, environ: dict[str, str]) -> list[dict[str, str]]:
    with LabelStudioClient(environ["LABEL_STUDIO_URL"], environ["LABEL_STUDIO_API_KEY"]) as client:
        return list(client.http.get("/api/projects/", page_size=1000)["results"])


@pytest.mark.label_studio
def test_a_label_studio_that_refuses_private_addresses_is_told_what_to_change(
    environ: dict[str, str], tmp_path: Path
) -> None:
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}")
    shutil.copytree(fresh_label_studio(binary), tmp_path / "studio")
    protection = {"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true"}
    with start_label_studio(binary, tmp_path / "studio", **LOGIN, environ=protection) as studio:
        keys = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.api_key}
        done = cli(environ | keys, "doctor", "--json")
    assert done.returncode == 1
    checks = by_subject(done.stdout)
    for name in ("model address", "webhook"):
        assert not checks[name]["ok"], done.stdout
        assert "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false" in str(checks[name]["fix"])
