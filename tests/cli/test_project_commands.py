"""The commands that change a project, on a real Label Studio, with real trainings."""

from __future__ import annotations

import json

import pytest

from backend.loop import cycle
from backend.loop.scoring import scoring
from tests.cli.commands import COLOUR, cli, in_terminal
from tests.cli.conftest import LabeledProject
from tests.support import serve

pytestmark = [pytest.mark.label_studio, pytest.mark.torch]


def test_a_training_shows_its_stages_on_stderr_and_its_result_on_stdout(labeled: LabeledProject) -> None:
    done = cli(labeled.environ | {"LOG_LEVEL": "ERROR"}, "train", str(labeled.project))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    for stage in ("snapshot", "images", "train", "evaluate", "publish"):
        assert any(line.startswith(f"training: {stage}") for line in lines), done.stderr
    assert "yolo11n-v1: published" in done.stdout
    assert "training: " not in done.stdout


def test_in_a_terminal_train_and_rank_draw_a_bar_of_80_columns(labeled: LabeledProject) -> None:
    trained = in_terminal(labeled.environ | {"NO_COLOR": "1"}, "train", str(labeled.project))
    assert trained.status == 0, trained.raw
    assert any("training: train, epoch 1 of 2" in line and "%" in line for line in trained.lines)
    bars = [line for line in trained.lines if line.startswith("training: ")]
    assert max(map(len, bars)) <= 80
    assert not COLOUR.search(trained.raw)
    score(labeled)
    ranked = in_terminal(labeled.environ, "rank", str(labeled.project), "--strategy", "entropy", "--dry-run")
    assert ranked.status == 0, ranked.raw
    assert any("ranking: by entropy" in line for line in ranked.lines)
    assert max(map(len, ranked.lines)) <= 80
    piped = cli(labeled.environ, "rank", str(labeled.project), "--strategy", "entropy", "--dry-run", "--json")
    assert len(json.loads(piped.stdout)) == 4


def test_disconnect_removes_what_is_ours_and_nothing_else(labeled: LabeledProject) -> None:
    context, project = labeled.context, str(labeled.project)
    calls = context.label_studio.projects
    with serve(context) as server:
        url = str(server.base_url).rstrip("/")
        assert cli(labeled.environ, "connect", project, "--url", url).returncode == 0
        foreign = {"project": labeled.project, "url": "http://127.0.0.1:1/other", "send_for_all_actions": True}
        context.label_studio.http.send("POST", "/api/webhooks/", foreign)
        refused = cli(labeled.environ, "disconnect", project, answer="n\n")
        assert refused.returncode == 1
        assert f"the webhook to {url}/webhook" in refused.stdout
        assert len(calls.backends(labeled.project)) == 1
        done = cli(labeled.environ, "disconnect", project, "--yes")
        assert done.returncode == 0, done.stderr
        assert f"at {url}" in done.stdout
        assert calls.backends(labeled.project) == []
        assert [hook.url for hook in calls.webhooks(labeled.project)] == ["http://127.0.0.1:1/other"]
        assert context.store.project(labeled.project) is None
        assert len(context.label_studio.annotations.stamps(labeled.project)) == labeled.labeled
        again = cli(labeled.environ, "disconnect", project, "--yes")
        assert (again.returncode, "nothing" in again.stdout) == (0, True)
        assert cli(labeled.environ, "connect", project, "--url", url).returncode == 0
        assert context.store.project(labeled.project) is not None
    unknown = cli(labeled.environ, "disconnect", str(10**6), "--yes")
    assert unknown.returncode == 1
    assert "no project 1000000" in unknown.stderr


def score(labeled: LabeledProject) -> None:
    """Score the pool with the accepted version and push it, as the jobs do."""
    context, project = labeled.context, labeled.project
    current = context.store.current(project)
    assert current is not None
    unlabeled = [task.id for task in context.label_studio.tasks.unlabeled(project)]
    run = context.progress.start_scoring(project, current.number, 1, len(unlabeled))
    assert scoring.score_shard(context, project, run, 0, False, unlabeled) == current.number
    cycle.rank_push_and_flip(context, project, current.number)
