"""The loop on real photographs: BCCD, uploaded to Label Studio as files. Slow; `make test-slow`."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.evaluation import basis
from tests.support import ROOT, require
from tests.world import await_shown, label, measure, open_world

BCCD = ROOT.parent / "shared" / "data" / "bccd" / "data.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.label_studio]


def test_fifty_labels_of_bccd_reach_map50_of_030(label_studio: LabelStudioProcess, tmp_path: Path) -> None:
    require(BCCD.is_file(), f"BCCD is not at {BCCD}")
    settings = {"IMGSZ": "320", "RETRAIN_EVERY": "50", "TRAIN_STEPS": "200"}
    with open_world(label_studio, tmp_path, BCCD, settings) as world:
        project_id = world.client.projects.create("BCCD", world.config)
        world.client.tasks.upload_images(project_id, [file.path for file in world.data.train])
        world.client.projects.attach_backend(project_id, world.url, "yolo")
        await_shown(world, project_id, "yolo11n-v0")
        label(world, project_id, 50)
        await_shown(world, project_id, "yolo11n-v1")
        version = world.store.version(project_id, 1)
        quality = measure(world, version)
    print(f"BCCD: 50 labels, mAP50 {basis.on_test(quality)}, {version.timings}")
    assert len(version.snapshot.annotations) == 50
    assert quality.images == 87
    assert quality.map50 >= 0.30
