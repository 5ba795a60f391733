"""The commands by which a person steers the loop."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.sampling.pins import Pins
from backend.settings import Settings
from tests.forked import run_command
from tests.queue_studio import Studio, open_studio
from tests.support import ImageSite, serve

pytestmark = pytest.mark.label_studio


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    settings: Settings,
    tiny_weights: Path,
    images: ImageSite,
) -> Iterator[Studio]:
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        yield studio


def run(studio: Studio, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as an admin does, who answers no question."""
    settings = studio.context.settings
    names = ("model_dir", "redis_url", "label_studio_url", "label_studio_api_key")
    environ = os.environ | {name.upper(): getattr(settings, name) for name in names}
    return run_command(environ, [str(argument) for argument in arguments])


def test_tasks_are_pinned_in_the_order_in_which_they_are_named(studio: Studio) -> None:
    first, second, third, _ = (task.id for task in studio.client.tasks.unlabeled(studio.project))
    done = run(studio, "pin", studio.project, second, first, "--to", "front")
    assert (done.returncode, done.stdout) == (0, f"front: {second}, {first}\n")
    studio.client.annotations.create(third, [])
    done = run(studio, "pin", studio.project, third, "--to", "back")
    assert done.stdout.splitlines() == [
        f"front: {second}, {first}",
        f"back: {third}",
        f"task {third} is labeled, so its pin has no effect",
    ]
    assert studio.context.store.steering.pins(studio.project) == Pins((second, first), (third,))
    done = run(studio, "pin", studio.project, first, second, third, "--to", "none")
    assert done.stdout == "no task is pinned\n"
    assert all("command line" in entry.who for entry in studio.context.store.journal.entries(studio.project))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("1", "--to", "middle"), 2),
        (("1",), 2),
        (("--to", "front"), 2),
        (("one", "--to", "front"), 2),
    ],
)
def test_wrong_arguments(studio: Studio, arguments: tuple[str, ...], status: int) -> None:
    assert run(studio, "pin", studio.project, *arguments).returncode == status


def test_a_strategy_is_used_only_after_asking(studio: Studio) -> None:
    with serve(studio.context) as server:
        studio.client.projects.attach_backend(studio.project, str(server.base_url).rstrip("/"), "yolo")
        arguments = ("rank", studio.project, "--strategy", "margin")
        for done in (run(studio, *arguments, "--dry-run"), run(studio, *arguments)):
            assert "value of margin" in done.stdout
            (attached,) = studio.client.projects.backends(studio.project)
            assert attached.extra_params == ""
        assert run(studio, *arguments, "--yes").returncode == 0
        (attached,) = studio.client.projects.backends(studio.project)
        assert attached.extra_params == '{"STRATEGY": "margin"}'
        studio.settle()
        order = studio.context.store.pools.ranking(studio.project, 1)
        assert order is not None
        assert order.strategy == "margin"


@pytest.mark.parametrize("is_here", [True, False])
def test_an_unknown_task_and_an_unknown_project(studio: Studio, is_here: bool) -> None:
    project = studio.project if is_here else 10**9
    done = run(studio, "pin", project, 99999999, "--to", "front")
    assert done.returncode == 1
    assert ("has no task 99999999" if is_here else "was never set up") in done.stderr
    assert "Traceback" not in done.stderr
