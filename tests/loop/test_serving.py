from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import LabelConfigError, MediaError, ModelError, SettingError
from backend.labelstudio import task_labels
from backend.loop import project_status, serving
from backend.loop.context import Context
from backend.loop.scoring import late_tasks, pool_ranking, push, scoring
from backend.loop.served_models import models_for
from backend.loop.serving import TaskResult
from backend.media.task_errors import answers_or_errors
from backend.store.store import ProjectRecord
from backend.types import Task
from tests.support import CLASSES, CONFIG, ImageSite, model_for, publish

URL = "http://backend.example:9090"


@pytest.fixture
def served(context: Context, tiny_weights: Path) -> Context:
    """Project 7 with a published and served version."""
    setup(context)
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    return context


def setup(context: Context, schema: str = CONFIG, extra_params: str = "", project: int = 7) -> ProjectRecord:
    return serving.setup(context, project, schema, "http://studio.example", extra_params, URL)


def predict(context: Context, *tasks: Task, project: int | None = 7, schema: str = CONFIG) -> list[TaskResult]:
    return serving.predict(context, project, schema, tasks)


# ── setup ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_setup_stores_the_project(context: Context) -> None:
    record = setup(context, extra_params='{"RETRAIN_EVERY": 5}')
    assert context.store.project(7) == record
    assert context.project_settings(record).retrain_every == 5
    context.store.save_project(replace(record, configured=URL))
    assert setup(context).configured == URL


@pytest.mark.parametrize(
    ("schema", "extra_params", "error", "message"),
    [
        ("<View/>", "", LabelConfigError, "no control tag"),
        ("not xml", "", LabelConfigError, "not XML"),
        ("", "", LabelConfigError, "empty"),
        (CONFIG, '{"RETRAIN_EVRY": 5}', SettingError, "unknown setting RETRAIN_EVRY.*RETRAIN_EVERY"),
        (CONFIG, '{"RETRAIN_EVERY": 0}', SettingError, "RETRAIN_EVERY=0"),
        (CONFIG, '{"LABEL_STUDIO_API_KEY": "x"}', SettingError, "unknown setting LABEL_STUDIO_API_KEY"),
        (CONFIG, "RETRAIN_EVERY=5", SettingError, "not JSON"),
        (CONFIG, "[5]", SettingError, "not a JSON object"),
        (CONFIG, '{"STRATEGY": "entropi"}', SettingError, "unknown strategy 'entropi'.*use one of .*class_entropy"),
        (CONFIG, '{"UNCERTAIN_SHARE": 1.5}', SettingError, "UNCERTAIN_SHARE=1.5.*allowed: number >= 0, <= 1"),
        (CONFIG, '{"POOL_LIMIT": -1}', SettingError, "POOL_LIMIT=-1.*allowed: whole number >= 0"),
        (CONFIG, '{"PROTOCOL": "datahunt"}', SettingError, "PROTOCOL.*allowed: top, datahunt1, datahunt2"),
        (CONFIG, '{"RATE": "100/week"}', SettingError, "RATE='100/week'.*0% to 100%.*100/day"),
        (CONFIG, '{"BANDIT": "ucb1", "BANDIT_ARMS": "entropy, entropi"}', SettingError, "unknown strategy 'entropi'"),
        (CONFIG, '{"COMMITTEE": "jury"}', SettingError, "COMMITTEE.*allowed: augmented, snapshots, perturbed"),
        (CONFIG, '{"COMMITTEE_SIZE": 1}', SettingError, "COMMITTEE_SIZE=1.*allowed: whole number >= 2, <= 8"),
        (CONFIG, '{"BANDIT": "ucb1", "BANDIT_ARMS": " ,"}', SettingError, "BANDIT_ARMS names no strategy"),
        (CONFIG, '{"BASE_MODEL": "other.pt"}', ModelError, "other.pt are not approved.*sha256sum other.pt"),
        (CONFIG, '{"BASE_MODEL": "../other.pt"}', ModelError, "not the plain name"),
        (CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="o.pt"'), "", ModelError, "sha256sum o.pt"),
        (
            CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="a/o.pt"'),
            "",
            LabelConfigError,
            "plain name",
        ),
    ],
)
def test_a_setup_that_is_refused_leaves_the_project_as_it_was(
    context: Context, schema: str, extra_params: str, error: type[Exception], message: str
) -> None:
    before = setup(context)
    with pytest.raises(error, match=message):
        setup(context, schema, extra_params)
    assert context.store.project(7) == before


def test_a_project_may_name_the_base_model_of_the_admin(context: Context) -> None:
    assert setup(context, extra_params='{"BASE_MODEL": "yolo11n.pt"}')


# ── predict ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_come_in_the_order_of_the_tasks(served: Context, images: ImageSite) -> None:
    tasks = [Task(n, {"image": images.add(f"{n}.png", n, (40 + n, 60))}) for n in (5, 3, 9, 1)]
    results = predict(served, *tasks)
    assert [result.regions[0]["original_width"] for result in results] == [45, 43, 49, 41]
    assert {result.version for result in results} == {"yolo11n-v1"}
    for task, result in zip(tasks, results, strict=True):
        assert predict(served, task)[0].score == result.score


def test_no_tasks(served: Context) -> None:
    assert predict(served) == []


def damaged(images: ImageSite, name: str, change: Callable[[bytes], bytes]) -> str:
    url = images.add(name, 3)
    path = images.folder / name
    path.write_bytes(change(path.read_bytes()))
    return url


BAD: dict[str, tuple[Callable[[ImageSite], dict[str, object]], str]] = {
    "404": (lambda site: {"image": f"{site.url}/missing.jpg"}, "404"),
    "unreachable": (lambda site: {"image": "http://127.0.0.1:1/a.jpg"}, "127.0.0.1:1"),
    "a text file named .jpg": (lambda site: {"image": damaged(site, "t.jpg", lambda _: b"just text")}, "not an image"),
    "an empty file": (lambda site: {"image": damaged(site, "e.jpg", lambda _: b"")}, ""),
    "a truncated JPEG": (lambda site: {"image": damaged(site, "c.jpg", lambda data: data[: len(data) // 2])}, ""),
    "no image field": (lambda site: {"text": "hello"}, ""),
    "no data": (lambda site: {}, ""),
    "image null": (lambda site: {"image": None}, ""),
    "image a number": (lambda site: {"image": 5}, ""),
    "a private host": (lambda site: {"image": "http://10.0.0.1/a.jpg"}, "10.0.0.1"),
    "a host that is no name": (lambda site: {"image": "http://xn--a/"}, "not a valid URL"),
    "a file that ends a line": (lambda site: {"image": f"{site.url}/\n2026 ERROR forged"}, "\\n2026 ERROR forged"),
    "a local file": (lambda site: {"image": "file:///etc/passwd"}, ""),
    "a cloud URI without Label Studio": (lambda site: {"image": "s3://bucket/a.jpg"}, ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_task_that_fails_is_last_and_leaves_its_neighbours_alone(
    served: Context, images: ImageSite, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    data, message = BAD[kind]
    good = [Task(1, {"image": images.add("1.png", 1)}), Task(3, {"image": images.add("3.png", 2)})]
    results = predict(served, good[0], Task(2, data(images)), good[1])
    assert results[1] == TaskResult((), 1.0, "yolo11n-v1")
    assert [results[0], results[2]] == predict(served, *good)
    assert all(result.regions and result.score < 1 for result in (results[0], results[2]))
    (reason,) = served.progress.failures(7).values()
    assert set(served.progress.failures(7)) == {2}
    assert message in reason
    assert reason in caplog.text


def test_a_failed_task_that_works_again_is_no_longer_listed(served: Context, images: ImageSite) -> None:
    task = Task(2, {"image": f"{images.url}/late.png"})
    predict(served, task)
    assert 2 in served.progress.failures(7)
    images.add("late.png")
    assert predict(served, task)[0].regions
    assert served.progress.failures(7) == {}


def test_a_cached_image_that_was_deleted_fails_alone(served: Context, images: ImageSite) -> None:
    files = [served.media.fetch(images.add(f"{n}.jpg", n)) for n in range(40)]
    record = served.store.project(7)
    assert record is not None
    model = model_for(served, record, accepted=False)
    expected = list(model.predict(files))
    for deleted in (0, 20, 39):
        files[deleted].path.unlink()
    answers = list(answers_or_errors(files, model.predict))
    assert [row for row, answer in enumerate(answers) if isinstance(answer, MediaError)] == [0, 20, 39]
    for answer, prediction in zip(answers, expected, strict=True):
        if not isinstance(answer, MediaError):
            np.testing.assert_allclose(answer.boxes, prediction.boxes, atol=0.1)


@pytest.mark.parametrize(
    ("name", "mode", "size", "shown"),
    [
        ("cmyk.jpg", "CMYK", (80, 60), (80, 60)),
        ("gray.jpg", "L", (80, 60), (80, 60)),
        ("alpha.png", "RGBA", (80, 60), (80, 60)),
        ("palette.gif", "P", (80, 60), (80, 60)),
        ("deep.png", "I;16", (80, 60), (80, 60)),
        ("turned.jpg", "EXIF", (80, 60), (60, 80)),
        ("dot.png", "RGB", (1, 1), (1, 1)),
        ("line.png", "RGB", (1, 300), (1, 300)),
    ],
)
def test_unusual_images_are_predicted(
    served: Context, images: ImageSite, name: str, mode: str, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    path = images.folder / name
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)
    elif mode == "EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6  # "rotate by 90 degrees to view"
        Image.fromarray(pixels).save(path, exif=exif)
    else:
        Image.fromarray(pixels).convert(mode).save(path)
    (result,) = predict(served, Task(1, {"image": f"{images.url}/{name}"}))
    assert served.progress.failures(7) == {}
    assert result.score < 1
    assert {(region["original_width"], region["original_height"]) for region in result.regions} <= {shown}


def test_tasks_scored_already_come_from_the_store(served: Context, images: ImageSite) -> None:
    tasks = [Task(n, {"image": images.add(f"{n}.png", n)}) for n in range(1, 7)]
    record = served.store.project(7)
    assert record is not None
    models = models_for(served, record, accepted=False)
    scoring.save_shards(served, models, scoring.predict_shards(served, models, 0, tasks[:4]))
    order = pool_ranking.rank_pool(served, record, models)
    scoring.save_shards(served, models, scoring.predict_shards(served, models, 1, tasks[4:5]))  # a late task
    by_id = {task.id: task for task in tasks}
    pushed = {row.task_id: row for row in push.prediction_rows(served, served.settings, models, order, by_id)}
    for path in images.folder.iterdir():
        path.unlink()  # stored predictions need no image
    for media in Path(served.settings.model_dir, "media").iterdir():
        media.unlink()
    results = predict(served, *tasks)
    assert results[5] == TaskResult((), 1.0, "yolo11n-v1")
    for task, result in zip(tasks[:4], results[:4], strict=True):
        assert result.score == pushed[task.id].score
        regions = [region.as_json() for region in pushed[task.id].regions]
        assert json.dumps(result.regions) == json.dumps(regions)
    late = served.store.pools.prediction(7, 1, 5, tag="label")
    assert results[4].regions
    assert [results[4].score] == late_tasks.priorities_in(served.settings, models[0], order, np.array([5]), [late])
    assert sorted(result.score for result in results[:4]) == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("project", [None, 8, 10**12])
def test_a_project_that_was_never_set_up_is_predicted(
    context: Context, images: ImageSite, tiny_weights: Path, project: int | None
) -> None:
    base = Path(context.settings.model_dir) / "yolo11n.pt"
    base.write_bytes(tiny_weights.read_bytes())  # the base model of the admin
    good, bad = predict(
        context, Task(-1, {"image": images.add("a.png")}), Task(-2, {"image": "nonsense"}), project=project
    )
    assert good.regions
    assert (good.version, good.score) == ("yolo11n-v0", 0.5)
    assert (bad.regions, bad.score) == ((), 1.0)
    assert context.store.project_ids() == ()


def test_regions_of_a_removed_label_are_left_out(served: Context, images: ImageSite) -> None:
    task = Task(1, {"image": images.add("a.png", 4)})

    def labels(schema: str) -> set[str]:
        (result,) = predict(served, task, schema=schema)
        return {label for region in result.regions for label in region["value"]["rectanglelabels"]}

    assert labels(CONFIG) == {"cat", "dog"}
    assert labels(CONFIG.replace('<Label value="dog"/>', "")) == {"cat"}


def test_a_request_cannot_open_weights_that_are_not_approved(context: Context, tiny_weights: Path) -> None:
    (Path(context.settings.model_dir) / "mine.pt").write_bytes(tiny_weights.read_bytes())
    schema = CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="mine.pt"')
    with pytest.raises(ModelError, match=r"not approved.*sha256sum mine\.pt >> weights\.sha256"):
        predict(context, Task(1, {"image": ""}), schema=schema)


def test_the_ignored_parts_of_a_label_config_are_in_the_status_and_the_log(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    bad = '<PolygonLabels name="outline" toName="image"/>'
    for _ in range(2):  # Label Studio calls /setup before each prediction
        serving.setup(context, 7, CONFIG.replace("</View>", bad + "</View>"), "", "", "")
    (warning,) = project_status.status(context, 7).warnings
    assert 'PolygonLabels "outline" has no labels' in warning
    assert caplog.text.count(warning) == 1
    serving.setup(context, 7, CONFIG, "", "", "")
    assert project_status.status(context, 7).warnings == ()


def test_a_task_is_answered_with_the_labels_that_it_names(
    context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    """A training has written the labels of all tasks into the stored label config; Label Studio does not know them."""
    config = CONFIG.replace('<Label value="cat"/><Label value="dog"/>', "").replace(
        'toName="image"', 'toName="image" value="$goods" model_score_threshold="0.01"'
    )
    tasks = [Task(number, {"image": images.add("a.png"), "goods": [name]}) for number, name in enumerate(CLASSES)]
    record = setup(context, config)
    context.store.save_project(replace(record, label_config=task_labels.learned(config, tasks)))
    context.store.activate(7, publish(context.store, 7, tiny_weights).number)
    assert setup(context, config).label_config != config
    for task, name in zip(tasks, CLASSES, strict=True):
        (result,) = predict(context, task, schema=config)
        assert {label for region in result.regions for label in region["value"]["rectanglelabels"]} <= {name}
    (result,) = predict(context, Task(9, {**tasks[0].data, "goods": [*CLASSES]}), schema=config)
    assert result.regions
