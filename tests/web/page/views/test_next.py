"""The view Next with names that would break a page, and without anything to show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from backend.acquisition.pool import Committee
from backend.errors import LabelStudioError
from backend.geometry import brush_rle
from backend.labelstudio.region_outlines import drawing
from backend.loop.context import Context
from backend.loop.insight.next_tasks import NextTask, NextTasks
from backend.sampling.order_agreement import OrderAgreement
from backend.sampling.pins import Pins
from backend.store.store import ProjectRecord
from backend.types import Json
from tests.support import CONFIG, ROOT, TWO_TAGS, publish, serve

HTML = {"accept": "text/html"}
NASTY = ["<script>alert(1)</script>", "é" * 300, '😀 "quoted" & more', "\u202eעברית"]

NOBODY = Committee(np.zeros(2, np.int64), np.zeros((2, 0, 2), np.float32), np.zeros((2, 0, 4), np.float32))


def region(label: str) -> Json:
    value = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "value": value, "score": 0.5, "original_width": 10, "original_height": 10}


def order(name: str = "cat", count: int = 1, *, other: bool = False) -> NextTasks:
    task = NextTask(5, 1, None if other else 0.5, "front", (f"1 box '{name}' or nothing",), drawing([region(name)]), 0)
    return NextTasks(
        version="yolo11n-v1",
        own="entropy",
        strategy="margin" if other else "entropy",
        tasks=(task,) * count,
        total=count,
        agreement=OrderAgreement(1, 0.25, 1, 1) if other else None,
        pins=Pins((5,)),
    )


@pytest.fixture
def client(context: Context) -> Iterator[httpx.Client]:
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    with serve(context) as client:
        client.headers.update(HTML)
        yield client


def show(monkeypatch: pytest.MonkeyPatch, tasks: NextTasks) -> None:
    monkeypatch.setattr("backend.web.page.views.next.next_tasks", lambda *_: tasks)


@pytest.mark.parametrize("name", NASTY)
def test_any_label_is_text(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    show(monkeypatch, order(name))
    answer = client.get("/projects/7/next")
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "pinned" in answer.text
    assert "shown as 50.00%" in answer.text


def test_a_mask_is_drawn_and_a_damaged_one_is_counted(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[2:8, 2:8] = True
    painted = {"brushlabels": ["cat"], "rle": brush_rle.encode_rle(mask), "format": "rle"}
    regions = [
        {**region("cat"), "type": "brushlabels", "value": value} for value in (painted, {**painted, "rle": [1, 2]})
    ]
    shown = order()
    show(monkeypatch, replace(shown, tasks=(replace(shown.tasks[0], drawing=drawing(regions)),)))
    text = client.get("/projects/7/next").text
    assert text.count('class="model mask"') == 1
    assert "<title>cat 50%</title>" in text
    assert "Masks that cannot be drawn here: 1" in text


def test_a_key_point_has_the_colour_of_its_label(
    client: httpx.Client, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (ROOT / "label_config" / "keypointlabels.xml").read_text()
    context.store.save_project(ProjectRecord(7, config, "", "", "", ""))
    box = {**region("Fish"), "id": "box"}
    point = {**region("Tail"), "type": "keypointlabels", "value": {"x": 1, "y": 2, "keypointlabels": ["Tail"]}}
    shown = order()
    show(monkeypatch, replace(shown, tasks=(replace(shown.tasks[0], drawing=drawing([box, point])),)))
    text = client.get("/projects/7/next").text
    assert re.findall(r'style="color: (\S+)"><title>(\w+) ', text) == [("#1f77b4", "Fish"), ("#2ca02c", "Tail")]


def test_an_empty_queue_says_so(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, order(count=0))
    assert "No task waits in the queue." in client.get("/projects/7/next").text


def test_another_order_has_its_agreement_and_a_button(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, order(other=True))
    text = client.get("/projects/7/next?strategy=margin").text
    assert "1 of the first 1 tasks are the same, and the rank correlation of both orders is 0.250" in text
    assert "Use margin for this project" in text
    assert "shown as" not in text


def test_a_pin_leads_back_to_the_same_tag_and_order_and_a_strategy_to_the_same_tag(
    client: httpx.Client, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    show(monkeypatch, order(other=True))
    text = client.get("/projects/7/next?tag=second&strategy=margin&other=x").text
    assert 'action="/projects/7/next/pin?tag=second&amp;strategy=margin"' in text
    assert 'action="/projects/7/next/strategy?tag=second"' in text


def test_strategies_of_a_committee_are_greyed_out_until_it_has_voted(
    client: httpx.Client, context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    show(monkeypatch, order())
    weights = tmp_path / "unread.pt"
    weights.write_bytes(b"weights")
    context.store.activate(7, publish(context.store, 7, weights).number)
    text = client.get("/projects/7/next").text
    assert '<option value="bald" disabled>bald – no committee has voted yet; ' in text
    assert '<option value="margin">' in text
    assert "yolo-backend rank 7 --strategy bald --dry-run" in text
    context.store.pools.save_votes(7, 1, 0, np.array([5]), NOBODY, tag="label")
    assert '<option value="bald">bald – ' in client.get("/projects/7/next").text


def test_label_studio_may_be_down(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> NextTasks:
        raise LabelStudioError("no Label Studio answers there", fix="start it")

    monkeypatch.setattr("backend.web.page.views.next.next_tasks", down)
    answer = client.get("/projects/7/next")
    assert answer.status_code == 502
    assert "no Label Studio answers there" in answer.text


def test_a_project_without_a_pool(client: httpx.Client) -> None:
    answer = client.get("/projects/7/next")
    assert answer.status_code == 200
    assert "No task has a place yet." in answer.text
    assert client.get("/projects/8/next").status_code == 404
