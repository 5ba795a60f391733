"""The reason phrase: the only part of an error that people see in Label Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
import requests

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import LabelStudioError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.types import Json
from backend.web.reason import as_reason
from tests.support import CONFIG, serve

BAD: Json = {"project": "7.1", "schema": CONFIG, "extra_params": '{"RETRAIN_EVRY": 5}'}
GOOD: Json = {"project": "7.1", "schema": CONFIG}


@pytest.fixture
def server(context: Context) -> Iterator[httpx.Client]:
    with serve(context) as client:
        yield client


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "Did you mean RETRAIN_EVERY"),
        ({"extra_params": '{"VAL_SHARE": 2}'}, "Allowed: number > 0, < 1; see VAL_SHARE in docs/settings.md. Reason: "),
        ({"extra_params": '{"STRATEGY": "hardest"}'}, "Use one of "),
        ({"schema": "<View/>", "extra_params": ""}, 'Add a RectangleLabels tag with name="label"'),
        ({"extra_params": "{\n\r\n\u4f60\u597d"}, 'Write an object like {"RETRAIN_EVERY": 20}. Reason: not JSON'),
        ({"extra_params": {"A\x00\x07\r\nB": 1}}, "See the settings of a project in docs/settings.md. Reason: unknown"),
    ],
)
def test_the_reason_phrase_says_what_to_do(server: httpx.Client, change: Json, reason: str) -> None:
    with requests.post(
        f"{server.base_url}/setup".replace("//setup", "/setup"), json=BAD | change, timeout=60
    ) as answer:
        assert answer.reason.startswith(reason)
        assert " Reason: " in answer.reason
        with pytest.raises(requests.HTTPError, match=re.escape(f"400 Client Error: {reason}")):
            answer.raise_for_status()  # Label Studio shows this text


def test_the_connection_lives_on_after_an_error(server: httpx.Client) -> None:
    answers = [server.post("/setup", json=body) for body in (BAD, GOOD, BAD, GOOD)]
    assert [answer.status_code for answer in answers] == [400, 200, 400, 200]
    assert len({answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}) == 1
    assert [answer.reason_phrase for answer in answers[1::2]] == ["OK", "OK"]


def test_other_errors_keep_the_usual_phrase(server: httpx.Client) -> None:
    answer = server.get("/nothing")
    assert (answer.status_code, answer.reason_phrase) == (404, "Not Found")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("plain", "plain"),
        ("two\r\nX-Injected: header", "two X-Injected: header"),
        ("tab\tnull\x00bell\x07", r"tab null\x00bell\x07"),
        ("\u00e4\u2192\u4f60 \ud800", r"a>\u4f60 \ud800"),
        ("whole number \u2265 1, \u2264 9", "whole number >= 1, <= 9"),
        ("add <Label value='a'/> </View> <!DOCTYPE>", "add (Label value='a'/> (/View> (!DOCTYPE>"),
        ("number > 0, < 1, <= 2", "number > 0, < 1, <= 2"),
        ("x" * 600, "x" * 497 + "..."),
    ],
)
def test_a_reason_is_one_line_of_printable_ascii(text: str, reason: str) -> None:
    assert as_reason(text) == reason


@pytest.mark.label_studio
def test_label_studio_shows_the_reason(label_studio: LabelStudioProcess, server: httpx.Client) -> None:
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("reasons", CONFIG)
        body = {"project": project, "url": str(server.base_url), "title": "ours"}
        with pytest.raises(LabelStudioError, match="unknown setting RETRAIN_EVRY"):
            client.http.send("POST", "/api/ml", body | {"extra_params": {"RETRAIN_EVRY": 5}})
        client.http.send("POST", "/api/ml", body | {"extra_params": {"RETRAIN_EVERY": 5}})
        (attached,) = client.projects.backends(project)
    assert attached.state == "Connected"
    assert not attached.error_message
    assert server.get(f"/api/projects/{project}").json()["retrain_every"] == 5
