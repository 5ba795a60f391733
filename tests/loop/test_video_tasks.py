"""Tasks with a video through the whole loop: predicted, ranked, pushed to Label Studio, annotated, learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.errors import MediaError, ModelError, TrainingError
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.tasks import Tasks
from backend.loop import cycle, demands, serving
from backend.loop.context import Context
from backend.loop.review import label_verdicts, round_value
from backend.loop.scoring import pool_ranking, push, scoring, strategy_inputs, video_predictions
from backend.loop.served_models import ServedModel
from backend.loop.training import label_reading, snapshot, video_images
from backend.media import video
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from backend.store.shard_codec import PoolShard
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Json, Prediction, Task
from tests import clips
from tests.clips import Mover
from tests.support import CLASSES, ImageSite, model_for, open_context, publish, serve

LAX = " ".join(f'bytetrack_{key}="0.05"' for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh"))
CONFIG = (
    '<View><Labels name="labels" toName="video"><Label value="cat"/><Label value="dog"/></Labels>'
    '<Video name="video" value="$video" frameRate="25"/><VideoRectangle name="box" toName="video" '
    f'model_tracker="bytetrack" model_conf="0.05" model_score_threshold="0.05" {LAX}/></View>'
)
(TAG,) = label_config.parse(CONFIG)
MOVERS = [Mover("red", (0, 10), (2, 0), (40, 30)), Mover("blue", (100, 60), (-1, 0.5), (30, 40))]


def add(site: ImageSite, name: str, count: int = 12) -> str:
    clips.write(site.folder / name, MOVERS, count=count)
    return f"{site.url}/{name}"


def region(*keys: tuple[int, float, bool], label: str = "cat", name: str = "r1", count: int = 12) -> Json:
    sequence = [
        {"frame": frame, "x": x, "y": 10, "width": 20, "height": 20, "rotation": 0, "enabled": on, "time": frame / 25}
        for frame, x, on in keys
    ]
    value = {"framesCount": count, "duration": count / 25, "sequence": sequence, "labels": [label]}
    return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}


@pytest.fixture
def served(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with videos and a published and served version."""
    serving.setup(context, 7, CONFIG, "http://studio.example", "", "http://backend.example:9090")
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    return context


def model_of(context: Context) -> ServedModel:
    record = context.store.project(7)
    assert record is not None
    return model_for(context, record, accepted=False)


def predicted(context: Context, url: str) -> Prediction:
    ((prediction,),), reasons = scoring.predict_all(context, (model_of(context),), [Task(1, {"video": url})])
    assert prediction is not None, reasons
    return prediction


# Predict


def test_a_video_gets_regions_and_a_bad_one_is_listed_with_its_reason(served: Context, images: ImageSite) -> None:
    (images.folder / "bad.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(400))
    tasks = [
        Task(1, {"video": f"{images.url}/bad.mp4"}),
        Task(2, {"video": add(images, "a.avi")}),
        Task(3, {"video": images.add("image.png")}),
        Task(4, {}),
    ]
    bad, good, image, nothing = serving.predict(served, 7, CONFIG, tasks)
    assert {region["type"] for region in good.regions} == {"videorectangle"}
    assert tags.explain(TAG, good.regions) == ()
    assert tags.decode(TAG, good.regions)
    assert math.isfinite(good.score)
    for failed in (bad, image, nothing):
        assert (failed.regions, failed.score) == ((), push.LAST)
    failures = served.progress.failures(7)
    assert set(failures) == {1, 3, 4}
    assert "cannot be decoded" in failures[1]
    assert "not a video" in failures[3]


def test_the_reason_of_a_truncated_video_names_its_task(served: Context, images: ImageSite) -> None:
    """It does not name the cached file, neither for predictions nor for trainings."""
    path = images.folder / "broken.avi"
    clips.write(path, MOVERS, count=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    task = Task(5, {"video": f"{images.url}/broken.avi"})
    _, reasons = scoring.predict_all(served, (model_of(served),), [task])
    annotated = (AnnotatedTask(task, 5, "2026-01-01T00:00:00Z", (region((50, 0, True), count=60),)),)
    with pytest.raises(TrainingError):
        label_reading.labeled_images(served, 7, (TAG,), annotated, frozenset())
    for reason in (reasons[5], served.progress.failures(7)[5]):
        assert "breaks off after frame" in reason
        assert f"[task 5: {images.url}/broken.avi]" in reason
        assert str(served.work_dir) not in reason


def test_a_video_is_predicted_once_even_if_the_first_request_was_given_up(served: Context, images: ImageSite) -> None:
    url = add(images, "a.avi")
    first = predicted(served, url)
    clip = served.media.fetch_video(url)
    # Another prediction would have 7 frames.
    clips.write(images.folder / "other.avi", MOVERS, count=7).replace(clip.path)
    (answer,) = serving.predict(served, 7, CONFIG, [Task(1, {"video": url})])
    assert [dict(shown) for shown in answer.regions] == [
        encoded.as_json() for encoded in tags.encode(TAG, first, CLASSES, 0.05, "1/yolo11n-v1")
    ]
    for options in ({"model_conf": "0.06"}, {"model_iou": "0.6"}):
        tag = replace(TAG, attributes={**TAG.attributes, **options})
        prediction = video_predictions.predict_video(served, model_of(served), tag, Task(1, {"video": url}))
        assert prediction.tracks is not None
        assert prediction.tracks.length == 7


def test_a_video_is_counted_at_the_rate_of_its_task(served: Context, images: ImageSite) -> None:
    url, (tag,) = add(images, "a.avi"), label_config.parse(CONFIG.replace('"25"', '"$fps"'))
    for fps, length in ((25, 12), (50, 24), ("12.5", 6)):
        task = Task(1, {"video": url, "fps": fps})
        tracks = video_predictions.predict_video(served, model_of(served), tag, task).tracks
        assert tracks is not None
        assert (tracks.length, tracks.rate) == (length, float(fps))
        drawn = region((3, 0, True), count=length)
        drawn["value"]["duration"] = 12 / 25
        annotated = AnnotatedTask(task, 5, "2026-01-01T00:00:00Z", (drawn,))
        images_of_task = video_images.take(served, tag, annotated, random=False)
        assert [image.frame for image in images_of_task.images] == [3]
    slow = replace(annotated, task=Task(2, {"video": url, "fps": 5}))
    label_reading.labeled_images(served, 7, (tag,), (annotated, slow), frozenset())
    assert "was drawn at 12.5 frames per second, and the label config says 5" in served.progress.failures(7)[2]


def test_a_damaged_cache_file_is_predicted_again(served: Context, images: ImageSite) -> None:
    url = add(images, "a.avi")
    first = predicted(served, url)
    (cached,) = (served.work_dir / "watched").iterdir()
    cached.write_bytes(b"hello")
    np.testing.assert_array_equal(predicted(served, url).boxes, first.boxes)
    assert cached.stat().st_size > 100


def test_the_cached_predictions_of_old_versions_are_deleted(
    served: Context, images: ImageSite, tiny_weights: Path
) -> None:
    url, folder = add(images, "a.avi"), served.work_dir / "watched"
    for number, versions in ((1, {"1"}), (2, {"1", "2"}), (3, {"2", "3"})):
        if number > 1:
            publish(served.store, 7, tiny_weights)
            served.store.activate(7, number)
        predicted(served, url)
        assert {path.name.split("-")[1] for path in folder.iterdir()} == versions


def test_a_project_without_a_trained_version_answers_without_regions(context: Context, images: ImageSite) -> None:
    (result,) = serving.predict(context, None, CONFIG, [Task(1, {"video": add(images, "a.avi")})])
    assert result.regions == ()
    assert math.isfinite(result.score)


def test_the_store_keeps_the_tracks(served: Context, images: ImageSite) -> None:
    video_prediction = predicted(served, add(images, "a.avi"))
    assert video_prediction.tracks is not None
    assert len(video_prediction.tracks.frames)
    image = replace(video_prediction, tracks=None)
    nothing = replace(
        video_prediction,
        boxes=video_prediction.boxes[:0],
        class_probs=video_prediction.class_probs[:0],
        confidence=video_prediction.confidence[:0],
        tracks=replace(
            video_prediction.tracks,
            **{name: getattr(video_prediction.tracks, name)[:0] for name in ("frames", "objects", "enabled")},
        ),
    )
    for predictions in ((video_prediction, None, nothing, video_prediction), (image, image)):
        served.store.pools.clear(7, 1)
        served.store.pools.save_shard(7, 1, PoolShard(0, np.arange(len(predictions)), predictions), tag="label")
        for task, prediction in enumerate(predictions):
            stored = served.store.pools.prediction(7, 1, task, tag="label")
            encoded = [tags.encode(TAG, pred, CLASSES, 0.0, "k") for pred in (prediction, stored) if pred is not None]
            assert len(encoded) in (0, 2)
            assert encoded[::2] == encoded[1::2]


def test_a_video_is_fetched_once_and_checked(context: Context, images: ImageSite) -> None:
    url = add(images, "a.avi")
    clip = context.media.fetch_video(url)
    assert (clip.width, clip.height, clip.fps, clip.frames) == (160, 120, 25.0, 12)
    (images.folder / "a.avi").unlink()
    assert context.media.fetch_video(url) == clip


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (None, "the task has no video"),
        (" ", "the task has no video"),
        (["a.mp4"], "list is no video URL"),
        (" Data:video/mp4;base64,AAAA", "a data: URI, and a video is read from a file"),
    ],
)
def test_a_task_without_a_video_is_an_error(context: Context, uri: object, message: str) -> None:
    with pytest.raises(MediaError, match=message) as caught:
        context.media.fetch_video(uri, 5)
    assert "task 5" in caught.value.where
    assert "image" not in str(caught.value)


def test_a_video_with_too_many_pixels_is_refused(settings: Settings, images: ImageSite) -> None:
    url = add(images, "a.avi")
    with (
        open_context(settings.model_copy(update={"max_megapixels": 0.01})) as context,
        pytest.raises(MediaError, match=r"160x120 pixels are more than 0\.01 megapixels") as caught,
    ):
        context.media.fetch_video(url)
    assert caught.value.fix == "shrink the video or raise MAX_MEGAPIXELS"


def test_the_queue_goes_by_the_doubt_in_the_frames(served: Context, images: ImageSite) -> None:
    prediction = predicted(served, add(images, "a.avi"))
    assert prediction.thumbnail.shape == (192,)
    assert prediction.video_doubt is not None
    assert prediction.video_doubt > 0
    predictions = (prediction, None, replace(prediction, video_doubt=9.0), replace(prediction, video_doubt=0.01))
    served.store.pools.save_shard(7, 1, PoolShard(0, np.arange(4), predictions), tag="label")
    pool, failed = served.store.pools.load_pool(7, 1, None, tag="label")
    assert failed == (1,)
    assert pool.columns["video_doubt"] == pytest.approx([prediction.video_doubt, 9.0, 0.01])
    record = served.store.project(7)
    assert record is not None
    plain = pool_ranking.rank_pool(
        served, replace(record, extra_params='{"STRATEGY": "class_entropy"}'), (model_of(served),)
    )
    assert dict(zip(plain.task_ids.tolist(), plain.acquisition.tolist(), strict=True)) == pytest.approx(
        {0: prediction.video_doubt, 2: 9.0, 3: 0.01}
    )
    order = pool_ranking.rank_pool(served, record, (model_of(served),))  # the values of the default strategy are ranks
    doubts = np.array([prediction.video_doubt, 9.0, 0.01])
    assert np.argsort(-order.acquisition).tolist() == np.argsort(-doubts).tolist()


def test_the_frames_to_label_first(served: Context, images: ImageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = predicted(served, add(images, "a.avi", count=40))
    assert prediction.doubted_frames is not None
    assert 1 <= len(prediction.doubted_frames) <= 2
    served.store.pools.save_shard(7, 1, PoolShard(0, np.array([1, 2]), (prediction, None)), tag="label")
    monkeypatch.setattr(Tasks, "get", lambda tasks, task_id: Task(task_id, {}))
    with serve(served) as client:
        assert client.get("/api/projects/7/frames/1").json() == prediction.doubted_frames.tolist()
        for path, message in (("7/frames/2", "task 2 is not a video"), ("8/frames/1", "project 8 was never set up")):
            answer = client.get(f"/api/projects/{path}")
            assert answer.status_code == 404
            assert message in answer.text


def test_the_reason_of_a_training_stays_when_the_labeled_task_is_predicted(served: Context, images: ImageSite) -> None:
    task = Task(1, {"video": add(images, "a.avi")})
    for labeled, failures in ((True, {1: "no key frame"}), (False, {})):
        served.progress.note_failures(7, [], {1: "no key frame"})
        scoring.predict_shards(served, [model_of(served)], 0, [task], labeled=labeled)
        assert served.progress.failures(7) == failures


# Functions for single images skip videos


def test_a_committee_does_not_vote_on_videos(served: Context) -> None:
    record = served.store.project(7)
    assert record is not None
    with pytest.raises(ModelError, match="this project's tasks are videos"):
        strategy_inputs.committee(served, record, model_of(served))


def test_boxes_of_many_frames_are_not_compared_as_one_image(
    served: Context, images: ImageSite, tiny_weights: Path
) -> None:
    prediction = predicted(served, add(images, "a.avi"))
    drawn = (region((1, 10, True)),)
    annotated = AnnotatedTask(Task(1, {}), 1, "2026-01-01T00:00:00Z", drawn)
    assert label_verdicts.labels_and_predictions(TAG, CLASSES, annotated, prediction) is None
    first = served.store.version(7, 1)
    second = replace(first, number=served.store.reserve_number(7), name="yolo11n-v2", parent=1)
    served.store.publish(second, {"label": tiny_weights})
    for number in (1, 2):
        served.store.pools.save_shard(7, number, PoolShard(0, np.array([1]), (prediction,)), tag="label")
    ((_, disagreed),) = round_value.labels_and_disagreement(served, first, [annotated])
    (signs,) = round_value.observe(served, 7, 2)
    assert (disagreed, signs.stability) == (None, 1.0), "a version and its parent are compared in the same frames"
    assert signs.uncertainty is not None


# Train


def test_a_training_gets_the_key_frames(context: Context, images: ImageSite) -> None:
    url = add(images, "a.avi")
    drawn = [region((1, 0, True), (9, 20, False)), region((5, 60, True), (99, 60, True), label="dog", name="r2")]
    drawn.append(region(label="dog", name="r3"))
    (images.folder / "bad.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(400))
    annotated = [
        AnnotatedTask(Task(number, {"video": address}), number, "2026-01-01T00:00:00Z", result)
        for number, address, result in (
            (1, url, tuple(drawn)),
            (2, f"{images.url}/404.mp4", ()),
            (3, url, ()),
            (4, f"{images.url}/bad.mp4", tuple(drawn)),
        )
    ]
    (read,) = label_reading.labeled_images(context, 7, (TAG,), tuple(annotated), frozenset({1}))
    assert [(image.task_id, image.frame, image.name, image.random) for image in read.images] == [
        (1, 1, "1-1", True),
        (1, 5, "1-5", True),
        (1, 9, "1-9", True),
    ]
    assert [[box.label for box in image.boxes] for image in read.images] == [["cat"], ["cat", "dog"], ["cat", "dog"]]
    failures = context.progress.failures(7)
    assert set(failures) == {1, 2, 3, 4}
    assert "left out of training: the video cannot be decoded" in failures[4]
    assert "region r3 has no key frame; frames past the end of the video, which has 12: 99" in failures[1]
    assert "nothing is drawn in the video" in failures[3]
    for image in read.images:
        expected = next(video.frames(context.media.fetch_video(url), [image.frame], 25))
        np.testing.assert_array_equal(np.asarray(Image.open(image.path))[:, :, ::-1], expected)


@pytest.mark.parametrize("size", [{}, {"original_width": None}, {"original_width": 0, "original_height": "120"}])
def test_a_turned_box_that_an_annotator_drew_is_learned(context: Context, images: ImageSite, size: Json) -> None:
    """In Label Studio's editor people can turn boxes, and it does not store the size of the video."""
    drawn = region((1, 50, True), (9, 50, False))
    for key in drawn["value"]["sequence"]:
        key["rotation"] = 90
    assert "original_width" not in drawn
    result = (drawn | size,)
    annotated = (AnnotatedTask(Task(1, {"video": add(images, "a.avi")}), 1, "2026-01-01T00:00:00Z", result),)
    (read,) = label_reading.labeled_images(context, 7, (TAG,), annotated, frozenset())
    assert context.progress.failures(7) == {}
    assert [image.frame for image in read.images] == [1, 9]
    (box,) = read.images[0].boxes
    x, y, width, height = (drawn["value"]["sequence"][0][name] for name in ("x", "y", "width", "height"))
    turned = (height * 120 / 160, width * 160 / 120)
    assert box.xywh == pytest.approx(np.array([x - turned[0] / 2, y + turned[1] / 2, *turned]) / 100)


@pytest.mark.parametrize(("size", "videos"), [("", 0), ('model_classifier_hidden_size="8"', 2)])
def test_an_lstm_gets_whole_videos(context: Context, images: ImageSite, size: str, videos: int) -> None:
    (tag,) = label_config.parse(
        '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="event" toName="video" '
        f'{size}><Label value="cat"/></TimelineLabels></View>'
    )
    value = {"ranges": [{"start": 2, "end": 7}], "timelinelabels": ["cat"]}
    drawn = {"id": "r", "type": "timelinelabels", "from_name": "event", "to_name": "video", "value": value}
    urls = [add(images, f"{name}.avi") for name in "ab"]
    annotated = tuple(
        AnnotatedTask(Task(number, {"video": url}), number, "2026-01-01T00:00:00Z", result)
        for number, (url, result) in enumerate(
            [(urls[0], (drawn,)), (urls[1], ()), (f"{images.url}/404.avi", (drawn,))], start=1
        )
    )
    (read,) = label_reading.labeled_images(context, 7, (tag,), annotated, frozenset())
    assert {image.task_id for image in read.images} == {1, 2}
    assert [video.task_id for video in read.videos] == [1, 2][:videos]
    if videos:
        first, second = read.videos
        assert [(segment.label, segment.frame, segment.last) for segment in first.segments] == [("cat", 2, 7)]
        assert second.segments == ()
        assert first.video == context.media.fetch_video(urls[0])


def test_frames_of_one_video_have_different_names_in_a_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    box = tags.decode(TAG, [region((1, 10, True))])
    stills = tuple(LabeledImage(7, tmp_path / "still.png", box, random=True, frame=frame) for frame in (1, 5))
    writer.write(Split(stills, stills, held_out=False), CLASSES, tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data/images/train").iterdir()) == ["7-1.png", "7-5.png"]
    assert sorted(path.name for path in (tmp_path / "data/labels/train").iterdir()) == ["7-1.txt", "7-5.txt"]


# Through Label Studio


@dataclass(frozen=True)
class Studio:
    """A project with three videos, one of them damaged, and a version that detects objects."""

    context: Context
    project: int


@pytest.fixture
def studio(
    label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path, images: ImageSite
) -> Iterator[Studio]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("videos", CONFIG)
        (images.folder / "bad.mp4").write_bytes(b"hello")
        urls = [add(images, "a.avi"), add(images, "b.avi", count=20), f"{images.url}/bad.mp4"]
        client.http.send("POST", f"/api/projects/{project}/import", [{"video": url} for url in urls])
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        publish(context.store, project, tiny_weights)
        yield Studio(context, project)


@pytest.mark.label_studio
@pytest.mark.parametrize("trained", [True, False])
def test_labels_start_a_training_unless_the_training_of_the_tag_is_switched_off(studio: Studio, trained: bool) -> None:
    context, client = studio.context, studio.context.label_studio
    config = (
        '<View><Video name="video" value="$video"/><TimelineLabels name="event" toName="video" '
        f'model_trainable="{str(trained).lower()}"><Label value="cat"/></TimelineLabels></View>'
    )
    project = client.projects.create("timeline", config)
    client.http.send("POST", f"/api/projects/{project}/import", [{"video": "http://video.example/a.mp4"}])
    context.store.save_project(ProjectRecord(project, config, '{"RETRAIN_EVERY": 1}', "", "", ""))
    (task,) = client.tasks.unlabeled(project)
    client.annotations.create(task.id, [])
    assert demands.is_due(context, project) is trained


@pytest.mark.label_studio
def test_predicted_corrected_and_learned(studio: Studio, redis: Redis) -> None:
    context, project, client = studio.context, studio.project, studio.context.label_studio
    tasks = {task.id: str(task.data["video"])[-5:] for task in client.tasks.unlabeled(project)}
    assert scoring.start(context, Jobs(redis), project) == 3
    current = context.progress.scoring(project)
    assert current is not None
    assert scoring.score_shard(context, project, current.run, 0, False, list(tasks)) == 1
    assert cycle.rank_push_and_flip(context, project, 1) == push.Pushed("yolo11n-v1", created=3, failed=1)
    assert client.projects.get(project).model_version == "yolo11n-v1"
    stored = {tasks[task]: prediction for task in tasks for prediction in client.predictions.of_task(task)}
    scores = [stored[name].score for name in ("a.avi", "b.avi", "d.mp4")]
    assert sorted(score for score in scores[:2] if score is not None) == pytest.approx([1 / 3, 2 / 3])
    assert scores[2] == push.LAST
    assert not stored["d.mp4"].result
    regions = stored["b.avi"].result
    assert {track["type"] for track in regions} == {"videorectangle"}
    assert {track["value"]["framesCount"] for track in regions} == {20}

    for task, name in tasks.items():
        if name != "d.mp4":
            client.annotations.create(task, list(map(dict, stored[name].result[:2])))
    (plan,) = snapshot.take(context, project, lambda: None).plans.values()
    assert set(plan.snapshot.train_tasks) == {task for task, name in tasks.items() if name != "d.mp4"}
    learned = {image.frame for image in plan.split.train if tasks[image.task_id] == "b.avi"}
    assert learned == {key["frame"] for drawn in regions[:2] for key in drawn["value"]["sequence"]}
