"""Two people label while versions are published and deleted: none of their requests fails.

The length is LABELING_MINUTES, 30 by default. `pytest -s` shows the figures.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess, label_studio_binary, start_label_studio
from backend.datasets import synthetic
from tests.annotator import Annotator, Diary, browser_of
from tests.postgres import postgres
from tests.studio_database import LOGIN, Login, fresh_label_studio
from tests.support import require, sign_up, tiny_yolo
from tests.world import World, await_shown, await_true, open_world

pytestmark = [pytest.mark.label_studio, pytest.mark.slow]

MINUTES = float(os.environ.get("LABELING_MINUTES", "30"))
PAUSE_S = 4.0
LOOK_S = 10.0
POOL = 200 + round(MINUTES * 60 * 2 / PAUSE_S)  # more than two annotators can label
SETTINGS = {
    "IMGSZ": "64",
    "RETRAIN_EVERY": "20",
    "BASE_MODEL": "curious.pt",  # it finds something everywhere, so that its versions are published
    "TRAIN_STEPS": "5",  # the quality of a version does not matter here
    "MIN_EPOCHS": "1",
    "STEPS_GROWTH": "0",
    "TOLERANCE": "1",  # so that each version is published, and the one before it is deleted
    "MODEL_SCORE_THRESHOLD": "0.01",
}
COLLEAGUE = Login(email="colleague@example.com", password="another-test-password")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_request_of_an_annotator_fails_while_versions_come_and_go(database: str, tmp_path: Path) -> None:
    data_yaml = synthetic.generate(tmp_path / "scenes", pool=POOL, test=10, seed=3, size=96)
    (tmp_path / "models").mkdir()
    tiny_yolo(tmp_path / "models" / "curious.pt", synthetic.CLASSES)
    with (
        label_studio_on(database, tmp_path / "studio") as studio,
        open_world(studio, tmp_path, data_yaml, SETTINGS) as world,
    ):
        project_id = prepared_project(world)
        diaries, versions_seen = label_together(world, project_id, MINUTES * 60)
        versions = world.store.versions(project_id)
        deleted = versions_seen - set(world.client.predictions.versions(project_id))
        gone = f"{len(deleted)} of {len(versions_seen)} deleted meanwhile"
        print(f"\n{database}: {MINUTES:g} minutes, {len(versions)} versions, {gone}")
        for diary in diaries:
            print(f"labels {diary.labels}, requests {diary.requests}, slowest {diary.slowest_s:.1f} s")
            print(*diary.failures, sep="\n")
        assert [failure for diary in diaries for failure in diary.failures] == []
        assert all(diary.labels for diary in diaries)
        assert len(versions_seen) > 2, versions[-1].reason  # or there was nothing to delete
        assert deleted == set()  # while they label
        assert_old_predictions_get_fewer(world, project_id)


@contextmanager
def label_studio_on(database: str, folder: Path) -> Iterator[LabelStudioProcess]:
    binary = label_studio_binary()
    require(binary.is_file(), f"there is no Label Studio at {binary}: make installs it, or set LABEL_STUDIO_BIN")
    with ExitStack() as stack:
        environ = {}
        if database == "postgresql":
            environ = stack.enter_context(postgres())
        else:
            shutil.copytree(fresh_label_studio(binary), folder)
        yield stack.enter_context(start_label_studio(binary, folder, environ=environ, **LOGIN))


def prepared_project(world: World) -> int:
    """Return a project with a ranked queue, and a second annotator who may label in it."""
    sign_up(world.client, **COLLEAGUE)
    project_id = world.client.projects.create("label while training", world.config)
    world.client.tasks.upload_images(project_id, [file.path for file in world.data.train])
    world.client.projects.attach_backend(project_id, world.url, "yolo")
    await_shown(world, project_id, "curious-v0")
    return project_id


def label_together(world: World, project_id: int, seconds: float) -> tuple[tuple[Diary, ...], set[str]]:
    """Let two people label at the same time; return their diaries, and the versions that had predictions meanwhile."""
    end, diaries = threading.Event(), (Diary(), Diary())
    with ExitStack() as stack:
        threads = [
            threading.Thread(target=annotator.work, args=(end,))
            for annotator in (
                Annotator(
                    stack.enter_context(browser_of(world.studio.url, **login)),
                    project_id,
                    world.tag,
                    world.oracle,
                    PAUSE_S,
                    diary,
                )
                for login, diary in zip((LOGIN, COLLEAGUE), diaries, strict=True)
            )
        ]
        for thread in threads:
            thread.start()
        deadline, versions_seen = time.monotonic() + seconds, set[str]()
        while time.monotonic() < deadline:
            versions_seen |= set(world.client.predictions.versions(project_id))
            time.sleep(LOOK_S)
        end.set()
        for thread in threads:
            thread.join()
    return diaries, versions_seen


def assert_old_predictions_get_fewer(world: World, project_id: int) -> None:
    """Nobody annotates any more, so the predictions of old versions become fewer."""

    def old_predictions() -> int:
        counts, shown = world.client.predictions.versions(project_id), world.shown_version(project_id)
        return sum(count for version, count in counts.items() if version != shown)

    before = old_predictions()
    assert before
    await_true(lambda: old_predictions() < before, "the first deletion", tell=lambda: f"{old_predictions()} are there")
