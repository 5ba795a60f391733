"""Stored predictions match the label config: when it asks for other answers, the pool is predicted again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import ModelError
from backend.labelstudio import label_config, tags
from backend.labelstudio.tags import videorectangle
from backend.loop import served_models, serving
from backend.loop.context import Context
from backend.loop.scoring import pool_ranking, push, scoring, stored_answers
from backend.loop.served_models import ServedModel, models_for
from backend.settings import Settings
from backend.store.shard_codec import PoolShard
from backend.store.store import PoolKeys, ProjectRecord
from backend.types import Json, Prediction, Ranking, Task
from backend.yolo import nms
from tests import clips
from tests.clips import Mover
from tests.support import CLASSES, CONFIG, ImageSite, open_context, publish

LAX = " ".join(f'bytetrack_{key}="0.05"' for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh"))
VIDEO = (
    '<View><Labels name="labels" toName="video"><Label value="cat"/><Label value="dog"/></Labels>'
    '<Video name="video" value="$video" frameRate="25"/><VideoRectangle name="box" toName="video" '
    f'model_tracker="bytetrack" model_conf="0.05" model_score_threshold="0.05" {LAX}/></View>'
)
TIMELINE = (
    '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="event" toName="video">'
    '<Label value="cat"/></TimelineLabels></View>'
)
STRICT = VIDEO.replace('new_track_thresh="0.05"', 'new_track_thresh="1"')  # fewer tracks
(TAG,) = label_config.parse(VIDEO)
MOVERS = [Mover("red", (0, 10), (2, 0), (40, 30)), Mover("blue", (100, 60), (-1, 0.5), (30, 40))]


def clip(site: ImageSite, name: str) -> str:
    clips.write(site.folder / name, MOVERS, count=12)
    return f"{site.url}/{name}"


def add(config: str, attribute: str) -> str:
    """Return the config with an attribute added to its control tag, or with another value of that attribute."""
    name, kind = attribute.partition("=")[0], ("VideoRectangle", "TimelineLabels", "RectangleLabels")
    without = re.sub(rf' {name}="[^"]*"', "", config)
    return re.sub(rf"<({'|'.join(kind)}) ", rf"<\1 {attribute} ", without)


def setup(context: Context, config: str, extra_params: str = "") -> ProjectRecord:
    return serving.setup(context, 7, config, "http://studio.example", extra_params, "http://backend.example:9090")


def served(context: Context, record: ProjectRecord) -> tuple[ServedModel, ...]:
    return models_for(context, record, accepted=True)


def store_pool(context: Context, record: ProjectRecord, tasks: Sequence[Task]) -> list[Prediction | None]:
    """Score tasks into the store as a run does, without Label Studio."""
    models = served(context, record)
    context.store.pools.clear(7, models[0].number)
    stored_answers.of(context, models).begin(models)
    shards = scoring.predict_shards(context, models, 0, tasks)
    assert scoring.save_shards(context, models, shards)
    pool_ranking.rank_pool(context, record, models)
    stored_answers.of(context, models).end(context.store.state.pool_keys(7, models[0].number))
    return list(shards[0].predictions)


@pytest.fixture
def trained(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with videos and a published and served version."""
    setup(context, VIDEO)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    return context


# What an answer depends on


@pytest.mark.parametrize(
    ("config", "attribute"),
    [
        (VIDEO, 'model_conf="0.06"'),
        (VIDEO, 'model_iou="0.6"'),
        (VIDEO, 'model_tracker="botsort"'),
        (VIDEO, 'bytetrack_track_buffer="60"'),
        (VIDEO, 'bytetrack_new_track_thresh="0.06"'),
        (VIDEO, 'bytetrack_fuse_score="false"'),
        (add(VIDEO, 'model_tracker="botsort"'), 'botsort_gmc_method="none"'),
        (add(VIDEO, 'model_tracker="botsort"'), 'botsort_with_reid="true"'),
        (add(VIDEO, 'model_tracker="botsort" botsort_with_reid="1"'), 'botsort_proximity_thresh="0.1"'),
        (TIMELINE, 'model_every="7"'),
        (VIDEO.replace("25", "30"), ""),
        (VIDEO.replace("$video", "$other"), ""),
        (CONFIG.replace("$image", "$other"), ""),
        (CONFIG, 'model_obb="true"'),
    ],
)
def test_options_of_the_prediction_change_the_key(context: Context, config: str, attribute: str) -> None:
    before = next(original for original in (VIDEO, TIMELINE, CONFIG) if original[:25] == config[:25])
    if attribute:
        before, config = config, add(config, attribute)
    assert keys_of(context, before) != keys_of(context, config)


@pytest.mark.parametrize(
    ("config", "attribute"),
    [
        (VIDEO, 'model_score_threshold="0.5"'),
        (VIDEO, 'model_every="5"'),  # an option of trainings
        (VIDEO, 'model_trainable="false"'),
        (VIDEO, 'model_conf="0.050"'),
        (VIDEO, 'model_iou="0.7"'),
        (VIDEO, 'model_tracker="ByteTrack "'),
        (VIDEO, 'botsort_track_buffer="60"'),  # an option of the other tracker
        (VIDEO, 'botsort_with_reid="false"'),
        (VIDEO, 'strokeWidth="3"'),
        (add(VIDEO, 'model_tracker="botsort"'), 'botsort_proximity_thresh="0.1"'),
        (TIMELINE, 'model_every="5"'),
        (TIMELINE, 'model_score_threshold="0.5"'),
        (TIMELINE, 'model_classifier_hidden_size="8"'),
        (TIMELINE, 'model_classifier_epochs="3"'),
        (CONFIG, 'model_score_threshold="0.5"'),
        (CONFIG.replace("dog", "bird"), ""),
        (CONFIG.replace('value="cat"', 'value="cat" predicted_values="bus"'), ""),
    ],
)
def test_options_of_the_display_or_the_training_do_not(context: Context, config: str, attribute: str) -> None:
    before, after = (config, add(config, attribute)) if attribute else (CONFIG, config)
    assert before != after
    assert keys_of(context, before) == keys_of(context, after)


def keys_of(context: Context, config: str, extra_params: str = "") -> dict[str, str]:
    return served_models.pool_keys(context, ProjectRecord(7, config, extra_params, "", "", ""))


def test_every_attribute_of_a_tracker_is_an_answer_option() -> None:
    numbers, switches = videorectangle.TAG.numbers, videorectangle.TAG.attributes
    options: set[str] = set()
    for tracker in videorectangle.TRACKERS:
        attributes = {**dict.fromkeys(numbers, "1"), **{name: values[0] for name, values in switches.items()}}
        options |= videorectangle.answer_options({**attributes, "model_tracker": tracker}).keys()
    assert options == {*numbers, *switches} - {"model_every"}
    assert videorectangle.IOU == nms.IOU
    (tag,) = label_config.parse(TIMELINE)
    assert tags.answer_options(tag) == {"model_every": 5}


def test_until_there_is_a_version_the_base_weights_change_the_key(context: Context, tiny_weights: Path) -> None:
    named = [add(CONFIG, f'model_path="{name}.pt"') for name in ("one", "two")]
    settings = [f'{{"BASE_MODEL": "{name}.pt"}}' for name in ("one", "two")]
    base_keys = [keys_of(context, CONFIG, extra)["label"] for extra in ("", *settings)]
    assert len(set(base_keys)) == 3
    assert [keys_of(context, config)["label"] for config in named] == base_keys[1:]
    publish(context.store, 7, tiny_weights)
    assert keys_of(context, named[0]) == keys_of(context, CONFIG)
    assert keys_of(context, CONFIG)["label"] not in base_keys


def test_each_tag_has_its_own_key(trained: Context) -> None:
    both = VIDEO.replace("</View>", TIMELINE[TIMELINE.index("<TimelineLabels") :])
    before, after = keys_of(trained, both), keys_of(trained, add(both, 'model_iou="0.6" model_every="5"'))
    assert before.keys() == after.keys() == {"label", "event"}
    assert [name for name in before if before[name] != after[name]] == ["label"]
    record = setup(trained, both)
    assert {model.key: model.pool_key for model in served(trained, record)} == before


# Stored answers


def test_predict_does_not_use_stored_predictions_with_other_options(trained: Context, images: ImageSite) -> None:
    task = Task(1, {"video": clip(images, "a.avi")})
    (prediction,) = store_pool(trained, setup(trained, VIDEO), [task])
    assert prediction is not None
    # The stored boxes are moved, so that they can be recognised.
    moved = PoolShard(0, np.array([1]), (replace(prediction, boxes=prediction.boxes + 1),))
    trained.store.pools.save_shard(7, 1, moved, tag="label")

    def shown(config: str) -> list[Json]:
        (answer,) = serving.predict(trained, 7, config, [task])
        return [dict(region) for region in answer.regions]

    def encoded(prediction: Prediction | None) -> list[Json]:
        assert prediction is not None
        return [region.as_json() for region in tags.encode(TAG, prediction, CLASSES, 0.05, "1/yolo11n-v1")]

    stored = shown(VIDEO)
    assert len(stored) == len(encoded(prediction))
    assert stored != encoded(prediction)
    assert shown(add(VIDEO, 'model_every="5"')) == stored
    strict_models = served(trained, replace(setup(trained, VIDEO), label_config=STRICT))
    ((strict,),), _ = scoring.predict_all(trained, strict_models, [task])
    assert shown(STRICT) == encoded(strict) != encoded(prediction)
    assert shown(VIDEO) == stored


def test_a_changed_config_makes_the_pool_due_until_it_is_scored(
    trained: Context, settings: Settings, images: ImageSite
) -> None:
    record = setup(trained, VIDEO)
    tasks = [Task(1, {"video": clip(images, "a.avi")})]
    assert push.is_pending(trained, record)  # it was never scored
    store_pool(trained, record, tasks)
    for config, due in ((VIDEO, False), (add(VIDEO, 'model_score_threshold="0.5"'), False), (STRICT, True)):
        setup(trained, config)
        with open_context(settings) as restarted:
            assert push.is_pending(restarted, replace(record, label_config=config)) is due
    run = trained.progress.start_scoring(7, 1, 1, 1)
    assert not push.is_pending(trained, replace(record, label_config=STRICT))
    trained.progress.end_scoring(7, run)
    store_pool(trained, setup(trained, STRICT), tasks)
    assert not push.is_pending(trained, replace(record, label_config=STRICT))
    assert push.is_pending(trained, record)


def test_predictions_of_an_earlier_release_count_as_those_of_the_config_at_the_update(
    trained: Context, images: ImageSite
) -> None:
    record, path = setup(trained, VIDEO), trained.work_dir / "projects/7/versions/1/answer_keys.json"
    task = Task(1, {"video": clip(images, "a.avi")})
    store_pool(trained, record, [task])
    path.unlink()
    (before,) = serving.predict(trained, 7, VIDEO, [task])
    assert before.regions
    # The options of the stored predictions are unknown.
    assert not push.is_pending(trained, replace(record, label_config=STRICT))
    stored_answers.of_accepted(trained, 7).adopt(record)
    assert not push.is_pending(trained, record)
    assert push.is_pending(trained, replace(record, label_config=STRICT))
    path.unlink()
    setup(trained, STRICT)  # this first /setup after the update replaces the config
    assert push.is_pending(trained, replace(record, label_config=STRICT))


def test_a_tag_that_is_added_causes_no_scoring_until_it_changes(trained: Context, images: ImageSite) -> None:
    store_pool(trained, setup(trained, VIDEO), [Task(1, {"video": clip(images, "a.avi")})])
    both = VIDEO.replace("</View>", TIMELINE[TIMELINE.index("<TimelineLabels") :])
    record = setup(trained, both)
    assert not push.is_pending(trained, record)
    stored_answers.of_accepted(trained, 7).adopt(record)
    assert not push.is_pending(trained, record)
    slower = both.replace("<TimelineLabels ", '<TimelineLabels model_every="7" ')
    assert push.is_pending(trained, replace(record, label_config=slower))


@pytest.mark.parametrize("config", ["<View/>", "not xml", ""])
def test_a_stored_config_that_is_no_longer_valid_is_ignored(trained: Context, config: str) -> None:
    ids, values = np.array([1]), np.zeros(1, np.float32)
    trained.store.pools.save_ranking(7, 1, Ranking(ids, values, values, np.array([False]), "random"))
    trained.store.save_project(ProjectRecord(7, config, "", "", "", ""))
    record = setup(trained, VIDEO)
    assert trained.store.state.pool_keys(7, 1) == PoolKeys({})
    assert not push.is_pending(trained, record)


def test_predictions_of_a_run_that_another_run_has_replaced_are_not_stored(trained: Context, images: ImageSite) -> None:
    tasks = [Task(1, {"video": clip(images, "a.avi")})]
    old, new = (served(trained, setup(trained, config)) for config in (VIDEO, STRICT))
    stored_answers.of(trained, old).begin(old)
    shards = scoring.predict_shards(trained, old, 0, tasks)
    stored_answers.of(trained, new).begin(new)
    assert not scoring.save_shards(trained, old, shards)
    assert trained.store.pools.prediction(7, 1, 1, tag="label") is None
    assert scoring.save_shards(trained, new, scoring.predict_shards(trained, new, 0, tasks))


def test_predictions_in_label_studio_are_outdated_until_a_push_is_complete(trained: Context) -> None:
    old, new = (served(trained, setup(trained, config)) for config in (VIDEO, STRICT))

    def begin(models: Sequence[ServedModel]) -> bool:
        stored_answers.of(trained, models).begin(models)
        return trained.store.state.pool_keys(7, 1).outdated

    assert [begin(old), begin(old), begin(new), begin(new)] == [False, False, True, True]
    pushed = trained.store.state.pool_keys(7, 1)
    begin(old)
    stored_answers.of(trained, new).end(pushed)  # a newer run has begun meanwhile
    assert trained.store.state.pool_keys(7, 1).outdated
    stored_answers.of(trained, old).end(trained.store.state.pool_keys(7, 1))
    assert begin(old) is False


def test_answers_go_from_state_to_state(trained: Context) -> None:
    models = served(trained, setup(trained, VIDEO))
    answers = stored_answers.of_accepted(trained, 7)
    ids, values = np.array([1]), np.zeros(1, np.float32)
    states = [answers.state]
    of_earlier_release = Ranking(ids, values, values, np.array([False]), "random")
    trained.store.pools.save_ranking(7, 1, of_earlier_release)
    answers.adopt(setup(trained, VIDEO))
    states.append(answers.state)
    answers.begin(models)
    states.append(answers.state)
    answers.end(answers.pool_keys)
    states.append(answers.state)
    assert states == ["unknown", "pushed", "scoring", "pushed"]


def test_a_damaged_file_names_itself(trained: Context) -> None:
    models = served(trained, setup(trained, VIDEO))
    stored_answers.of(trained, models).begin(models)
    (trained.work_dir / "projects/7/versions/1/answer_keys.json").write_text("{")
    with pytest.raises(ModelError, match=r"damaged file.*answer_keys\.json.*score the project again"):
        trained.store.state.pool_keys(7, 1)
