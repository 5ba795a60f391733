"""The gain of a round of labels: disagreement with the annotator, signs of the pool, and the recommendation."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend import acquisition
from backend.cli import tables
from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry import brush_rle
from backend.labelstudio import label_config
from backend.loop import project_status
from backend.loop.context import Context
from backend.loop.review import round_value
from backend.model_versions import Metrics, TagModel, TrainingSnapshot
from backend.sampling import ranking
from backend.sampling.bandit import Reward
from backend.settings import Settings
from backend.simulate.annotator import as_result
from backend.storage import file_sha256
from backend.store.shard_codec import PoolShard
from backend.store.store import PoolSigns, ProjectRecord
from backend.types import AnnotatedTask, LabeledBox, Prediction, Task, Tracks
from backend.web import status_schemas
from tests.support import CONFIG, ROOT, open_context, publish, with_model

IDS = np.arange(10, 15)


def prediction(*objects: tuple[float, int]) -> Prediction:
    """Return boxes of 20 px at x in an image of 100 x 50 px, each with a class and confidence .9."""
    probs = np.zeros((len(objects), 2), dtype=np.float32)
    for row, (_, class_id) in enumerate(objects):
        probs[row, class_id] = 0.9
    boxes = np.array([[x, 0, x + 20, 20] for x, _ in objects], dtype=np.float32).reshape(-1, 4)
    return Prediction(100, 50, boxes, probs, probs.max(axis=1, initial=0.0), np.ones(2, dtype=np.float32))


def human(x: float, label: str) -> LabeledBox:
    """Return the same box as a label, with its centre and size as shares of the image."""
    return LabeledBox(label, ((x + 10) / 100, 0.2, 0.2, 0.4))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([human(0, "cat"), human(50, "dog")], 0.0),
        ([human(0, "cat"), human(50, "cat")], 0.5),
        ([human(0, "cat")], 1 / 3),
        ([human(0, "cat"), human(50, "dog"), human(70, "unheard of")], 0.2),
        ([], 1.0),
    ],
)
def test_disagreement_is_one_less_f1(boxes: list[LabeledBox], expected: float) -> None:
    assert round_value.disagreement(prediction((0, 0), (50, 1)), boxes, ("cat", "dog")) == pytest.approx(expected)


def test_an_empty_prediction_agrees_with_an_empty_label() -> None:
    assert round_value.disagreement(prediction(), [], ("cat",)) == 0.0


@pytest.fixture
def project(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with two versions and a scored pool of each."""
    context.store.save_project(ProjectRecord(7, CONFIG, "", "", "", ""))
    first = publish(context.store, 7, tiny_weights)
    child = replace(
        with_model(first, champion_metrics=Metrics(0.4, 0.2, {}, 12, 20, 30)),
        number=context.store.reserve_number(7),
        name="yolo11n-v2",
        parent=1,
        snapshot=TrainingSnapshot(7, "hash", dict.fromkeys(range(40), ""), tuple(range(30)), tuple(range(30, 40))),
    )
    context.store.publish(child, {"label": tiny_weights})
    for number, boxes in ((1, [(0, 0), (50, 1)]), (2, [(0, 0), (50, 0)])):
        context.store.pools.save_shard(7, number, PoolShard(0, IDS, (prediction(*boxes),) * 5), tag="label")
    return context


def test_signs_of_the_first_version_and_the_next(project: Context) -> None:
    (first,), (second,) = round_value.observe(project, 7, 1), round_value.observe(project, 7, 2)
    assert first.uncertainty == pytest.approx(0.469, abs=1e-3)  # h(.9) in bits
    assert first.stability is None
    assert second.stability == pytest.approx(0.5)
    assert project.store.state.signs(7) == (first, second)


def test_videos_have_their_sign_of_stability(project: Context) -> None:
    """The first version predicts an object in all frames, the next one in the first half: 2 · 25 of 75."""
    videos = (ROOT / "label_config/videorectangle.xml").read_text(encoding="utf-8")
    videos = videos.replace('name="box"', 'name="label"')
    project.store.save_project(ProjectRecord(7, videos, "", "", "", ""))
    for number, last in ((1, 50), (2, 25)):
        tracks = Tracks(np.array([1, last]), np.array([0, 0]), np.array([True, False]), 50, 25.0)
        video = replace(prediction((0, 0), (0, 0)), tracks=tracks, video_doubt=0.5)
        project.store.pools.save_shard(7, number, PoolShard(0, IDS, (video,) * 5), tag="label")
    (first,), (second,) = round_value.observe(project, 7, 1), round_value.observe(project, 7, 2)
    assert first.stability is None
    assert second.stability == pytest.approx(2 * 25 / 75)


def test_timelines_have_their_sign_of_stability(project: Context, tiny_weights: Path) -> None:
    """One version predicts both labels in all frames, the next one only one of them."""
    labels = (ROOT / "label_config/timelinelabels.xml").read_text(encoding="utf-8")
    labels = labels.replace('name="event"', 'name="label"')
    project.store.save_project(ProjectRecord(7, labels, "", "", "", ""))
    before = with_model(replace(project.store.version(7, 1), number=2), task="classify")
    for second in (0.9, 0.1):
        number = project.store.reserve_number(7)
        before = replace(before, number=number, name=f"yolo11n-v{number}", parent=before.number)
        project.store.publish(before, {"label": tiny_weights})
        tracks = Tracks(np.array([1, 6]), np.array([0, 0]), np.array([True, True]), 10, 25.0)
        probs = np.array([[0.8, second]] * 2, np.float32)
        video = replace(prediction((0, 0), (0, 0)), class_probs=probs, tracks=tracks)
        project.store.pools.save_shard(7, number, PoolShard(0, IDS, (video,) * 5), tag="label")
    (signs,) = round_value.observe(project, 7, before.number)
    assert signs.stability == pytest.approx(2 / 3)


def test_the_base_model_has_no_signs(project: Context) -> None:
    assert round_value.observe(project, 7, 0) == ()
    assert project.store.state.signs(7) == ()


def test_the_boxes_of_a_round_are_counted_and_compared(project: Context) -> None:
    value = {"x": 0, "y": 0, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    result = ({"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value},)
    tasks = [AnnotatedTask(Task(n, {}), n, "", result) for n in (10, 99)]
    (count, disagreed), (_, without_prediction) = round_value.labels_and_disagreement(
        project, project.store.version(7, 1), tasks
    )
    assert count == 1
    assert disagreed == pytest.approx(1 / 3)
    assert without_prediction is None


def test_a_gain_that_cannot_be_measured_is_no_reward(project: Context) -> None:
    version = project.store.version(7, 2)
    unmeasured = with_model(version, metrics=None), with_model(version, champion_metrics=None)
    for without_gain in (replace(version, parent=None), *unmeasured):
        assert round_value.reward(project, without_gain) is None


def test_a_gain_on_training_images_is_no_reward(project: Context) -> None:
    version = project.store.version(7, 2)
    overlapping = replace(version.snapshot, train_tasks=tuple(range(40)))
    assert round_value.reward(project, replace(version, snapshot=overlapping)) is None


def of_tag(
    name: str,
    map50: float,
    before: float | None,
    *,
    carried: bool = False,
    images: int = 12,
    gained: tuple[float, float] | None = None,
) -> TagModel:
    """Return a version's model for one tag, with its mAP50 and that of its champion (`before`)."""
    metrics = Metrics(map50, 0.2, {}, images, 20, 30, interval=(0.2, 0.8), gained=gained)
    champion = None if before is None else Metrics(before, 0.2, {}, 12, 20, 30)
    return TagModel(name, "detect", ("cat",), "1234", "yolo11n.pt", metrics, champion, {}, "", carried=carried)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], 0.1),  # the gain of the first tag: .5 after .4
        ([of_tag("kind", 0.9, 0.6)], 0.2),
        ([of_tag("kind", 0.9, 0.6, carried=True)], 0.05),  # that gain belongs to an earlier round
        ([of_tag("kind", 0.9, None)], 0.1),  # its first model has no gain
        ([of_tag("kind", 0.9, 0.6, images=3)], 0.1),
    ],
)
def test_the_gain_of_a_version_is_the_mean_over_its_tags(
    project: Context, others: list[TagModel], expected: float
) -> None:
    version = with_model(project.store.version(7, 2), *others)
    assert round_value.gain(version) == pytest.approx(expected)


def test_a_version_of_carried_models_has_no_gain_and_no_quality(project: Context) -> None:
    old = with_model(project.store.version(7, 2), carried=True)
    assert (round_value.gain(old), round_value.quality(old)) == (None, None)
    half = with_model(old, of_tag("kind", 0.9, 0.6))
    assert round_value.gain(half) == pytest.approx(0.15)
    assert round_value.quality(half) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], (0.0, 0.2)),
        ([of_tag("kind", 0.9, 0.6, gained=(0.2, 0.4))], (0.1, 0.3)),
        ([of_tag("kind", 0.9, 0.6, carried=True, gained=(0.2, 0.4))], (0.0, 0.1)),
        ([of_tag("kind", 0.9, 0.6)], None),  # a manifest of a release without intervals
    ],
)
def test_a_gain_has_an_interval(project: Context, others: list[TagModel], expected: tuple[float, float] | None) -> None:
    first = project.store.version(7, 2)
    metrics = first.models[0].metrics
    assert metrics is not None
    version = with_model(first, *others, metrics=replace(metrics, gained=(0.0, 0.2)))
    assert round_value.gain_interval(version) == (None if expected is None else pytest.approx(expected))


def test_the_recommendation_names_the_newest_quality_with_its_basis(project: Context, tiny_weights: Path) -> None:
    """The reason also names the interval, because a few held-out images say little."""
    before = project.store.version(7, 2)
    metrics = before.models[0].metrics
    assert metrics is not None
    before = with_model(before, metrics=replace(metrics, interval=(0.3, 0.7)))
    for number in range(3, 7):
        name = f"yolo11n-v{project.store.reserve_number(7)}"
        made = replace(before, number=number, name=name, parent=number - 1)
        project.store.publish(made, {"label": tiny_weights})
    (plateau,) = [sign for sign in round_value.recommendation(project, 7, budget=0).signs if sign.name == "plateau"]
    assert plateau.reason == (
        "the last 3 rounds changed mAP50 by +0.000; it is now 0.500 [0.300, 0.700] on 12 held-out images"
    )


@pytest.mark.label_studio
def test_a_round_of_labels_is_rewarded(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path
) -> None:
    """Version 3 gained .1 from two new labels; version 2 predicted one image right, the other with an extra box."""
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project_id = client.projects.create("rewards", CONFIG)
        client.http.send("POST", f"/api/projects/{project_id}/import", [{"image": f"{n}.png"} for n in range(5)])
        context.store.save_project(ProjectRecord(project_id, CONFIG, "", "", "", ""))
        tasks = [task.id for task in client.tasks.unlabeled(project_id)]
        tag = label_config.parse(CONFIG)[0]
        boxes = [[human(0, "cat"), human(50, "dog")], [human(0, "cat")], [human(0, "dog")]]
        annotations = [
            client.annotations.create(task, as_result(tag, labels)) for task, labels in zip(tasks, boxes, strict=False)
        ]
        stamps = client.annotations.stamps(project_id)
        first = publish(context.store, project_id, tiny_weights)
        old = TrainingSnapshot(project_id, "hash", {annotations[2]: stamps[annotations[2]]}, (tasks[2],), ())
        parent = replace(
            first, number=context.store.reserve_number(project_id), name="yolo11n-v2", parent=1, snapshot=old
        )
        context.store.publish(parent, {"label": tiny_weights})
        new = TrainingSnapshot(project_id, "hash", stamps, tuple(tasks[:3]), (999,))
        ours, theirs = (Metrics(0.5, 0.3, {}, 12, 20, 30, gained=(0.02, 0.2)), Metrics(0.4, 0.2, {}, 12, 20, 30))
        child = replace(
            with_model(parent, metrics=ours, champion_metrics=theirs),
            number=context.store.reserve_number(project_id),
            name="yolo11n-v3",
            parent=parent.number,
            snapshot=new,
        )
        context.store.publish(child, {"label": tiny_weights})
        shard = PoolShard(0, np.array(tasks[:2]), (prediction((0, 0), (50, 1)),) * 2)
        context.store.pools.save_shard(project_id, parent.number, shard, tag="label")
        pool, _ = context.store.pools.load_pool(project_id, parent.number, None, tag="label")
        order = ranking.rank(pool, "margin", explore_share=0.0, rng=np.random.default_rng(0))
        context.store.pools.save_ranking(project_id, parent.number, order)
        reward = round_value.reward(context, child)
        assert reward is not None
        assert (reward.version, reward.strategy, reward.images, reward.boxes) == (3, "margin", 2, 3)
        assert reward.gain == pytest.approx(0.1)
        assert (reward.interval, reward.judged_on) == ((0.02, 0.2), 12)
        assert reward.disagreement == pytest.approx((0 + 1 / 3) / 2)
        assert context.store.state.rewards(project_id) == (reward,)
        assert round_value.reward(context, replace(child, snapshot=replace(old, val_tasks=(999,)))) is None, (
            "no new label"
        )


def test_semantic_classes_are_compared_as_one_object(project: Context) -> None:
    """Two strokes of one class count as two labels of work, but the model predicts both as one right object."""
    brushes = CONFIG.replace("<RectangleLabels", '<BrushLabels model_semantic="true"').replace("Rectangle", "Brush")
    project.store.save_project(ProjectRecord(7, brushes, "", "", "", ""))
    strokes = np.zeros((2, 50, 100), dtype=np.bool_)
    strokes[0, :20, :10], strokes[1, :20, 10:20] = True, True  # side by side, in the 20 x 20 pixels of the prediction
    result = tuple(
        {
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": 100,
            "original_height": 50,
            "value": {"format": "rle", "rle": brush_rle.encode_rle(mask), "brushlabels": ["cat"]},
        }
        for mask in strokes
    )
    project.store.pools.save_shard(7, 1, PoolShard(0, np.array([10]), (prediction((0, 0)),)), tag="label")
    tasks = [AnnotatedTask(Task(10, {}), 10, "", result)]
    version = with_model(project.store.version(7, 1), task="semantic")
    assert round_value.labels_and_disagreement(project, version, tasks) == [(2, 0.0)]
    other = with_model(version, task="detect")  # a version from before the tag became semantic
    assert round_value.labels_and_disagreement(project, other, tasks) == [(2, None)]


def test_the_labels_of_all_tags_count_as_work(project: Context) -> None:
    both = CONFIG.replace("</View>", '<Choices name="kind" toName="image"><Choice value="day"/></Choices></View>')
    project.store.save_project(ProjectRecord(7, both, "", "", "", ""))
    box = {"x": 0, "y": 0, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    result = (
        {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": box},
        {"type": "choices", "from_name": "kind", "to_name": "image", "value": {"choices": ["day"]}},
    )
    [(count, disagreed)] = round_value.labels_and_disagreement(
        project, project.store.version(7, 1), [AnnotatedTask(Task(10, {}), 10, "", result)]
    )
    assert count == 2
    assert disagreed == pytest.approx(1 / 3)  # of the boxes alone


@pytest.mark.parametrize("turned", [0, 30, 90])
def test_a_turned_box_in_a_video_is_a_label(project: Context, turned: float) -> None:
    """It counts like a turned box in an image. Label Studio's editor does not store the size of a video."""
    videos = (ROOT / "label_config/videorectangle.xml").read_text(encoding="utf-8")
    (tag,) = label_config.parse(videos)
    project.store.save_project(ProjectRecord(7, videos, "", "", "", ""))
    key = {"x": 30, "y": 30, "width": 20, "height": 40, "rotation": turned, "enabled": True}
    value = {"sequence": [key | {"frame": 1}, key | {"frame": 9}], "labels": [tag.labels[0]]}
    drawn = {"type": "videorectangle", "from_name": tag.from_name, "to_name": tag.to_name, "value": value}
    tasks = [AnnotatedTask(Task(10, {}), 10, "", (drawn,))]
    [(count, _)] = round_value.labels_and_disagreement(project, project.store.version(7, 1), tasks)
    assert count == 2


def test_the_gain_of_a_second_tag_is_a_reason_to_go_on(project: Context, tiny_weights: Path) -> None:
    """The first tag's model is carried over for four versions, while the second's mAP50 grows."""
    before = with_model(project.store.version(7, 2), carried=True)
    for number, map50 in enumerate((0.5, 0.6, 0.7, 0.8), 3):
        kind = replace(of_tag("kind", map50, map50 - 0.1), sha256=file_sha256(tiny_weights))
        made = replace(
            with_model(before, kind),
            number=project.store.reserve_number(7),
            name=f"yolo11n-v{number}",
            parent=number - 1,
        )
        project.store.publish(made, {"label": tiny_weights, "kind": tiny_weights})
        project.store.state.save_signs(7, PoolSigns(number, uncertainty=0.5, stability=1.0, tag="label"))
    recommendation = round_value.recommendation(project, 7, budget=0)
    assert not [sign.name for sign in recommendation.signs if sign.met]
    assert "+0.150" in next(sign.reason for sign in recommendation.signs if sign.name == "plateau")


def test_a_tag_that_gets_its_first_model_is_no_sign_to_stop(project: Context, tiny_weights: Path) -> None:
    """The mean over the tags falls with it, and cannot be compared with the rounds of one tag."""
    before, sha256 = project.store.version(7, 2), file_sha256(tiny_weights)
    for number, map50 in enumerate((0.1, 0.2, 0.3), 3):
        made = replace(
            with_model(before, replace(of_tag("kind", map50, None), sha256=sha256)),
            number=project.store.reserve_number(7),
            name=f"yolo11n-v{number}",
            parent=number - 1,
        )
        project.store.publish(made, {"label": tiny_weights, "kind": tiny_weights})
    (plateau,) = [sign for sign in round_value.recommendation(project, 7, budget=0).signs if sign.name == "plateau"]
    assert not plateau.met
    assert plateau.reason.startswith("3 rounds are too few")


@pytest.mark.parametrize("carried", [True, False])
def test_a_model_that_was_not_trained_is_no_sign_to_stop(project: Context, tiny_weights: Path, carried: bool) -> None:
    """Three versions are as good as their parents and agree with them, because their model may be carried over."""
    before = project.store.version(7, 2)
    for number in range(3, 7):
        made = replace(
            with_model(before, carried=carried),
            number=project.store.reserve_number(7),
            name=f"yolo11n-v{number}",
            parent=number - 1,
        )
        project.store.publish(made, {"label": tiny_weights})
        project.store.state.save_signs(7, PoolSigns(number, uncertainty=0.5, stability=1.0, tag="label"))
    recommendation = round_value.recommendation(project, 7, budget=0)
    assert [sign.name for sign in recommendation.signs if sign.met] == ([] if carried else ["plateau", "stability"])


def test_the_status_shows_all_of_it(project: Context) -> None:
    record = ProjectRecord(7, CONFIG, '{"BANDIT": "ucb1", "BANDIT_ARMS": "entropy,margin", "BUDGET": 10}', "", "", "")
    project.store.save_project(record)
    # Of a release that did not record the number of held-out images.
    project.store.state.save_reward(7, Reward(1, "margin", 20, 100, 0.7, 0.25))
    project.store.state.save_reward(7, Reward(2, "entropy", 20, 100, 0.1, 0.25, judged_on=12, interval=(0.02, 0.2)))
    project.progress.remember(7, "ranking_error", "strategy 'bald' needs committee")
    out = status_schemas.project_out(project_status.status(project, 7))
    assert [arm.strategy for arm in out.bandit.arms] == ["entropy", "margin"]
    assert [(reward.gain, reward.interval) for reward in out.bandit.history] == [(None, None), (0.1, (0.02, 0.2))]
    assert [sign.name for sign in out.stopping.signs] == [
        "budget",
        "plateau",
        "uncertainty",
        "stability",
        "extrapolation",
    ]
    assert not out.stopping.stop
    assert "needs committee" in out.ranking_error
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(tables.status(project_status.status(project, 7)))
    text = console.export_text()
    assert "continue" in text
    assert "version 1: not judged yet" in text
    assert "version 2: mAP50 +0.100 [+0.020, +0.200] on 12 held-out images, 100 labels by entropy" in text


def test_the_table_of_strategies_leaves_nothing_out_on_80_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(tables.strategies([acquisition.get(name) for name in acquisition.names()]))
    shown = console.export_text()
    assert "…" not in shown
    words = " ".join(shown.replace("│", " ").split())
    for name in acquisition.names():
        strategy = acquisition.get(name)
        columns = (strategy.name, strategy.asks, strategy.cost, strategy.when, strategy.paper)
        assert all(text in words for text in columns)
