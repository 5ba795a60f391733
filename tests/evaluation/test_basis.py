"""Every place that shows a quality also shows its basis."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backend.cli import demo_loop, tables
from backend.evaluation import basis
from backend.loop.context import Context
from backend.model_versions import Metrics
from backend.store.records import PointerFile
from backend.store.store import Store
from backend.web import status_schemas
from tests.support import publish, with_model

FEW = Metrics(
    0.924, 0.7, {}, images=4, boxes=19, detections=25, interval=(0.8, 1.0), interval_50_95=(0.6, 0.8), held_out=True
)
MANY = replace(FEW, images=100, boxes=312)


def shown(context: Context) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(tables.versions(context.store.versions(7), serving=""))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (FEW, "not judged yet (4 held-out images, 19 labels; 10 images are needed)"),
        (replace(MANY, held_out=False), "not judged yet (no held-out images; 10 images are needed)"),
        (MANY, "0.924 [0.800, 1.000] on 100 held-out images, 312 labels"),
    ],
)
def test_table_and_api_show_a_quality_with_its_basis(
    context: Context, tiny_weights: Path, metrics: Metrics, text: str
) -> None:
    """Before: "0.924", of 4 images and 19 boxes; and in the API `images: 60` (labels) beside `boxes: 19`."""
    first = publish(context.store, 7, tiny_weights)
    version = replace(first, number=context.store.reserve_number(7), name="yolo11n-v2", parent=1)
    context.store.publish(with_model(version, metrics=metrics), {"label": tiny_weights})
    assert text in shown(context)
    out = status_schemas.version_out(context.store.version(7, 2))
    judged = basis.is_judged(metrics)
    assert (out.map50, out.tags[0].map50) == ((0.924, 0.924) if judged else (None, None))
    assert (out.judged_on.interval, out.judged_on.quality) == ((0.8, 1.0) if judged else None, text)
    assert (out.map50_95, out.judged_on.interval_50_95) == ((0.7, (0.6, 0.8)) if judged else (None, None))
    assert (out.labels, out.judged_on.images) == (1, basis.held_out_images(metrics))


def test_manifests_of_earlier_releases_are_read(context: Context, tiny_weights: Path) -> None:
    """They lack the interval and `held_out`; the tasks of the training tell whether the images were held out."""
    learned = publish(context.store, 7, tiny_weights)  # task 1 trained and judged it
    apart = replace(learned.snapshot, train_tasks=(1, 2), val_tasks=(3,))
    number = context.store.reserve_number(7)
    context.store.publish(replace(learned, number=number, parent=1, snapshot=apart), {"label": tiny_weights})
    for path in Path(context.settings.model_dir).rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("interval", "interval_50_95", "gained", "held_out"):
            del manifest["version"]["models"][0]["metrics"][name]
        path.write_text(json.dumps(manifest))
    metrics = [version.models[0].metrics for version in Store(context.settings.model_dir).versions(7)]
    assert [of_version and of_version.held_out for of_version in metrics] == [False, None]
    assert [basis.is_judged(of_version) for of_version in metrics] == [False, True]
    assert basis.in_words(metrics[1]) == "0.500 on 12 held-out images, 20 labels"


@pytest.mark.parametrize(
    ("metrics", "line", "summary"),
    [
        (
            replace(MANY, held_out=None),
            "mAP50 0.924 [0.800, 1.000]   mAP50-95 0.700 [0.600, 0.800] on 100 test images, 312 labels",
            "map50=0.924 first_map50=0.924 map50_low=0.800 map50_high=1.000 test_images=100",
        ),
        (
            replace(FEW, held_out=None),
            "mAP50 not judged yet (4 test images; 10 images are needed)",
            "map50=none first_map50=none map50_low=none map50_high=none test_images=4",
        ),
    ],
)
def test_the_demo_shows_a_quality_with_its_basis(metrics: Metrics, line: str, summary: str) -> None:
    """Before: "mAP50 0.924   mAP50-95 0.700", of however few test images."""
    played = demo_loop.DemoRound(30, "yolo11n-v2", metrics, "published", 9.0, ascending=True)
    assert line in played.line()
    assert summary in demo_loop.summary([played])


def test_simulate_shows_no_quality_of_few_test_images() -> None:
    assert basis.on_test(FEW) == "not judged yet (4 test images; 10 images are needed)"
    assert basis.on_test(MANY) == "0.924 [0.800, 1.000] on 100 test images"


def test_the_store_records_a_rollback(context: Context, tiny_weights: Path) -> None:
    store = context.store
    publish(store, 7, tiny_weights)
    publish(store, 7, tiny_weights)
    assert not store.pointers.is_chosen(7)
    store.rollback(7, 1)
    assert store.pointers.is_chosen(7)
    publish(store, 7, tiny_weights, promoted=False)
    assert store.pointers.is_chosen(7)
    publish(store, 7, tiny_weights)
    assert not store.pointers.is_chosen(7)
    before = PointerFile.model_validate_json('{"format": 1, "number": 1}')  # as it was written once
    assert not before.chosen
