from __future__ import annotations

import stat
from pathlib import Path

import httpx
import psutil
import pytest

from backend.cli import label_studio_process
from backend.cli.label_studio_process import (
    LabelStudioProcess,
    kept_token,
    label_studio_binary,
    personal_access_token,
    start_label_studio,
)
from backend.errors import BackendError
from backend.labelstudio.client.connection import LabelStudioClient
from tests.support import ROOT, sign_up

pytestmark = pytest.mark.processes


def test_a_missing_label_studio_says_where_it_was_expected(tmp_path: Path) -> None:
    missing = tmp_path / "label-studio"
    start = start_label_studio(missing, tmp_path, email="a@example.com", password="x")
    with pytest.raises(BackendError, match=r"no Label Studio \[.*label-studio\].*LABEL_STUDIO_BIN"), start:
        pass


def test_a_label_studio_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    binary = tmp_path / "label-studio"
    binary.write_text("#!/bin/sh\necho 'disk full'\nexit 3\n")
    binary.chmod(0o755)
    start = start_label_studio(binary, tmp_path / "data", email="a@example.com", password="x")
    with pytest.raises(BackendError, match="ended with status 3 while starting:\ndisk full"), start:
        pass


def test_a_label_studio_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio_process, "LABEL_STUDIO_START_S", 0.5)
    binary = tmp_path / "label-studio"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    start = start_label_studio(binary, tmp_path / "data", email="a@example.com", password="x")
    with pytest.raises(BackendError, match=r"not ready after \d s"), start:
        pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LABEL_STUDIO_BIN": "/opt/ls"}, Path("/opt/ls")),
        ({"LABEL_STUDIO_BIN": ""}, ROOT / ".venv-ls/bin/label-studio"),
        ({}, ROOT / ".venv-ls/bin/label-studio"),
    ],
)
def test_where_label_studio_is_expected(environ: dict[str, str], expected: Path) -> None:
    assert label_studio_binary(environ) == expected


@pytest.mark.label_studio
def test_label_studio_is_up_on_the_loopback_with_a_working_token(label_studio: LabelStudioProcess) -> None:
    connections = psutil.Process(label_studio.pid).net_connections()
    assert {c.laddr.ip for c in connections if c.status == "LISTEN"} == {"127.0.0.1"}
    answer = httpx.post(f"{label_studio.url}/api/token/refresh/", json={"refresh": label_studio.api_key}, timeout=60)
    assert answer.json()["access"]
    assert label_studio.api_key not in repr(label_studio)
    assert "a-test-password" not in " ".join(psutil.Process(label_studio.pid).cmdline())


@pytest.mark.label_studio
def test_a_wrong_password_is_said(label_studio: LabelStudioProcess) -> None:
    with pytest.raises(BackendError, match=r"refuses the password of admin@example\.com"):
        personal_access_token(label_studio.url, label_studio.email, "wrong")


@pytest.mark.label_studio
def test_the_token_is_kept_between_starts_and_made_anew_when_it_was_revoked(
    label_studio: LabelStudioProcess, tmp_path: Path
) -> None:
    login = {"email": "second@example.com", "password": "a-second-password"}
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        sign_up(client, **login)
    path = tmp_path / "api-key"
    first = kept_token(path, label_studio.url, **login)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_token(path, label_studio.url, **login) == first
    second = personal_access_token(label_studio.url, **login)  # revokes the first
    assert second != first
    assert kept_token(path, label_studio.url, **login) not in (first, second)
