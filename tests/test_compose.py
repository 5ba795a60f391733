"""docker-compose.yml and backend/Dockerfile, as far as they can be checked without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from backend.settings import Settings
from tests.support import ROOT, require_program

DOCKERFILE = (ROOT / "backend/Dockerfile").read_text(encoding="utf-8")


def compose_config(*more_files: str, **environ: str) -> dict[str, Any]:
    """Return docker-compose.yml as docker-compose resolves it with these variables, and no others of ours."""
    program = require_program("docker-compose")
    base = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    done = subprocess.run(
        [str(program), *(f"--file={ROOT / name}" for name in ("docker-compose.yml", *more_files)), "config"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=base | environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    return config


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = compose_config()["services"]
    return services


def test_has_the_four_services(services: dict[str, Any]) -> None:
    assert set(services) == {"label-studio", "redis", "backend", "worker"}
    assert services["label-studio"]["image"] == "heartexlabs/label-studio:1.23.2"
    assert services["backend"]["command"] == ["serve"]
    assert services["worker"]["command"] == ["worker"]


def test_every_image_has_a_fixed_tag(services: dict[str, Any]) -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", DOCKERFILE, re.MULTILINE)
    ours = {name for _, name in stages} | {"torch-${TORCH}"}
    bases = [image for image, _ in stages if image not in ours]
    assert bases == ["python:3.11-slim"]
    for image in [*(service["image"] for service in services.values()), *bases]:
        name, _, tag = image.partition(":")
        assert tag, f"{name} has no tag, which means latest"
        assert not tag.startswith("latest"), image


def test_label_studio_may_call_private_addresses(services: dict[str, Any]) -> None:
    environment = services["label-studio"]["environment"]
    assert environment["ML_BLOCK_LOCAL_IP"] == "false"
    assert environment["SSRF_PROTECTION_ENABLED"] == "false"


@pytest.mark.parametrize("name", ["backend", "worker"])
def test_server_and_worker_share_everything_but_the_command(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["environment"] == services["backend"]["environment"]
    assert service["volumes"] == ["models:/models:rw"]
    assert service["environment"]["MODEL_DIR"] == "/models"
    assert service["environment"]["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert service["environment"]["REDIS_URL"].startswith("redis://redis:6379")
    assert set(service["depends_on"]) == {"redis", "label-studio"}
    unknown = {variable for variable in service["environment"] if variable.lower() not in Settings.model_fields}
    assert not unknown, "no such settings"


def test_secrets_come_from_the_environment() -> None:
    environ = {"LABEL_STUDIO_API_KEY": "a-token", "BASIC_AUTH_USER": "me", "BASIC_AUTH_PASS": "word"}
    for name in ("backend", "worker"):
        assert environ.items() <= compose_config(**environ)["services"][name]["environment"].items()


def test_ports_are_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_image_is_locked_checked_and_not_root() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert "--no-deps --require-hashes -r requirements.lock" in installs
    assert all(install.startswith("--no-deps") for install in installs)
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["backend"]
    assert re.search(r"^HEALTHCHECK(.|\n)*?/health", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^ENV .*HOST=0\.0\.0\.0", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["yolo-backend"]' in DOCKERFILE


def test_dockerignore_lets_through_exactly_what_is_copied() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in rules
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert not any(fnmatch(secret, rule[1:]) for secret in (".env", ".git") for rule in rules if rule.startswith("!"))


def locked(name: str) -> set[str]:
    """Return the packages of a lock."""
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))


def test_image_has_no_package_of_developers_and_cuda_only_where_it_is_wanted() -> None:
    names = "requirements.lock", "requirements-gpu.lock", "requirements-dev.lock"
    runtime, gpu, development = (locked(name) for name in names)
    assert {"fastapi", "ultralytics"} <= runtime
    assert {"torch", "nvidia-cudnn-cu13"} <= gpu
    assert {"pytest", "mypy", "playwright", "label-studio-ml"} <= development
    assert len(runtime) + len(gpu) + len(development) == len(runtime | gpu | development)
    assert "requirements-dev.lock" not in DOCKERFILE
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    (cpu,) = (stage for stage in stages if "AS torch-cpu\n" in stage)
    assert "-r requirements-gpu.lock" not in cpu


def test_gpus_are_given_to_whoever_predicts_and_trains() -> None:
    with_gpus = compose_config("docker-compose.gpu.yml")["services"]
    for name, service in with_gpus.items():
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["driver"] for device in devices] == ["nvidia"] * (name in ("backend", "worker")), name
    args = compose_config(TORCH="cpu", TORCH_INDEX="http://index.example")["services"]["worker"]["build"]["args"]
    assert args == {"TORCH": "cpu", "TORCH_INDEX": "http://index.example"}
