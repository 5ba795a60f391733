"""Tasks that come after the ranking: their place in it, and stream admission to its front."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import ModelError, NotFoundError, SettingError
from backend.labelstudio.client.predictions import Predictions
from backend.loop import cycle, served_models
from backend.loop.context import Context
from backend.loop.scoring import late_tasks, pool_ranking, scoring
from backend.loop.training import snapshot
from backend.sampling import late_places, ranking
from backend.settings import Settings
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Prediction, Task
from tests.support import CONFIG, ImageSite, model_for, open_context, publish

IDS = np.arange(100, 150)


def predicted(score: float) -> Prediction:
    """Return a prediction with one box of that score."""
    probs = np.array([[score, 0.0]], dtype=np.float32)
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    return Prediction(64, 64, box, probs, probs[:, 0], np.array([score, 1 - score], dtype=np.float32))


@pytest.fixture
def served(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with version 1, its scored pool of 50 tasks, and their ranking; the last task is the most uncertain."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    context.store.pools.save_shard(
        7, 1, PoolShard(0, IDS, tuple(predicted(0.01 * (n + 1)) for n in range(50))), tag="label"
    )
    pool, _ = context.store.pools.load_pool(7, 1, None, tag="label")
    rng = np.random.default_rng(0)
    context.store.pools.save_ranking(7, 1, ranking.rank(pool, "class_entropy", explore_share=0.2, rng=rng))
    return context


def admitted(context: Context, places: list[float], rate: str) -> list[float]:
    shard = PoolShard(1, np.arange(200, 200 + len(places)), (predicted(0.5),) * len(places))
    order = context.store.pools.ranking(7, 1)
    assert order is not None
    return late_tasks.admitted_priorities(context, Settings(rate=rate), 7, order, shard, places)


def test_without_a_rate_a_task_takes_its_place(served: Context) -> None:
    assert admitted(served, [0.0, 0.3, 1.0], "") == [0.0, 0.3, 1.0]


def test_a_task_that_stream_admission_queries_goes_to_the_front(served: Context) -> None:
    """τ = .8, and a place of .1 is a score of .9. Then τ = .8 + .05 · .8 = .84, and .01 less after each pass."""
    scores = admitted(served, [0.1, 0.9, 0.2, 0.05], "20%")
    second = 2 / 51
    assert scores[1:3] == [0.9, 0.2]
    assert 0 < scores[3] < scores[0] < second, "the lower its place, the further in front"
    assert served.store.state.stream(7).queried == 2
    assert served.store.state.stream(7).arrived == 4


def test_the_quota_holds_over_several_jobs(served: Context) -> None:
    scores = [admitted(served, [0.1] * 5, "100%, 7/day") for _ in range(3)]
    assert sum(score < 0.1 for batch in scores for score in batch) == 7


def test_a_task_that_failed_is_not_offered(served: Context) -> None:
    order = served.store.pools.ranking(7, 1)
    assert order is not None
    shard = PoolShard(1, np.array([200, 201]), (None, predicted(0.5)))
    assert late_tasks.admitted_priorities(served, Settings(rate="100%"), 7, order, shard, [1.0, 0.0]) == [
        1.0,
        late_places.front_priority(order, 0.0),
    ]
    assert served.store.state.stream(7).arrived == 1


def test_a_task_queried_from_the_stream_does_not_count_as_random(served: Context) -> None:
    order = served.store.pools.ranking(7, 1)
    assert order is not None
    shard = PoolShard(1, np.array([200, 201]), (predicted(0.5), None))
    extended = late_tasks.extended_ranking(order, shard, [0.0, 1.0], [0.001, 1.0])
    assert extended.task_ids.tolist() == [*IDS.tolist(), 200]
    assert not extended.explored[-1]


# The preview


def test_a_preview_writes_nothing_and_orders_by_the_strategy(served: Context, tmp_path: Path) -> None:
    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (tmp_path / "models/projects").rglob("*.*")}

    before = files()
    preview = pool_ranking.preview(served, 7, "least_confidence")
    assert files() == before
    chosen = preview.task_ids[np.argsort(preview.priority)][~preview.explored[np.argsort(preview.priority)]]
    assert chosen.tolist() == sorted(chosen.tolist(), reverse=True)
    assert preview.strategy == "least_confidence"


def test_a_preview_fails_with_the_reason(served: Context) -> None:
    with pytest.raises(SettingError, match="unknown strategy 'best'"):
        pool_ranking.preview(served, 7, "best")
    served.store.save_project(ProjectRecord(7, CONFIG, '{"COMMITTEE": "snapshots"}', "", "", ""))
    with pytest.raises(ModelError, match="needs two published versions, there are 1"):
        pool_ranking.preview(served, 7, "bald")
    with pytest.raises(NotFoundError, match="no scored pool"):
        pool_ranking.preview(served, 8, "entropy")


@pytest.mark.parametrize("protocol", ["top", "datahunt1", "datahunt2"])
def test_the_settings_choose_the_protocol(served: Context, protocol: str) -> None:
    extra = json.dumps({"PROTOCOL": protocol, "EXPLORE_SHARE": 0, "RETRAIN_EVERY": 4})
    served.store.save_project(ProjectRecord(7, CONFIG, extra, "", "", ""))
    preview = pool_ranking.preview(served, 7, "entropy")
    queue = preview.task_ids[np.argsort(preview.priority)].tolist()
    assert (queue == sorted(queue, reverse=True)) is (protocol == "top")
    assert (queue[:10] == sorted(queue[:10], reverse=True)) is (protocol != "datahunt2")


def test_a_batch_of_a_large_part_of_the_pool_logs_a_warning(served: Context, caplog: pytest.LogCaptureFixture) -> None:
    pool_ranking.preview(served, 7, "entropy")
    assert "a batch of 20 out of 50 candidates" in caplog.text


def test_the_bandit_chooses_the_strategy(served: Context) -> None:
    record = ProjectRecord(7, CONFIG, json.dumps({"BANDIT": "ucb1", "BANDIT_ARMS": "margin, entropy"}), "", "", "")
    served.store.save_project(record)
    settings, model = served.project_settings(record), model_for(served, record, accepted=True)
    assert pool_ranking.strategy_for(served, settings, model) == "margin"
    assert pool_ranking.strategy_for(served, Settings(strategy="entropy"), model) == "entropy"


def test_a_ranking_that_fails_leaves_the_stored_ranking_and_the_served_version(served: Context) -> None:
    record = ProjectRecord(7, CONFIG, '{"STRATEGY": "bald", "COMMITTEE": "snapshots"}', "", "", "")
    served.store.save_project(record)
    before = served.store.pools.ranking(7, 1)
    with pytest.raises(ModelError, match="needs two published versions"):
        pool_ranking.rank_pool(served, record, served_models.models_for(served, record, accepted=True))
    after = served.store.pools.ranking(7, 1)
    assert before is not None
    assert after is not None
    assert (after.priority == before.priority).all()
    assert after.strategy == "class_entropy"
    assert served_models.serving_number(served, 7) == 1


# Through Label Studio


@pytest.mark.label_studio
def test_a_new_task_is_scored_at_once_and_next(
    label_studio: LabelStudioProcess,
    settings: Settings,
    tiny_weights: Path,
    images: ImageSite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are four ranked tasks and two late ones. With a rate of 100% both late tasks come next, after the first."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys | {"rate": "100%", "retrain_every": 1})) as context:
        client = context.label_studio
        project = client.projects.create("arrivals", CONFIG)
        client.http.send("POST", f"/api/projects/{project}/import", _tasks(images, 0, 4))
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        publish(context.store, project, tiny_weights)
        ids = [task.id for task in client.tasks.unlabeled(project)]
        served = served_models.models_for(context, served_models.project_record(context, project), accepted=True)
        tasks = client.tasks.get_many(project, ids)
        scoring.save_shards(context, served, scoring.predict_shards(context, served, 0, tasks))
        cycle.rank_push_and_flip(context, project, 1)
        client.projects.set_sampling(project)
        order = context.store.pools.ranking(project, 1)
        assert order is not None
        client.http.send("POST", f"/api/projects/{project}/import", _tasks(images, 4, 6))
        assert late_tasks.score_new(context, project) == 2
        assert late_tasks.score_new(context, project) == 0
        late = sorted({task.id for task in client.tasks.unlabeled(project)} - set(ids))
        handed = []
        for _ in range(3):
            task = client.tasks.next(project)
            assert task is not None
            handed.append(task.id)
            client.annotations.create(task.id, [])
        assert handed[0] == int(order.task_ids[np.argmin(order.priority)])
        assert sorted(handed[1:]) == late
        annotated = tuple(AnnotatedTask(Task(n, {}), n, "", ()) for n in late)
        assert not set(late) & snapshot.chance_tasks(context, project, annotated)
        # As if Label Studio's list of scores lacked tasks for a moment.
        monkeypatch.setattr(Predictions, "queue_scores", lambda *_: {})
        assert late_tasks.score_new(context, project) == 0
        assert [len(client.predictions.of_task(task.id)) for task in client.tasks.unlabeled(project)] == [1] * 3


@pytest.mark.label_studio
def test_the_committee_does_not_vote_on_an_image_that_cannot_be_read(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> None:
    """Only its own task has no votes; the other tasks of the shard have them."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys | {"strategy": "bald"})) as context:
        client = context.label_studio
        project = client.projects.create("votes", CONFIG)
        client.http.send("POST", f"/api/projects/{project}/import", _tasks(images, 0, 3))
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        publish(context.store, project, tiny_weights)
        tasks = list(client.tasks.unlabeled(project))
        (images.folder / "1.png").unlink()
        ids = [task.id for task in tasks]
        run = context.progress.start_scoring(project, 1, 1, len(ids))
        assert scoring.score_shard(context, project, run, 0, False, ids) == 1
        ((voted, votes),) = context.store.pools.votes(project, 1, tag="label")
        assert voted.tolist() == [ids[0], ids[2]]
        assert (np.diff(votes.offsets) > 0).all()
        assert context.progress.failures(project).keys() == {ids[1]}


def _tasks(images: ImageSite, begin: int, end: int) -> list[dict[str, str]]:
    return [{"image": images.add(f"{n}.png", n)} for n in range(begin, end)]
