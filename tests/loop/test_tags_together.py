"""Several control tags in one project: each has its own model, and all share one queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import ModelError
from backend.evaluation import calibration
from backend.labelstudio import label_config
from backend.loop import project_status, serving
from backend.loop.context import Context
from backend.loop.scoring import late_tasks, pool_ranking, push, scoring, strategy_inputs
from backend.loop.scoring.past_predictions import past_models
from backend.loop.served_models import ServedModel, models_for
from backend.loop.serving import TaskResult
from backend.loop.training import retraining
from backend.loop.training.snapshot import TrainingLabels
from backend.media.cache import MediaFile
from backend.model_versions import Calibration, ModelVersion, TagModel, renamed
from backend.sampling import late_places
from backend.storage import file_sha256
from backend.types import Json, Ranking, Task
from backend.web import status_schemas
from backend.yolo import detector
from tests import clips
from tests.loop.test_video_tasks import CONFIG as VIDEO
from tests.loop.test_video_tasks import MOVERS
from tests.support import CLASSES, CONFIG, ImageSite, publish, tiny_yolo, with_model

CHOICES = (
    '<Choices name="quality" toName="image" model_score_threshold="0">'
    '<Choice value="cat"/><Choice value="dog"/></Choices>'
)
SECOND = '<RectangleLabels name="second" toName="image"><Label value="cat"/></RectangleLabels>'
BOXES_AND_CHOICE = CONFIG.replace("</View>", CHOICES + "</View>")
TWO_BOXES = CONFIG.replace("</View>", SECOND + "</View>")
TWO_IMAGES = CONFIG.replace(
    "</View>", '<Image name="other" value="$other"/>' + CHOICES.replace('"image"', '"other"') + "</View>"
)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass over a detector."""
    counts: list[int] = []
    predict = detector.Detector.predict

    def counted(self: detector.Detector, paths: Sequence[Path]) -> Iterator[Any]:
        counts.append(len(paths))
        return predict(self, paths)

    monkeypatch.setattr(detector.Detector, "predict", counted)
    return counts


def setup(context: Context, schema: str) -> None:
    serving.setup(context, 7, schema, "http://studio.example", "", "http://backend.example:9090")


def put_base(context: Context, name: str, weights: Path) -> None:
    folder = Path(context.settings.model_dir)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(weights.read_bytes())


def publish_both(context: Context, boxes: Path, classifier: Path, name: str = "quality") -> ModelVersion:
    """Publish and serve a version with a model for the boxes and one for the choices."""
    beside = TagModel(
        *(name, "classify", CLASSES, file_sha256(classifier), "yolo11n-cls.pt", None, None, {}, "published")
    )
    version = publish(context.store, 7, boxes, others=[(beside, classifier)])
    context.store.activate(7, version.number)
    return version


def recalibrated(context: Context, version: ModelVersion, temperatures: Sequence[float]) -> None:
    """Publish and serve a version again, with these temperatures of its tags."""
    number = context.store.reserve_number(7)
    pairs = zip(version.models, temperatures, strict=True)
    models = tuple(replace(model, calibration=Calibration(temperature, 50)) for model, temperature in pairs)
    next_version = replace(version, number=number, parent=version.number, models=models)
    weights = {model.from_name: context.store.weights(version, model.from_name) for model in version.models}
    context.store.publish(next_version, weights)
    context.store.activate(7, number)


def served(context: Context) -> tuple[ServedModel, ...]:
    record = context.store.project(7)
    assert record is not None
    return models_for(context, record, accepted=False)


def predict(context: Context, schema: str, *tasks: Task) -> list[TaskResult]:
    return serving.predict(context, 7, schema, tasks)


def from_names(regions: Sequence[Json]) -> set[str]:
    return {region["from_name"] for region in regions}


def rank(context: Context, tasks: Sequence[Task]) -> tuple[tuple[ServedModel, ...], Ranking]:
    """Score and rank a pool as the jobs do; return the models and the ranking."""
    models, record = served(context), context.store.project(7)
    assert record is not None
    scoring.save_shards(context, models, scoring.predict_shards(context, models, 0, tasks))
    return models, pool_ranking.rank_pool(context, record, models)


def pool(images: ImageSite, count: int, first: int = 1) -> list[Task]:
    return [Task(n, {"image": images.add(f"{n}.png", n)}) for n in range(first, first + count)]


# Predictions


def test_one_prediction_holds_the_regions_of_all_tags(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    publish_both(context, tiny_weights, classifier)
    for result in predict(context, BOXES_AND_CHOICE, *pool(images, 3)):
        assert from_names(result.regions) == {"label", "quality"}
        assert sum(region["from_name"] == "quality" for region in result.regions) == 1
        assert len({region["id"] for region in result.regions}) == len(result.regions)
        assert result.version == "yolo11n-v1"


def test_tags_with_the_same_weights_share_one_pass(
    context: Context, tiny_weights: Path, images: ImageSite, passes: list[int]
) -> None:
    setup(context, TWO_BOXES)
    put_base(context, "yolo11n.pt", tiny_weights)
    results = predict(context, TWO_BOXES, *pool(images, 3))
    assert {name for result in results for name in from_names(result.regions)} == {"label", "second"}
    assert passes == [3]
    for result in results:
        boxes = {
            name: [
                region["value"]["x"]
                for region in result.regions
                if region["from_name"] == name and region["value"]["rectanglelabels"] == ["cat"]
            ]
            for name in ("label", "second")
        }
        assert boxes["label"] == boxes["second"]


def test_the_same_weights_on_other_images_need_another_pass(
    context: Context, tiny_weights: Path, images: ImageSite, passes: list[int]
) -> None:
    schema = TWO_BOXES.replace("</View>", '<Image name="other" value="$other"/></View>').replace(
        'name="second" toName="image"', 'name="second" toName="other"'
    )
    put_base(context, "yolo11n.pt", tiny_weights)
    data = {"image": images.add("1.png", 1, (80, 60)), "other": images.add("2.png", 2, (50, 70))}
    (result,) = predict(context, schema, Task(1, data))
    assert passes == [1, 1]
    sizes = {(region["from_name"], region["original_width"]) for region in result.regions}
    assert sizes == {("label", 80), ("second", 50)}


def test_a_tag_without_a_model_is_predicted_by_its_base_weights(
    context: Context, tiny_weights: Path, images: ImageSite, passes: list[int]
) -> None:
    """It was added to the config after the training. It does not use the model of the other tag."""
    setup(context, TWO_BOXES)
    base = tiny_yolo(Path(context.settings.model_dir) / "yolo11n.pt", ("cat", "bird"), seed=5)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    label, second = served(context)
    assert (label.trained, label.key, label.classes) == (True, "label", CLASSES)
    assert (second.trained, second.key, second.classes) == (False, "second", ("cat", "bird"))
    assert second.weights == base
    predict(context, TWO_BOXES, *pool(images, 2))
    assert passes == [2, 2]


RENAMED = TWO_BOXES.replace('name="label"', 'name="animals"')


def test_a_renamed_tag_keeps_its_model(context: Context, tiny_weights: Path, images: ImageSite) -> None:
    """It also keeps its stored predictions and its learned tasks, even if one of its labels is removed."""
    version = two_boxes(context, tiny_weights)
    setup(context, TWO_BOXES)
    rank(context, pool(images, 3))
    setup(context, RENAMED.replace('<Label value="dog"/>', ""))
    base = tiny_yolo(Path(context.settings.model_dir) / "yolo11n.pt", ("bird",), seed=5)
    animals, second = served(context)
    assert (animals.trained, animals.classes, animals.key, animals.tag.from_name) == (True, CLASSES, "label", "animals")
    assert animals.weights not in (None, base)
    assert (second.trained, second.key) == (True, "second")
    assert version.learned_task_ids(animals.key) == {1}
    assert [past.number for past in past_models(context, animals)] == [1]
    assert context.store.pools.prediction(7, 1, 2, tag=animals.key) is not None
    (result,) = predict(context, RENAMED, *pool(images, 1))
    assert "animals" in from_names(result.regions)
    assert len(late_tasks.tag_rankings(context, (animals, second))) == 2, "both rank new tasks"
    record = context.store.project(7)
    assert record is not None
    labels = TrainingLabels(record, tuple(model.tag for model in served(context)), {}, {})
    champion = retraining.champions_of(context, labels, version)["animals"]
    assert champion is not None
    assert champion.model.sha256 == version.models[0].sha256


def test_a_further_tag_that_was_renamed_keeps_its_place_in_the_store(
    context: Context, tiny_weights: Path, classifier: Path
) -> None:
    setup(context, BOXES_AND_CHOICE.replace('name="quality"', 'name="how"'))
    publish_both(context, tiny_weights, classifier)
    assert [(model.trained, model.key) for model in served(context)] == [(True, "label"), (True, "quality")]
    # Both tags are removed, and only one of them has boxes.
    setup(context, CONFIG.replace('name="label"', 'name="how"'))
    assert [(model.trained, model.key) for model in served(context)] == [(True, "label")]
    setup(context, BOXES_AND_CHOICE.replace('name="quality"', 'name="how"'))
    # Once it is trained under its new name, that is its key.
    publish_both(context, tiny_weights, classifier, name="how")
    assert [(model.trained, model.key) for model in served(context)] == [(True, "label"), (True, "how")]


def two_boxes(context: Context, weights: Path) -> ModelVersion:
    """Publish and serve a version of the tags "label" and "second", both with boxes and with cats."""
    beside = TagModel("second", "detect", CLASSES, file_sha256(weights), "yolo11n.pt", None, None, {}, "published")
    version = publish(context.store, 7, weights, others=[(beside, weights)])
    context.store.activate(7, version.number)
    return version


@pytest.mark.parametrize(
    "schema",
    [
        RENAMED.replace('name="second"', 'name="other"'),  # two removed and two added: they cannot be matched
        TWO_BOXES.replace("</View>", SECOND.replace("second", "new") + "</View>"),  # none removed
        RENAMED.replace("</View>", SECOND.replace("second", "new") + "</View>"),  # one removed and two added
        CONFIG.replace('name="label"', 'name="new"'),  # two removed and one added
        RENAMED.replace('"cat"', '"horse"').replace('"dog"', '"cow"'),
        RENAMED.replace('name="animals"', 'name="animals" model_obb="true"'),
        # A skipped tag is not removed.
        TWO_BOXES.replace('name="label"', 'name="label" model_skip="true"').replace(
            "</View>", SECOND.replace("second", "new") + "</View>"
        ),
    ],
)
def test_a_new_tag_does_not_get_the_model_of_another_tag(context: Context, tiny_weights: Path, schema: str) -> None:
    setup(context, schema)
    version = two_boxes(context, tiny_weights)
    record = context.store.project(7)
    assert record is not None
    assert renamed(version, label_config.parse(record.label_config)) == version


def test_beside_a_tag_without_weights_the_others_are_predicted(
    context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    setup(context, TWO_BOXES)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    (Path(context.settings.model_dir) / "base").mkdir()
    (Path(context.settings.model_dir) / "base/yolo11n.unavailable").touch()  # as after a download that failed
    (result,) = predict(context, TWO_BOXES, *pool(images, 1))
    assert from_names(result.regions) == {"label"}


def test_two_tags_of_one_image_fetch_it_once(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup(context, BOXES_AND_CHOICE)
    publish_both(context, tiny_weights, classifier)
    fetch, counts = context.media.fetch_many, []

    def counted(requests: Sequence[tuple[object, int]]) -> Any:
        counts.append(len(requests))
        return fetch(requests)

    monkeypatch.setattr(context.media, "fetch_many", counted)
    predict(context, BOXES_AND_CHOICE, *pool(images, 2))
    assert counts == [2]


def test_an_image_that_fails_affects_only_its_own_tag(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, TWO_IMAGES)
    publish_both(context, tiny_weights, classifier)
    good, bad = images.add("1.png", 1), f"{images.url}/404.png"
    tasks = [
        Task(1, {"image": good, "other": good}),
        Task(2, {"image": good, "other": bad}),
        Task(3, {"image": bad, "other": good}),
        Task(4, {"image": bad, "other": bad}),
    ]
    results = predict(context, TWO_IMAGES, *tasks)
    assert [from_names(result.regions) for result in results] == [{"label", "quality"}, {"label"}, {"quality"}, set()]
    assert [result.score == push.LAST for result in results] == [False, False, False, True]
    assert context.progress.failures(7).keys() == {2, 3, 4}
    assert context.progress.failures(7)[4].count("(404)") == 1  # listed once, though two tags read it
    _, order = rank(context, tasks)
    assert sorted(order.task_ids.tolist()) == [1, 2, 3]


# The queue


def test_stored_predictions_are_pushed_and_answered(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    publish_both(context, tiny_weights, classifier)
    tasks = pool(images, 6)
    models, order = rank(context, tasks)
    rows = list(push.prediction_rows(context, context.settings, models, order, {task.id: task for task in tasks}))
    for media in Path(context.settings.model_dir, "media").iterdir():
        media.unlink()
    for path in images.folder.iterdir():
        path.unlink()  # stored predictions need no image
    results = predict(context, BOXES_AND_CHOICE, *tasks)
    assert [row.score for row in rows] == [result.score for result in results]
    assert [tuple(region.as_json() for region in row.regions) for row in rows] == [result.regions for result in results]
    assert sorted(row.score for row in rows) == pytest.approx([place / 7 for place in range(1, 7)])


def test_the_queue_merges_the_rankings_of_the_tags_from_the_front(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    publish_both(context, tiny_weights, classifier)
    models, order = rank(context, pool(images, 12))
    parts = late_tasks.tag_rankings(context, models)
    assert parts.keys() == {"label", "quality"}
    for part in parts.values():
        assert sorted(part.task_ids.tolist()) == list(range(1, 13))
        assert not part.explored.any()
    best = {
        task: max(1 - float(part.priority[part.task_ids == task][0]) for part in parts.values())
        for task in range(1, 13)
    }
    assert order.acquisition.tolist() == pytest.approx([best[task] for task in order.task_ids.tolist()])
    chosen = order.task_ids[~order.explored][np.argsort(order.priority[~order.explored])].tolist()
    assert chosen == sorted(chosen, key=lambda task: (-best[task], task))
    assert order.strategy == "information_density_unique"


def test_a_late_task_is_placed_by_the_tag_that_ranks_it_first(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    publish_both(context, tiny_weights, classifier)
    models, order = rank(context, pool(images, 12))
    parts = late_tasks.tag_rankings(context, models)
    rankings = late_tasks.PoolRankings(order, parts)
    late = pool(images, 3, first=50)
    by_model, _ = scoring.predict_all(context, models, late)
    ids = np.array([task.id for task in late])
    by_tag = [
        late_tasks.priorities_in(context.settings, model, parts[model.tag.from_name], ids, predictions)
        for model, predictions in zip(models, by_model, strict=True)
    ]
    lowest = np.min(np.array(by_tag), axis=0)
    places = late_tasks.priorities(context.settings, models, rankings, ids, by_model)
    assert places == [late_places.quantile_of(order, 1 - low) for low in lowest.tolist()]
    assert [result.score for result in predict(context, BOXES_AND_CHOICE, *late)] == places
    without_predictions = late_tasks.priorities(context.settings, models, rankings, ids[:1], [[None], [None]])
    assert without_predictions == [push.LAST]


def test_before_any_training_the_order_is_random(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    put_base(context, "yolo11n.pt", tiny_weights)
    put_base(context, "yolo11n-cls.pt", classifier)
    _, order = rank(context, pool(images, 5))
    assert order.strategy == "random"
    assert order.explored.all()
    (late,) = predict(context, BOXES_AND_CHOICE, Task(50, {"image": images.add("50.png", 50)}))
    assert 0 <= late.score <= 1


@pytest.mark.parametrize("config", [BOXES_AND_CHOICE, CONFIG])
def test_first_batch_orders_the_queue_before_any_training_and_a_share_stays_random(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, config: str
) -> None:
    serving.setup(context, 7, config, "", '{"FIRST_BATCH": "typiclust", "EXPLORE_SHARE": 0.4, "RETRAIN_EVERY": 2}', "")
    put_base(context, "yolo11n.pt", tiny_weights)
    put_base(context, "yolo11n-cls.pt", classifier)
    _, order = rank(context, pool(images, 5))
    assert order.strategy == "typiclust"
    assert order.explored.sum() == 2
    (late,) = predict(context, config, Task(50, {"image": images.add("50.png", 50)}))
    assert 0 <= late.score <= 1


def test_a_further_tag_that_lacks_what_the_strategy_needs_is_ranked_by_another_strategy(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    serving.setup(context, 7, BOXES_AND_CHOICE, "", '{"STRATEGY": "localization"}', "")
    publish_both(context, tiny_weights, classifier)
    models, order = rank(context, pool(images, 4))
    parts = late_tasks.tag_rankings(context, models)
    assert (parts["label"].strategy, parts["quality"].strategy) == ("localization", late_places.STAND_IN)
    assert order.strategy == "localization"


@pytest.mark.parametrize("temperatures", [(1.0, 2.0), (2.0, 1.0), (0.5, 3.0)])
def test_each_tags_confidences_are_calibrated_by_its_own_temperature(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite, temperatures: tuple[float, float]
) -> None:
    setup(context, BOXES_AND_CHOICE)
    recalibrated(context, publish_both(context, tiny_weights, classifier), temperatures)
    models, _ = rank(context, pool(images, 4))
    record = context.store.project(7)
    assert record is not None
    for model, temperature in zip(models, temperatures, strict=True):
        assert model.temperature == temperature
        plain, _ = context.store.pools.load_pool(7, model.number, None, tag=model.key)
        calibrated = strategy_inputs.pool_for(context, record, model, "entropy")
        assert len(plain.class_probs)
        assert calibrated.exclusive == (model.tag.task == "classify")
        soft = calibration.softened if calibrated.exclusive else calibration.scaled
        np.testing.assert_allclose(calibrated.class_probs, soft(plain.class_probs, temperature))
    (version,) = status_schemas.project_out(project_status.status(context, 7)).versions[-1:]
    assert [tag.temperature for tag in version.tags] == list(temperatures)
    assert version.temperature == temperatures[0]


def test_a_tag_without_an_accepted_model_has_no_temperature(
    context: Context, tiny_weights: Path, classifier: Path
) -> None:
    """Its base weights predict, and the temperature belongs to the model that was rejected."""
    version = publish_both(context, tiny_weights, classifier)
    refused = with_model(version, sha256="", calibration=Calibration(2.0, 50))
    assert [model.temperature for model in refused.models] == [1.0, 1.0]
    assert status_schemas.version_out(refused).temperature == 1.0


def test_a_tag_without_a_model_does_not_rank(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    put_base(context, "yolo11n.pt", tiny_weights)
    version = publish_both(context, tiny_weights, classifier)
    number = context.store.reserve_number(7)
    next_version = replace(version, number=number, name=f"yolo11n-v{number}", parent=version.number)
    context.store.publish(with_model(next_version, sha256="", metrics=None), {"quality": classifier})
    context.store.activate(7, number)
    models, order = rank(context, pool(images, 6))
    assert [model.trained for model in models] == [False, True]
    assert late_tasks.tag_rankings(context, models).keys() == {"quality"}
    assert len(order.task_ids) == 6


def test_damaged_weights_of_any_tag_are_refused(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    setup(context, BOXES_AND_CHOICE)
    version = publish_both(context, tiny_weights, classifier)
    context.store.weights(version, "quality").write_bytes(b"a pickle of somebody else")
    with pytest.raises(ModelError, match="damaged: wrong sha256"):
        predict(context, BOXES_AND_CHOICE, *pool(images, 1))


def test_each_model_predicts_the_same_as_alone(context: Context, tiny_weights: Path, images: ImageSite) -> None:
    setup(context, TWO_BOXES)
    put_base(context, "yolo11n.pt", tiny_weights)
    tasks = pool(images, 2)
    models = served(context)
    by_model, reasons = scoring.predict_all(context, models, tasks)
    assert reasons == {}
    files = [MediaFile(images.folder / f"{task.id}.png", 80, 60) for task in tasks]
    for predictions in by_model:
        for prediction, expected in zip(predictions, models[0].predict(files), strict=True):
            assert prediction is not None
            np.testing.assert_allclose(prediction.boxes, expected.boxes, atol=1e-3)
    assert scoring.predict_all(context, models, []) == ([[], []], {})


# Videos beside images


def test_a_video_and_an_image_of_one_task(
    context: Context, tiny_weights: Path, classifier: Path, images: ImageSite
) -> None:
    schema = VIDEO.replace("</View>", '<Image name="image" value="$image"/>' + CHOICES + "</View>")
    setup(context, schema)
    beside = TagModel(
        *("quality", "classify", CLASSES, file_sha256(classifier), "yolo11n-cls.pt", None, None, {}, "published")
    )
    version = publish(context.store, 7, tiny_weights, others=[(beside, classifier)], from_name="box")
    context.store.activate(7, version.number)
    clips.write(images.folder / "a.avi", MOVERS, count=6)
    video, image = f"{images.url}/a.avi", images.add("1.png", 1)
    tasks = [Task(1, {"video": video, "image": image}), Task(2, {"image": image}), Task(3, {"video": video})]
    models, order = rank(context, tasks)
    assert [model.tag.frame_rate for model in models] == [25, 0]
    assert scoring.shard_size(models) == scoring.SHARD_VIDEOS
    assert sorted(order.task_ids.tolist()) == [1, 2, 3]
    results = predict(context, schema, *tasks)
    assert [from_names(result.regions) for result in results] == [{"box", "quality"}, {"quality"}, {"box"}]
    assert context.progress.failures(7).keys() == {2, 3}
