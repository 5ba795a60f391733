"""TILE: a training on tiles of large images, judged by the merged predictions of whole images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.loop.training import challenger_evaluation, tag_training, tile_images
from backend.loop.training.challenger_evaluation import Evaluation
from backend.loop.training.snapshot import TagPlan
from backend.yolo import evaluate, tiled_prediction, training
from backend.yolo.base_weights import BaseWeights
from backend.yolo.predictors import load_predictor
from backend.yolo.training import Trained
from tests import squares
from tests.loop.training.test_challenger_evaluation import never_left_out
from tests.loop.training.test_tag_training import plan
from tests.squares import IMGSZ, Learned

pytestmark = pytest.mark.torch

ACROSS, DOWN = 4, 3  # pictures in a large image


def large(folder: Path, task_id: int) -> LabeledImage:
    """Return many pictures of squares as one image; scaled to IMGSZ, a square has 4 to 7 pixels."""
    folder.mkdir(exist_ok=True)
    pictures = squares.squares(folder, ACROSS * DOWN, seed=task_id)
    width, height, boxes = ACROSS * IMGSZ, DOWN * IMGSZ, []
    pixels = np.zeros((height, width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        left, top = number % ACROSS * IMGSZ, number // ACROSS * IMGSZ
        pixels[top : top + IMGSZ, left : left + IMGSZ] = np.asarray(Image.open(picture.path))
        for box in picture.boxes:
            x, y, across, down = np.array(box.xywh) * IMGSZ
            xywh = ((left + x) / width, (top + y) / height, across / width, down / height)
            boxes.append(replace(box, xywh=xywh))
    Image.fromarray(pixels).save(folder / f"large-{task_id}.png")
    return LabeledImage(task_id, folder / f"large-{task_id}.png", tuple(boxes), random=True)


def plan_of(split: Split, tile: int) -> TagPlan:
    tag_plan = plan(split)
    settings = tag_plan.settings.model_copy(update={"imgsz": IMGSZ, "tile": tile})
    return replace(tag_plan, settings=settings, tag=replace(tag_plan.tag, labels=squares.CLASSES))


def learn(tag_plan: TagPlan, before: Learned, folder: Path, epochs: int) -> tuple[int, Evaluation]:
    """Continue a training; return the number of images and tiles, and the evaluation."""
    learned = tile_images.in_tiles(tag_plan, folder / "tiles")
    data_yaml = writer.write(learned.split, squares.CLASSES, folder / "data")
    base = BaseWeights(str(before.trained.weights), pretrained=True, note="")
    trained = training.train(data_yaml, base, squares.hyper(epochs), folder / "run", lambda _: None)
    evaluation = challenger_evaluation.evaluate_challenger(tag_plan, trained, None, data_yaml, never_left_out)
    return len(learned.split.train), evaluation


def test_small_objects_are_found_in_tiles_that_are_lost_in_the_scaled_image(learned: Learned, tmp_path: Path) -> None:
    split = Split((large(tmp_path, 1), large(tmp_path, 2)), (large(tmp_path, 3), large(tmp_path, 4)), held_out=True)
    images, whole = learn(plan_of(split, 0), learned, tmp_path / "whole", 18)
    parts, tiled = learn(plan_of(split, IMGSZ), learned, tmp_path / "tiled", 6)
    assert images == 2 < 30 < parts
    challenger = tiled.judgement.challenger
    assert challenger.map50 > 0.5 > 0.1 > whole.judgement.challenger.map50
    assert (challenger.images, challenger.boxes) == (2, 2 * 2 * ACROSS * DOWN)
    assert tiled.held_out is not None
    assert len(tiled.held_out[1].pictures) == 2


def test_a_prediction_in_tiles_is_of_the_whole_image(learned: Learned, tmp_path: Path) -> None:
    """The model has learned single pictures. In the scaled image it finds no square."""
    predictor = load_predictor(learned.trained.weights, IMGSZ, "cpu")
    image, small = large(tmp_path, 5), learned.split.val[0].path
    alone, tiled, again = tiled_prediction.predict(predictor, [small, image.path, small], IMGSZ)
    whole, alone_before = predictor.predict([image.path, small])
    assert (tiled.width, tiled.height) == (ACROSS * IMGSZ, DOWN * IMGSZ)
    for prediction in (alone, again):
        assert np.allclose(prediction.confidence, alone_before.confidence, atol=1e-4)
    assert np.allclose(tiled.embedding, whole.embedding, atol=1e-5)
    assert np.array_equal(tiled.thumbnail, whole.thumbnail)
    assert len(tiled.boxes) > 5 + len(whole.boxes)
    assert (tiled.boxes.max(axis=0)[2:] > [(ACROSS - 1) * IMGSZ, (DOWN - 1) * IMGSZ]).all()
    assert np.array_equal(tiled.confidence, np.sort(tiled.confidence)[::-1])
    assert np.array_equal(tiled.confidence, tiled.class_probs.max(axis=1))
    assert tiled.box_variance is not None
    assert tiled.box_embeddings is not None
    assert len(tiled.box_variance) == len(tiled.box_embeddings) == len(tiled.boxes)
    (untiled,) = tiled_prediction.predict(predictor, [image.path], 0)
    assert np.array_equal(untiled.boxes, whole.boxes)


def test_the_quality_in_tiles_is_that_of_ultralytics_where_no_image_needs_tiles(
    learned: Learned, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    held_out = squares.squares(tmp_path / "pictures", 40, seed=5)  # of a few boxes, the two ways to interpolate differ
    split = Split(learned.split.train, held_out, held_out=True)
    data_yaml = writer.write(split, squares.CLASSES, tmp_path / "data")
    champion = learned.trained.weights
    evaluation = challenger_evaluation.evaluate_challenger(
        plan_of(split, 100), learned.trained, champion, data_yaml, never_left_out
    )
    ours, theirs = evaluation.judgement.challenger, evaluate.evaluate(champion, data_yaml, IMGSZ, "cpu")
    assert evaluation.judgement.champion is not None
    assert evaluation.judgement.champion.map50 == ours.map50 == pytest.approx(theirs.map50, abs=0.02)
    assert ours.map50_95 == pytest.approx(theirs.map50_95, abs=0.05)
    assert ours.class_ap50 == pytest.approx(theirs.class_ap50, abs=0.05)
    assert (ours.images, ours.boxes) == (theirs.images, theirs.boxes)


def test_a_model_of_other_classes_is_judged_by_their_names(learned: Learned, tmp_path: Path) -> None:
    """A champion from before a label was added, and the labels came into another order."""
    tag_plan = plan_of(learned.split, 100)
    other = replace(tag_plan, tag=replace(tag_plan.tag, labels=("green", "blue", "red")))
    trained = Trained(learned.trained.weights, epochs=1, seconds=1.0, losses_finite=True)
    first, second = (
        challenger_evaluation.evaluate_challenger(judged, trained, None, learned.data_yaml, never_left_out).judgement
        for judged in (tag_plan, other)
    )
    assert first.challenger.class_ap50 == second.challenger.class_ap50


def test_a_version_says_in_which_tiles_it_learned(learned: Learned) -> None:
    """Another TILE is another lesson; no TILE is the lesson of a release that had no tiles."""
    lessons = {tile: tag_training.lesson_hash(plan_of(learned.split, tile), "yolo11n.pt") for tile in (0, 64, 128)}
    assert len(set(lessons.values())) == 3
    polygon = replace(plan_of(learned.split, 64), tag=replace(plan_of(learned.split, 64).tag, task="segment"))
    assert tile_images.in_tiles(polygon, Path("nowhere")) is polygon
