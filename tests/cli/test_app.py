"""The command line as a shell sees it: exit status, messages, and no traceback."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from backend import __version__, acquisition
from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio import label_config
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop import project_status
from backend.loop.context import Context
from backend.queue.rq_queue import Jobs
from backend.queue.run_state import LabelCounts
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.subprocesses import free_port
from backend.types import Prediction, Tracks
from backend.web.status_schemas import project_out
from tests.cli.commands import cli, in_terminal
from tests.support import CONFIG, publish, serve

COMMANDS = (
    *("demo", "run", "serve", "worker", "connect", "train", "score", "status", "versions", "rollback"),
    *("label-errors", "frames", "disconnect", "doctor", "export", "import-weights", "simulate", "strategies"),
)


def set_up(context: Context, project: int = 7) -> None:
    context.store.save_project(ProjectRecord(project, CONFIG, "", "http://studio.example", "http://b.example", ""))


def test_help_names_every_command_and_pays_for_nothing_heavy(environ: dict[str, str]) -> None:
    done = cli(environ, "--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    code = (
        "import sys, backend.cli.app;"
        "heavy = 'torch ultralytics label_studio_sdk fastapi cv2 rq numpy httpx redis pydantic'.split();"
        "heavy = set(heavy) & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["status", "versions", "score", "label-errors", "frames"])
def test_an_unknown_project_gets_the_same_cure_everywhere(environ: dict[str, str], command: str) -> None:
    done = cli(environ, command, "99", *(["1"] if command == "frames" else []))
    assert done.returncode == 1
    assert done.stderr == (
        "error: project 99 was never set up. Fix: in Label Studio, Settings > Model, connect this backend; "
        "or run `yolo-backend connect 99`\n"
    )


def test_rollback(environ: dict[str, str], context: Context, tiny_weights: Path) -> None:
    done = cli(environ, "rollback", "99", "1")
    assert done.returncode == 1
    assert "project 99 was never set up" in done.stderr
    set_up(context)
    for promoted in (True, False, True):
        publish(context.store, 7, tiny_weights, promoted=promoted)
    done = cli(environ, "rollback", "7", "2")
    assert done.returncode == 1
    assert "yolo11n-v2 was never promoted" in done.stderr
    done = cli(environ, "rollback", "7", "1")
    assert (done.returncode, "accepted yolo11n-v1 again" in done.stdout) == (0, True)
    current = context.store.current(7)
    assert current is not None
    assert current.number == 1
    assert Jobs(context.redis).depth() == 1
    listed = cli(environ, "versions", "7").stdout
    assert [name in listed for name in ("yolo11n-v1", "yolo11n-v2", "yolo11n-v3", "0.500")] == [True] * 4


def test_the_version_of_the_package(environ: dict[str, str]) -> None:
    done = cli(environ, "--version")
    assert (done.returncode, done.stdout) == (0, f"yolo-backend {__version__}\n")


def test_the_serving_version_is_marked_and_reasons_have_lines_of_their_own(
    environ: dict[str, str], context: Context, tiny_weights: Path
) -> None:
    set_up(context)
    numbers = [publish(context.store, 7, tiny_weights).number for _ in range(2)]
    context.store.activate(7, numbers[0])
    listed = json.loads(cli(environ, "versions", "7", "--json").stdout)
    assert [(version["version"], version["serves"]) for version in listed] == [
        ("yolo11n-v1", True),
        ("yolo11n-v2", False),
    ]
    lines = cli(environ | {"COLUMNS": "80"}, "versions", "7").stdout.splitlines()
    assert [line for line in lines if line.startswith("yolo11n-v1: ")]
    assert max(map(len, lines)) <= 80


def test_what_json_says_is_what_the_api_says(environ: dict[str, str], context: Context, tiny_weights: Path) -> None:
    set_up(context)
    publish(context.store, 7, tiny_weights)
    status = json.loads(cli(environ, "status", "7", "--json").stdout)
    expected = project_out(project_status.status(context, 7))
    assert status == json.loads(expected.model_dump_json())
    listed = {strategy["name"] for strategy in json.loads(cli(environ, "strategies", "--json").stdout)}
    assert listed == set(acquisition.names())


@pytest.mark.label_studio
def test_the_frames_of_a_video_to_label_first(
    environ: dict[str, str], context: Context, tiny_weights: Path, label_studio: LabelStudioProcess
) -> None:
    environ = environ | {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": label_studio.api_key}
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("frames", CONFIG)
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": "http://127.0.0.1/a.mp4"}] * 2)
        watched, failed = sorted(task.id for task in client.tasks.unlabeled(project))
    set_up(context, project)
    context.store.activate(project, publish(context.store, project, tiny_weights).number)
    predicted = Prediction(
        width=160,
        height=120,
        boxes=np.zeros((1, 4), np.float32),
        class_probs=np.full((1, 2), 0.5, np.float32),
        confidence=np.full(1, 0.5, np.float32),
        embedding=np.zeros(2, np.float32),
        tracks=Tracks(np.array([1]), np.array([0]), np.array([False]), 60, 25.0),
        doubted_frames=np.array([26, 1]),
    )
    context.store.pools.save_shard(
        project, 1, PoolShard(0, np.array([watched, failed]), (predicted, None)), tag="label"
    )
    done = cli(environ, "frames", str(project), str(watched))
    assert (done.returncode, done.stdout) == (0, "26, 1\n"), done.stderr
    assert json.loads(cli(environ, "frames", str(project), str(watched), "--json").stdout) == [26, 1]
    done = cli(environ, "frames", str(project), str(failed))
    assert done.returncode == 1
    assert f"the tasks of project {project} are not videos" in done.stderr  # scoring them would change nothing


def test_status(environ: dict[str, str], context: Context, tiny_weights: Path) -> None:
    set_up(context)
    publish(context.store, 7, tiny_weights)
    context.progress.set_counts(7, LabelCounts(100, 30, 4))
    context.progress.note_failures(7, [5], {5: "answered 404"})
    done = cli(environ, "status", "7")
    assert done.returncode == 0
    facts = ("yolo11n-v0", "yolo11n-v1", "30 of 100 tasks", "4 of 20", "information_density_unique", "task 5")
    for text in (*facts, "answered 404"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RETRAIN_EVERY": "soon"}, "RETRAIN_EVERY='soon'"),
        ({"PORT": "99999"}, "PORT='99999'"),
        ({"STRATEGY": "hardest"}, "unknown strategy 'hardest'"),
        ({"REDIS_URL": ""}, "no `yolo-backend run` is at work here"),
        ({"REDIS_URL": "redis://:secret@127.0.0.1:1"}, "redis does not answer"),
        ({"REDIS_URL": "nonsense"}, "redis does not answer"),
    ],
)
def test_settings_that_cannot_work(environ: dict[str, str], change: dict[str, str], message: str) -> None:
    done = cli(environ | change, "status", "7")
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "run"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"LABEL_STUDIO_URL": ""}, "set LABEL_STUDIO_URL"),
        ({"LABEL_STUDIO_API_KEY": ""}, "set LABEL_STUDIO_API_KEY"),
        ({"LABEL_STUDIO_API_KEY": "nonsense"}, "set LABEL_STUDIO_API_KEY"),
    ],
)
@pytest.mark.label_studio
def test_a_missing_or_wrong_token_ends_the_start(
    environ: dict[str, str],
    label_studio: LabelStudioProcess,
    command: str,
    change: dict[str, str],
    message: str,
) -> None:
    right = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": label_studio.api_key}
    done = cli(environ | right | change, command, "--port", "0")
    assert done.returncode == 1
    assert message in done.stderr
    assert label_studio.api_key not in done.stderr


def test_the_server_starts_without_label_studio_and_says_so(environ: dict[str, str]) -> None:
    port, studio = free_port(), f"http://127.0.0.1:{free_port()}"
    change = {"LABEL_STUDIO_URL": studio, "LABEL_STUDIO_API_KEY": "legacy"}
    command = [sys.executable, "-m", "backend.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environ | change, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert awaited(f"http://127.0.0.1:{port}/health", child)
        finally:
            child.send_signal(signal.SIGTERM)
            _, log = child.communicate(timeout=60)
    assert f"{studio}" in log
    assert "starts anyway" in log
    assert "Traceback" not in log


def awaited(url: str, child: subprocess.Popen[str], limit_s: float = 60) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and child.poll() is None:
        try:
            return httpx.get(url).is_success
        except httpx.TransportError:
            threading.Event().wait(0.05)
    return False


def test_an_unknown_queue(environ: dict[str, str]) -> None:
    done = cli(environ, "worker", "--queues", "control,tran")
    assert done.returncode == 2
    assert "unknown queue tran" in done.stderr
    assert "train" in done.stderr


def test_ctrl_c_ends_a_command_with_status_130(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
        studio = {"LABEL_STUDIO_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "LABEL_STUDIO_API_KEY": "legacy"}
        screen = in_terminal(
            environ | studio, "connect", "7", until=lambda drawn: "setting up the project" in drawn, keys=b"\x03"
        )
    assert screen.status == 130
    assert "Traceback" not in screen.raw


def test_a_shell_completes_commands_and_options(environ: dict[str, str]) -> None:
    program = Path(sys.executable).with_name("yolo-backend")
    for typed, completion in (("yolo-backend doc", "doctor"), ("yolo-backend export --ver", "--version")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_YOLO_BACKEND_COMPLETE": "complete_bash"}
        done = subprocess.run([program], env=environ | words, capture_output=True, text=True, check=False)
        assert completion in done.stdout.split(), done.stderr


@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("status",), ("status", "seven"), ("rollback", "7")])
def test_wrong_use(environ: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = cli(environ, *arguments)
    assert done.returncode == 2
    assert "Usage" in done.stderr + done.stdout


@pytest.mark.label_studio
def test_connect_attaches_configures_and_says_what_it_did(
    studio_environ: dict[str, str], label_studio: LabelStudioProcess, context: Context
) -> None:
    with (
        LabelStudioClient(label_studio.url, label_studio.api_key) as client,
        serve(context) as server,
    ):
        project = client.projects.create("connect", CONFIG)
        url = str(server.base_url).rstrip("/")
        done = cli(studio_environ, "connect", str(project), "--url", url)
        assert done.returncode == 0, done.stderr
        assert f"attached {url} to project {project}" in done.stdout
        assert "Uncertainty sampling" in done.stdout
        assert "Learning queue" in done.stdout
        again = cli(studio_environ, "connect", str(project), "--url", url)
        assert again.returncode == 0
        assert "already" in again.stdout
        assert len(client.projects.backends(project)) == 1
        record = context.store.project(project)
        assert record is not None
        assert label_config.parse(record.label_config)[0].labels == ("cat", "dog")


@pytest.mark.label_studio
def test_connect_to_what_is_not_there(studio_environ: dict[str, str], label_studio: LabelStudioProcess) -> None:
    done = cli(studio_environ, "connect", str(10**6))
    assert done.returncode == 1
    assert "error: " in done.stderr
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("nobody there", CONFIG)
    done = cli(studio_environ, "connect", str(project), "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "error: " in done.stderr


@pytest.mark.label_studio
def test_train_without_labels_says_why(
    studio_environ: dict[str, str], label_studio: LabelStudioProcess, context: Context
) -> None:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("no labels", CONFIG)
    set_up(context, project)
    done = cli(studio_environ, "train", str(project))
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert context.progress.training(project).state == "failed"
