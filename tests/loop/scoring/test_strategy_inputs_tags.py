"""Committees and losses with several control tags: each tag has its own committee, and losses on its own labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import acquisition
from backend.acquisition.learning_loss import image_loss
from backend.acquisition.pool import Pool
from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import ModelError
from backend.labelstudio import tags
from backend.loop import served_models, serving
from backend.loop.context import Context
from backend.loop.scoring import late_tasks, pool_ranking, scoring, strategy_inputs
from backend.loop.scoring.past_predictions import past_models
from backend.loop.served_models import ServedModel
from backend.model_versions import ModelVersion, TagModel
from backend.sampling.late_places import STAND_IN
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import Prediction, Ranking, Task
from tests import clips
from tests.loop.review.test_label_review import ASIDE, HERE, human, predicted
from tests.loop.test_tags_together import BOXES_AND_CHOICE, CHOICES, TWO_IMAGES, pool, publish_both, served
from tests.loop.test_video_tasks import CONFIG as VIDEO
from tests.loop.test_video_tasks import MOVERS
from tests.support import CLASSES, TWO_TAGS, ImageSite, open_context, publish, tiny_yolo

TURNED = ("dog", "cat")  # the second tag's model has its classes in the other order


def setup(context: Context, schema: str, **extra: str | int) -> ProjectRecord:
    serving.setup(context, 7, schema, "", json.dumps(extra), "")
    record = context.store.project(7)
    assert record is not None
    return record


def score(context: Context, record: ProjectRecord, tasks: Sequence[Task]) -> tuple[ServedModel, ...]:
    """Predict a pool of one shard and save the committees' votes, as the job does."""
    models = served(context)
    shards = scoring.predict_shards(context, models, 0, tasks)
    scoring.save_shards(context, models, shards)
    scoring.save_committee_votes(context, record, models, shards, tasks)
    return models


def rank(context: Context, record: ProjectRecord, tasks: Sequence[Task]) -> dict[str, Ranking]:
    """Return each tag's own ranking of a pool."""
    models = score(context, record, tasks)
    pool_ranking.rank_pool(context, record, models)
    return late_tasks.tag_rankings(context, models)


def publish_next(context: Context, version: ModelVersion, quality: Path, *, carried: bool) -> ModelVersion:
    """Publish and serve the next version, with new weights for the choices, or the same ones if `carried`."""
    number = context.store.reserve_number(7)
    choices = replace(version.models[1], sha256=file_sha256(quality), carried=carried)
    following = replace(
        version,
        number=number,
        name=f"yolo11n-v{number}",
        parent=version.number,
        models=(version.models[0], choices),
    )
    context.store.publish(following, {"label": context.store.weights(version, "label"), "quality": quality})
    context.store.activate(7, number)
    return following


# Committees


@pytest.mark.parametrize("kind", ["augmented", "perturbed"])
def test_every_tag_is_ranked_by_its_own_committee(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, kind: str
) -> None:
    record = setup(context, BOXES_AND_CHOICE, STRATEGY="bald", COMMITTEE=kind, COMMITTEE_SIZE=3)
    publish_both(context, tiny_weights, classifier)
    parts = rank(context, record, pool(images, 5))
    assert [part.strategy for part in parts.values()] == ["bald", "bald"]
    values = {}
    for model in served(context):
        ((ids, votes),) = context.store.pools.votes(7, 1, tag=model.key)
        anchors = np.diff(votes.offsets)
        assert (anchors == 1).all() if model.tag.task == "classify" else (anchors > 1).all()
        alone = Pool(ids, np.zeros(len(ids) + 1, np.int64), np.zeros((0, 2), np.float32), committee=votes)
        bald = acquisition.get("bald").function(alone, np.random.default_rng(0))
        part = parts[model.tag.from_name]
        values[model.tag.from_name] = dict(zip(ids.tolist(), bald.tolist(), strict=True))
        ranked = dict(zip(part.task_ids.tolist(), part.acquisition.tolist(), strict=True))
        assert ranked == pytest.approx(values[model.tag.from_name], abs=1e-6)
    assert values["label"] != pytest.approx(values["quality"])


def test_a_tag_votes_on_a_task_that_another_tag_could_not_predict(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    record = setup(context, TWO_IMAGES, STRATEGY="bald", COMMITTEE_SIZE=2)
    publish_both(context, tiny_weights, classifier)
    good, bad = images.add("1.png", 1), f"{images.url}/404.png"
    score(context, record, [Task(1, {"image": good, "other": bad}), Task(2, {"image": bad, "other": good})])
    voted = {tag: [ids.tolist() for ids, _ in context.store.pools.votes(7, 1, tag=tag)] for tag in ("label", "quality")}
    assert voted == {"label": [[1]], "quality": [[2]]}


def test_a_committee_of_whole_images_has_no_boxes_to_disagree_about(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    record = setup(context, BOXES_AND_CHOICE, STRATEGY="box_disagreement", COMMITTEE_SIZE=2)
    publish_both(context, tiny_weights, classifier)
    parts = rank(context, record, pool(images, 4))
    assert {name: part.strategy for name, part in parts.items()} == {"label": "box_disagreement", "quality": STAND_IN}


def test_each_tags_committee_of_snapshots_has_its_own_models(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, tmp_path: Path
) -> None:
    """A model that was carried over counts once, because it would be the same member twice."""
    record = setup(context, BOXES_AND_CHOICE, STRATEGY="bald", COMMITTEE="snapshots", COMMITTEE_SIZE=3)
    first = publish_both(context, tiny_weights, classifier)
    second = publish_next(context, first, classifier, carried=True)
    assert committee_sizes(context, record) == {"label": 2}
    parts = rank(context, record, pool(images, 3))
    assert {name: part.strategy for name, part in parts.items()} == {"label": "bald", "quality": STAND_IN}
    publish_next(context, second, tiny_yolo(tmp_path / "other.pt", seed=3, task="classify"), carried=False)
    label, quality = served(context)
    assert [version.number for version, _ in served_models.voting_models(context, label, 9)] == [3, 2, 1]
    assert [version.number for version, _ in served_models.voting_models(context, quality, 9)] == [3, 2]
    assert [model.task for _, model in served_models.voting_models(context, quality, 9)] == ["classify", "classify"]
    assert committee_sizes(context, record) == {"label": 3, "quality": 2}


def committee_sizes(context: Context, record: ProjectRecord) -> dict[str, int]:
    """Return the number of committee members by tag."""
    committees = strategy_inputs.committees(context, record, served(context))
    return {model.tag.from_name: len(members) for model, members in committees}


def test_a_first_tag_without_a_committee_is_an_error(context: Context, tiny_weights: Path, classifier: Path) -> None:
    record = setup(context, BOXES_AND_CHOICE, STRATEGY="bald", COMMITTEE="snapshots")
    publish_both(context, tiny_weights, classifier)
    with pytest.raises(ModelError, match="needs two published versions, there are 1"):
        strategy_inputs.committees(context, record, served(context))
    label, quality = served(context)
    assert strategy_inputs.committees(context, record, (replace(label, trained=False), quality)) == []


def test_a_video_beside_an_image_has_no_vote(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    """If the first tag is of videos, that is an error. A further one is ranked by another strategy."""
    schema = VIDEO.replace("</View>", '<Image name="image" value="$image"/>' + CHOICES + "</View>")
    record = setup(context, schema, STRATEGY="bald", COMMITTEE_SIZE=2)
    beside = TagModel(
        *("quality", "classify", CLASSES, file_sha256(classifier), "yolo11n-cls.pt", None, None, {}, "published")
    )
    publish(context.store, 7, tiny_weights, others=[(beside, classifier)], from_name="box")
    context.store.activate(7, 1)
    clips.write(images.folder / "a.avi", MOVERS, count=6)
    box, quality = served(context)
    with pytest.raises(ModelError, match="compares predictions of images"):
        strategy_inputs.committees(context, record, (box, quality))
    tasks = [Task(1, {"video": f"{images.url}/a.avi", "image": images.add("1.png", 1)})]
    turned = (quality, box)
    shards = scoring.predict_shards(context, turned, 0, tasks)
    scoring.save_shards(context, turned, shards)
    scoring.save_committee_votes(context, record, turned, shards, tasks)
    pool_ranking.rank_pool(context, record, turned)
    parts = late_tasks.tag_rankings(context, turned)
    assert {name: part.strategy for name, part in parts.items()} == {"quality": "bald", "box": STAND_IN}


# Losses


def two_tags(context: Context, project: int, weights: Path, *, learned: tuple[int, ...]) -> None:
    """Publish and serve a version; its model of `second` has learned from `learned`, that of `label` from task 1."""
    sha256 = file_sha256(weights)
    second = TagModel("second", "detect", TURNED, sha256, "yolo11n.pt", None, None, {}, "", learned=learned)
    version = publish(context.store, project, weights, train_tasks=(1,), others=[(second, weights)])
    context.store.activate(project, version.number)


def test_the_loss_of_a_tag_comes_from_its_own_predictions_of_unlearned_tasks(
    context: Context, tiny_weights: Path
) -> None:
    setup(context, TWO_TAGS)
    two_tags(context, 7, tiny_weights, learned=(2,))
    two_tags(context, 7, tiny_weights, learned=(2, 3))
    by_tag: dict[str, Prediction] = {"label": predicted((HERE, 0)), "second": predicted((ASIDE, TURNED.index("cat")))}
    for tag, prediction in by_tag.items():
        context.store.pools.save_shard(7, 1, PoolShard(0, np.array([1, 2, 3]), (prediction,) * 3), tag=tag)
    label, second = served(context)
    (cat,) = tags.decode(second.tag, human((ASIDE, "cat"), tag="second"))
    drawn = {task: [cat] for task in (1, 2, 3)}
    losses = {
        model.tag.from_name: strategy_inputs.losses_of_labels(
            context, past_models(context, model), drawn, dict.fromkeys(drawn, 1)
        )
        for model in (label, second)
    }
    box = np.array([ASIDE], dtype=np.float32) * np.array([2, 1, 2, 1], dtype=np.float32)
    missed, hit = (
        image_loss(by_tag[tag], box, np.array([class_id])) for tag, class_id in (("label", 0), ("second", 1))
    )
    assert missed > hit
    assert losses["label"] == {2: pytest.approx(missed), 3: pytest.approx(missed)}
    assert losses["second"] == {1: pytest.approx(hit), 3: pytest.approx(hit)}
    assert [past.learned for past in past_models(context, second)] == [{2, 3}, {2}]
    assert [past.number for past in past_models(context, replace(second, number=1))] == [1]


# Through Label Studio


@pytest.mark.label_studio
def test_every_tags_committee_votes_on_a_shard(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> None:
    """The losses are also of each tag's own labels. A preview asks the committee if there are no stored votes."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys | {"strategy": "bald", "committee_size": 2})) as context:
        client = context.label_studio
        project = client.projects.create("votes of tags", TWO_TAGS)
        body = [{"image": images.add(f"{number}.png", number)} for number in range(4)]
        client.http.send("POST", f"/api/projects/{project}/import", body)
        context.store.save_project(ProjectRecord(project, TWO_TAGS, "", "", "", ""))
        two_tags(context, project, tiny_weights, learned=())
        *ids, labeled = [task.id for task in client.tasks.unlabeled(project)]
        client.annotations.create(labeled, [*human((HERE, "cat")), *human((ASIDE, "cat"), tag="second")])
        run = context.progress.start_scoring(project, 1, 1, len(ids))
        assert scoring.score_shard(context, project, run, 0, False, ids) == 1
        voted = {
            tag: [ids.tolist() for ids, _ in context.store.pools.votes(project, 1, tag=tag)]
            for tag in ("label", "second")
        }
        assert voted == {"label": [ids], "second": [ids]}
        record = context.store.project(project)
        assert record is not None
        models = served_models.models_for(context, record, accepted=True)
        pool_ranking.rank_pool(context, record, models)
        stored = strategy_inputs.pool_for(context, record, models[1], "bald").committee
        for path in Path(context.settings.model_dir).rglob("votes-*.npz"):
            path.unlink()
        fresh = strategy_inputs.pool_for(context, record, models[1], "bald").committee
        assert stored is not None
        assert fresh is not None
        np.testing.assert_allclose(fresh.member_probs, stored.member_probs, atol=1e-5)
        assert pool_ranking.preview(context, project, "bald").strategy == "bald"
        by_tag = {"label": predicted((HERE, 0)), "second": predicted((ASIDE, TURNED.index("cat")))}
        for tag, prediction in by_tag.items():
            shard = PoolShard(0, np.array([labeled]), (prediction,))
            context.store.pools.save_shard(project, 1, shard, labeled=True, tag=tag)
        losses = [strategy_inputs.fair_losses(context, model, np.array([labeled])).tolist() for model in models]
        assert losses == [[pytest.approx(0.01, abs=1e-3)]] * 2
