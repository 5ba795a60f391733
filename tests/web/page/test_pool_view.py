"""The view of the pool: the bytes of its map, and its forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from backend.loop.context import Context
from backend.loop.insight.pool import map_stamp
from backend.store.store import ProjectRecord
from backend.web.page import forms
from backend.web.page.views import pool
from tests.pool_maps import pool_map
from tests.support import CONFIG, TWO_TAGS, serve


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    with serve(context) as client:
        yield client


def test_points_are_columns_that_a_browser_reads_without_a_copy() -> None:
    ids, places = np.array([3, 2**40]), np.array([[0.5, -1], [2, 4]], dtype=np.float32)
    shares = np.array([0.5, np.nan])
    packed = pool.packed(ids, places, np.array([1, -1]), np.array([0, 4], np.uint8), shares)
    assert np.frombuffer(packed, "<u4", 2).tolist() == [2, 2]
    assert np.frombuffer(packed, "<f8", 2, 8).tolist() == [3, 2**40]
    assert np.frombuffer(packed, "<f4", 2, 24).tolist() == [0.5, 2]
    assert np.frombuffer(packed, "<f4", 2, 32).tolist() == [-1, 4]
    assert np.frombuffer(packed, "<i2", 2, 40).tolist() == [1, -1]
    assert list(packed[44:]) == [0, 4, 127, 255]


def test_without_a_map_there_are_no_points(client: httpx.Client) -> None:
    for kind in ("points", "boxes"):
        answer = client.get(f"/projects/7/pool/{kind}")
        assert (answer.status_code, answer.content) == (200, bytes(8))
        assert answer.headers["content-type"] == "application/octet-stream"
    assert client.get("/projects/7/pool/nothing").status_code == 404
    assert client.get("/projects/8/pool/points").status_code == 404
    assert client.get("/projects/7/pool/points?tag=nothing").status_code == 404


@pytest.mark.parametrize("tasks", ["", ",", "1,two", "-4", "1;2", "9" * 30])
@pytest.mark.parametrize("action", ["tab", "pin"])
def test_a_form_without_usable_tasks_is_refused(
    client: httpx.Client, context: Context, action: str, tasks: str
) -> None:
    data = {"token": forms.token(context.store.secret()), "tasks": tasks}
    answer = client.post(f"/projects/7/pool/{action}", data=data)
    assert (answer.status_code, answer.json()["error"]) == (400, "no task is selected")


def test_each_map_has_a_stamp_of_its_own(client: httpx.Client, context: Context) -> None:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    assert map_stamp(context, 7) == ""
    stamps = set()
    for tag, images in (("label", 8), ("second", 8), ("label", 9)):
        context.store.maps.save(7, 0, pool_map(range(1, images), ("cat",)), tag=tag)
        stamps.add(map_stamp(context, 7, tag))
        page = client.get(f"/projects/7/pool?tag={tag}", headers={"accept": "text/html"}).text
        assert f"shown={quote(map_stamp(context, 7, tag), safe='/')}" in page
    assert len(stamps) == 3


def test_the_pictures_are_those_of_the_chosen_tag(client: httpx.Client, context: Context) -> None:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    context.store.maps.save(7, 0, pool_map(range(1, 9), ("cat",)), tag="second")
    page = client.get("/projects/7/pool?tag=second", headers={"accept": "text/html"}).text
    addresses = re.findall(r"/projects/7/tasks/(?:\d+|TASK)/picture\?[^\"]*", page.replace("&amp;", "&"))
    assert len(addresses) == 4, "a pair of repeated images, an odd one, and the map's under the pointer"
    assert all("tag=second" in address for address in addresses)
