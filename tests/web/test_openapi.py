"""GET /openapi.json, which generators of clients read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from backend import __version__
from backend.loop.context import Context
from backend.settings import Settings
from tests.support import open_context, serve


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    with serve(context) as client:
        yield client


def test_describes_each_route_and_its_body(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    assert description["info"]["version"] == __version__
    served = {(path, method) for path, methods in description["paths"].items() for method in methods}
    assert {("/predict", "post"), ("/setup", "post"), ("/webhook", "post"), ("/health", "get")} <= served
    for path, method in served:
        operation = description["paths"][path][method]
        assert ("requestBody" in operation) == (method == "post"), path
    predict = description["components"]["schemas"]["PredictRequest"]
    assert set(predict["required"]) == {"tasks", "label_config"}


def test_each_reference_has_a_schema(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description)))
    assert {"PredictTask", "PredictResponse", "ProjectOut"} <= references
    assert references <= set(description["components"]["schemas"])


def test_needs_the_password_of_all_else(settings: Settings) -> None:
    locked = settings.model_copy(update={"basic_auth_user": "lead", "basic_auth_pass": "word"})
    with open_context(locked) as context, serve(context) as client:
        assert client.get("/openapi.json").status_code == 401
        assert client.get("/openapi.json", auth=("lead", "word")).status_code == 200
