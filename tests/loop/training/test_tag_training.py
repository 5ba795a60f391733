"""Where a training starts, and its inputs; test_loop.py tests a whole training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.datasets.writer import LabeledImage, Split
from backend.labelstudio import label_config
from backend.loop.training import tag_training
from backend.loop.training.snapshot import TagPlan
from backend.loop.training.tag_training import Champion
from backend.media.video import Video
from backend.model_versions import TagModel, TrainingSnapshot
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import LabeledBox
from backend.yolo.frame_classifier import LabeledVideo
from tests.support import CONFIG, IMGSZ, ImageSite


@pytest.fixture
def labeled(images: ImageSite) -> tuple[LabeledImage, ...]:
    return halves(images)


def halves(images: ImageSite) -> tuple[LabeledImage, ...]:
    """Return twelve images with one label each; the tiny weights predict some of them right."""
    labeled = []
    for number in range(12):
        images.add(f"{number}.png", number)
        box = LabeledBox("cat" if number % 2 else "dog", (0.5, 0.5, 1.0, 1.0))
        labeled.append(LabeledImage(number, images.folder / f"{number}.png", (box,), random=True))
    return tuple(labeled)


def plan(split: Split) -> TagPlan:
    record = ProjectRecord(7, CONFIG, "", "", "", "")
    settings = Settings(imgsz=IMGSZ, device="cpu")
    return TagPlan(record, settings, label_config.parse(CONFIG)[0], TrainingSnapshot(7, "hash", {}, (), ()), split)


TIMELINE = (
    '<View><Video name="video" value="$video"/><TimelineLabels name="label" toName="video" {}>'
    '<Label value="cat"/><Label value="dog"/></TimelineLabels></View>'
)
MODEL = TagModel("label", "detect", ("cat", "dog"), "abc", "yolo11n.pt", None, None, {}, "published", learned=(0, 1, 2))


@pytest.mark.parametrize(
    ("before", "settings", "held", "continues"),
    [
        (MODEL, {}, 4, True),
        (MODEL, {}, 0, True),  # no task is held out
        (MODEL, {"train_from": "base"}, 4, False),
        (MODEL, {}, 2, False),  # task 2 is held out now
        (replace(MODEL, learned=None), {}, 4, False),  # a manifest of a release that did not record it
        (replace(MODEL, classes=("dog", "cat")), {}, 4, False),
        (replace(MODEL, base_model="yolo11s.pt"), {}, 4, False),
        (None, {}, 4, False),
    ],
)
def test_a_training_starts_from_a_champion_that_has_not_learned_from_a_held_out_task(
    labeled: tuple[LabeledImage, ...],
    before: TagModel | None,
    settings: dict[str, Any],
    held: int,
    continues: bool,
) -> None:
    split = Split(labeled[5:], labeled[held : held + 1] if held else labeled, held_out=held > 0)
    tag_plan = replace(plan(split), settings=Settings(imgsz=IMGSZ, device="cpu", **settings))
    champion = Champion(before, Path("weights.pt")) if before else None
    assert tag_training.continued_champion(tag_plan, champion, "yolo11n.pt") == (champion if continues else None)


BACKGROUND = LabeledImage(99, Path("99.png"), (), random=True)


def moved(image: LabeledImage) -> LabeledImage:
    return replace(image, boxes=(replace(image.boxes[0], xywh=(0.5, 0.5, 1.0, 0.99)),))


@pytest.mark.parametrize(
    ("change", "unchanged"),
    [
        (lambda tag_plan: tag_plan, True),
        (lambda tag_plan: replace(tag_plan, split=replace(tag_plan.split, train=tag_plan.split.train[::-1])), True),
        (lambda tag_plan: replace(tag_plan, settings=tag_plan.settings.model_copy(update={"tolerance": 0.5})), True),
        (lambda tag_plan: replace(tag_plan, tag=replace(tag_plan.tag, score_threshold=0.9)), True),
        (
            lambda tag_plan: replace(
                tag_plan, split=replace(tag_plan.split, train=(*tag_plan.split.train, BACKGROUND))
            ),
            False,
        ),
        (
            lambda tag_plan: replace(tag_plan, split=replace(tag_plan.split, val=(*tag_plan.split.val, BACKGROUND))),
            False,
        ),
        (lambda tag_plan: replace(tag_plan, split=replace(tag_plan.split, train=tag_plan.split.train[1:])), False),
        (
            lambda tag_plan: replace(
                tag_plan, split=replace(tag_plan.split, train=tuple(map(moved, tag_plan.split.train)))
            ),
            False,
        ),
        (lambda tag_plan: replace(tag_plan, settings=tag_plan.settings.model_copy(update={"imgsz": 96})), False),
        (
            lambda tag_plan: replace(tag_plan, settings=tag_plan.settings.model_copy(update={"train_from": "base"})),
            False,
        ),
        (lambda tag_plan: replace(tag_plan, tag=replace(tag_plan.tag, labels=("dog", "cat"))), False),
        (lambda tag_plan: replace(tag_plan, tag=replace(tag_plan.tag, multiple=True, task="classify")), False),
    ],
)
def test_the_labels_and_settings_of_a_champion_are_recognised(
    labeled: tuple[LabeledImage, ...], change: Callable[[TagPlan], TagPlan], unchanged: bool
) -> None:
    tag_plan = plan(Split(labeled[3:], labeled[:3], held_out=True))
    lesson = tag_training.lesson_hash(tag_plan, "yolo11n.pt")
    assert len(lesson) == 16
    champion = Champion(replace(MODEL, lesson=lesson), Path("weights.pt"))
    assert tag_training.is_trained_on_these_labels(change(tag_plan), champion, "yolo11n.pt") is unchanged


def test_the_lesson_of_an_lstm_depends_on_the_borders_of_segments(labeled: tuple[LabeledImage, ...]) -> None:
    """When a border moves, the sampled images of the video may stay the same."""
    tag_plan = plan(Split(labeled[3:], labeled[:3], held_out=True))
    (plain,) = label_config.parse(TIMELINE.format(""))
    (ordered,) = label_config.parse(TIMELINE.format('model_classifier_num_layers="1"'))
    (other,) = label_config.parse(TIMELINE.format('model_classifier_num_layers="2"'))
    clip = Video(Path("1.avi"), 160, 120, 25.0, 50)
    first, second = (
        LabeledVideo(1, clip, (LabeledBox("cat", (0.5, 0.5, 1.0, 1.0), frame=3, last=last),), 25) for last in (20, 21)
    )
    lessons = [
        tag_training.lesson_hash(replace(tag_plan, tag=tag, videos=videos), "yolo11n.pt")
        for tag, videos in ((plain, ()), (ordered, (first,)), (ordered, (second,)), (other, (first,)), (ordered, ()))
    ]
    assert len(set(lessons)) == 5
    assert tag_training.lesson_hash(replace(tag_plan, tag=plain, videos=(first,)), "yolo11n.pt") == lessons[0]


def test_labels_are_learned_if_no_manifest_says_that_they_were(labeled: tuple[LabeledImage, ...]) -> None:
    tag_plan = plan(Split(labeled[3:], labeled[:3], held_out=True))
    lesson = tag_training.lesson_hash(tag_plan, "yolo11n.pt")
    assert not tag_training.is_trained_on_these_labels(tag_plan, None, "yolo11n.pt")
    of_older_release, champion = (
        Champion(model, Path("weights.pt")) for model in (MODEL, replace(MODEL, lesson=lesson))
    )
    assert not tag_training.is_trained_on_these_labels(tag_plan, of_older_release, "yolo11n.pt")
    assert not tag_training.is_trained_on_these_labels(tag_plan, champion, "yolo11s.pt")


@pytest.mark.parametrize(
    ("config", "settings", "epochs"),
    [
        (CONFIG, {}, 300),
        (CONFIG.replace("<RectangleLabels", '<RectangleLabels model_classifier_epochs="many"'), {}, 300),
        (TIMELINE.format(""), {"max_epochs": 200}, 200),
        (TIMELINE.format('model_classifier_epochs="7"'), {"max_epochs": 200}, 7),  # under MIN_EPOCHS
        (TIMELINE.format('model_classifier_epochs="1000"'), {"max_epochs": 200}, 200),
        (TIMELINE.format('model_classifier_epochs="7" model_classifier_num_layers="1"'), {"max_epochs": 200}, 200),
    ],
)
def test_a_timeline_may_set_its_own_epochs(
    labeled: tuple[LabeledImage, ...], config: str, settings: dict[str, Any], epochs: int
) -> None:
    tag_plan = plan(Split(labeled, labeled, held_out=False))
    (tag,), own = label_config.parse(config), tag_plan.settings.model_copy(update=settings)
    assert tag_training.hyper_parameters_of(replace(tag_plan, tag=tag, settings=own)).epochs == epochs
