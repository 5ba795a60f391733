"""The answer of /predict to a smart tool, in the form in which Label Studio 1.23.2 asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.loop.context import Context
from backend.types import Json
from tests.support import CONFIG, ImageSite, publish, serve

pytestmark = [pytest.mark.torch, pytest.mark.redis]

SETUP = {"project": "7.1700000000", "schema": CONFIG, "hostname": "http://studio.example", "extra_params": None}
# What the editor sent for a rough rectangle.
DRAWN: Json = {
    "original_width": 80,
    "original_height": 60,
    "image_rotation": 0,
    "value": {"x": 5.0, "y": 5.0, "width": 90.0, "height": 90.0, "rotation": 0, "rectanglelabels": ["dog"]},
    "id": "H4t3NxINc_",
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "origin": "manual",
}


@pytest.fixture
def client(context: Context, tiny_weights: Path) -> Iterator[httpx.Client]:
    with serve(context) as client:
        client.post("/setup", json=SETUP).raise_for_status()
        context.store.activate(7, publish(context.store, 7, tiny_weights).number)
        yield client


def ask(client: httpx.Client, url: str, context: Any) -> Json:
    """Return the only result of a request as Label Studio sends it."""
    task = {"id": 1, "data": {"image": url}, "annotations": [], "predictions": [], "drafts": [], "overlap": 1}
    params = {"login": None, "password": None, "context": context}
    body = {"tasks": [task], "project": "7.1700000000", "label_config": CONFIG, "params": params}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    return dict(result)


def test_one_object_of_the_chosen_label_in_place_of_the_rectangle(client: httpx.Client, images: ImageSite) -> None:
    url = images.add("a.png")
    whole_image = ask(client, url, None)
    assert len(whole_image["result"]) > 1
    assert "reason" not in whole_image
    answer = ask(client, url, {"result": [DRAWN]})
    (region,) = answer["result"]
    assert region["id"] == DRAWN["id"]
    assert region["value"]["rectanglelabels"] == ["dog"]
    assert answer["score"] == region["score"]
    assert (answer["model_version"], answer["reason"]) == ("yolo11n-v1", "")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"result": []}, "sent nothing"),
        ({"result": None}, "sent nothing"),
        ({"result": "x"}, "sent nothing"),
        ({"result": [[]]}, "sent nothing"),
        ({"result": [DRAWN | {"value": None}]}, "sent nothing"),
        ({"result": [DRAWN | {"type": None}]}, "sent None"),
        ({"result": [DRAWN | {"type": ["rectanglelabels"]}]}, "sent ['rectanglelabels']"),
        ({"result": [DRAWN | {"from_name": {}, "to_name": [], "id": None}]}, "no control tag"),
        ({"result": [DRAWN | {"value": DRAWN["value"] | {"rectanglelabels": ["cow"]}}]}, "choose one of cat, dog"),
        ({"result": [DRAWN | {"value": DRAWN["value"] | {"x": 200}}]}, "no area inside the image"),
        ({"result": [DRAWN | {"value": DRAWN["value"] | {"x": 1e308, "width": -1e308}}]}, "no area inside the image"),
    ],
)
def test_a_bad_context_gets_an_empty_result_with_the_reason(
    client: httpx.Client, images: ImageSite, sent: Json, reason: str
) -> None:
    answer = ask(client, images.add("a.png"), sent)
    assert answer["result"] == []
    assert reason in answer["reason"]
    assert answer["score"] == 0


@pytest.mark.parametrize("sent", [None, {}, "x", [1], {"project_credentials_login": "me"}])
def test_a_context_without_regions_is_no_smart_tool(client: httpx.Client, images: ImageSite, sent: object) -> None:
    assert len(ask(client, images.add("a.png"), sent)["result"]) > 1
