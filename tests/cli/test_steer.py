"""The commands by which a person steers the loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backend.cli import app as commands
from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import NotFoundError
from backend.sampling.pins import Pins
from backend.settings import Settings
from tests.queue_studio import Studio, open_studio
from tests.support import ImageSite

pytestmark = pytest.mark.label_studio


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess,
    settings: Settings,
    tiny_weights: Path,
    images: ImageSite,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Studio]:
    for name in ("model_dir", "redis_url"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.api_key)
    with open_studio(label_studio, settings, tiny_weights, images) as studio:
        yield studio


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def test_tasks_are_pinned_in_the_order_in_which_they_are_named(studio: Studio) -> None:
    first, second, third, _ = (task.id for task in studio.client.tasks.unlabeled(studio.project))
    done = run("pin", studio.project, second, first, "--to", "front")
    assert (done.exit_code, done.stdout) == (0, f"front: {second}, {first}\n")
    studio.client.annotations.create(third, [])
    done = run("pin", studio.project, third, "--to", "back")
    assert done.stdout.splitlines() == [
        f"front: {second}, {first}",
        f"back: {third}",
        f"task {third} is labeled, so its pin has no effect",
    ]
    assert studio.context.store.steering.pins(studio.project) == Pins((second, first), (third,))
    done = run("pin", studio.project, first, second, third, "--to", "none")
    assert done.stdout == "no task is pinned\n"
    assert all(entry.who.endswith("command line") for entry in studio.context.store.journal.entries(studio.project))


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
    assert run("pin", studio.project, *arguments).exit_code == status


@pytest.mark.parametrize("is_here", [True, False])
def test_an_unknown_task_and_an_unknown_project(studio: Studio, is_here: bool) -> None:
    project = studio.project if is_here else 10**9
    error = run("pin", project, 99999999, "--to", "front").exception
    assert isinstance(error, NotFoundError)
    assert ("has no task 99999999" if is_here else "was never set up") in error.what
