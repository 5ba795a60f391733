"""Choices and Taxonomy: read, written, learned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend import classifying, dataset, evaluation, label_config, tags, training
from backend.classifying import Classifier, load_predictor
from backend.dataset import LabeledImage, Split
from backend.errors import LabelConfigError, MediaError, ModelError
from backend.inference import load_detector
from backend.pretrained import BaseWeights
from backend.tags.choices import WHOLE
from backend.training import Hyper
from backend.types import ControlTag, LabeledBox, Prediction

IMGSZ = 32
SCRATCH = BaseWeights("yolo11n-cls.yaml", pretrained=False, note="", task="classify")
LABELS = ("red", "blue", "a/b: c")  # no folder could have such a name
COLOURS = ((220, 40, 40), (50, 60, 230), (40, 200, 60))
TAG = ControlTag(
    kind="choices",
    from_name="choice",
    to_name="image",
    data_key="image",
    labels=LABELS,
    class_to_label={name: name for name in LABELS},
    task="classify",
)
MANY = dataclasses.replace(TAG, multiple=True)
TREE = dataclasses.replace(MANY, kind="taxonomy", labels=("A", "A > B", "A > B > C"), class_to_label={"cat": "A > B"})


def result(chosen: Any, kind: str = "choices", **item: Any) -> dict[str, Any]:
    base = {"id": "r1", "type": kind, "from_name": "choice", "to_name": "image", "value": {kind: chosen}}
    return base | item


def prediction(*probs: float, n: int = 1) -> Prediction:
    return Prediction(
        width=40,
        height=30,
        boxes=np.tile(np.array([0, 0, 40, 30], np.float32), (n, 1)),
        class_probs=np.tile(np.array(probs, np.float32), (n, 1)),
        confidence=np.full(n, max(probs), np.float32),
        embedding=np.zeros(2, np.float32),
    )


def pictures(folder: Path, count: int, seed: int, multiple: bool = False) -> tuple[LabeledImage, ...]:
    """Draw noise with a square in the colour of each class that the picture has."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    images = []
    for task_id in range(seed * 100, seed * 100 + count):
        pixels = rng.normal(120, 10, (30, 40, 3)).clip(0, 255).astype(np.uint8)
        chosen = np.flatnonzero(rng.random(3) < 0.5) if multiple else [task_id % 3]
        for index in chosen:
            top = int(rng.integers(2, 16))
            pixels[top : top + 12, 2 + 12 * index : 13 + 12 * index] = COLOURS[index]
        path = folder / f"{task_id}.png"
        Image.fromarray(pixels).save(path)
        images.append(LabeledImage(task_id, path, tuple(LabeledBox(LABELS[index], WHOLE) for index in chosen), True))
    return tuple(images)


# Configs


def config(inside: str, control: str = "Choices", attributes: str = "", beside: str = "") -> str:
    return (
        f'<View><Image name="image" value="$image"/><{control} name="choice" toName="image" {attributes}>{inside}'
        f"</{control}>{beside}</View>"
    )


@pytest.mark.parametrize(
    ("attributes", "multiple"), [("", False), ('choice="single-radio"', False), ('choice="multiple"', True)]
)
def test_choices_are_a_classification(attributes: str, multiple: bool) -> None:
    text = config(
        '<Choice value="Cat"/><Choice value="Dog" alias="d" predicted_values="poodle"/>', "Choices", attributes
    )
    (tag,) = label_config.parse(text)
    assert (tag.task, tag.multiple, tag.labels) == ("classify", multiple, ("Cat", "d"))
    assert tag.class_to_label == {"cat": "Cat", "dog": "d", "d": "d", "poodle": "d"}


def test_the_labels_of_a_taxonomy_are_paths() -> None:
    inside = '<Choice value="A"><Choice value="B" predicted_values="cat"/></Choice><Choice value="C" alias="c"/>'
    (tag,) = label_config.parse(config(inside, "Taxonomy"))
    assert (tag.task, tag.multiple, tag.labels) == ("classify", True, ("A", "A > B", "c"))
    assert tag.class_to_label["cat"] == "A > B"
    assert not label_config.parse(config(inside, "Taxonomy", 'maxUsages="1"'))[0].multiple


def test_a_name_that_looks_like_a_path_is_refused() -> None:
    with pytest.raises(LabelConfigError, match="stands between the names of a path"):
        label_config.parse(config('<Choice value="A > B"/>', "Taxonomy"))


BOXES = '<RectangleLabels name="label" toName="image"><Label value="x"/></RectangleLabels>'


def test_boxes_come_before_choices() -> None:
    found = label_config.parse(config('<Choice value="a"/>', beside=BOXES))
    assert [tag.kind for tag in found] == ["rectanglelabels", "choices"]


@pytest.mark.parametrize(
    "text",
    [
        config('<Choice value="a"/>', attributes='perRegion="true"', beside=BOXES),
        config("", attributes='value="$options"', beside=BOXES),
        config('<Choice value="a"/>', beside=BOXES).replace('name="choice" toName="image"', 'name="c" toName="text"'),
    ],
)
def test_choices_about_other_things_are_left_alone(text: str) -> None:
    assert [tag.kind for tag in label_config.parse(text)] == ["rectanglelabels"]


# Answers


def test_the_likeliest_label_answers() -> None:
    (sent,) = tags.encode(TAG, prediction(0.3, 0.6, 0.1), LABELS, 0.5, "7")
    assert sent.as_json()["value"] == {"choices": ["blue"]}
    assert sent.kind == "choices"
    assert sent.score == pytest.approx(0.6)
    assert tags.encode(TAG, prediction(0.3, 0.4, 0.3), LABELS, 0.5, "7") == ()


def test_only_classes_with_a_label_answer() -> None:
    (sent,) = tags.encode(TAG, prediction(0.7, 0.2, 0.1), ("zebra", "Red", "x"), 0.1, "7")
    assert sent.value == {"choices": ["red"]}


def test_all_labels_over_the_threshold_answer_where_several_may() -> None:
    (sent,) = tags.encode(MANY, prediction(0.6, 0.9, 0.1), LABELS, 0.5, "7")
    assert sent.value == {"choices": ["blue", "red"]}
    assert sent.score == pytest.approx(0.6)


def test_a_taxonomy_is_answered_with_paths() -> None:
    (sent,) = tags.encode(TREE, prediction(0.6, 0.9), ("A", "A > B"), 0.5, "7")
    assert (sent.kind, sent.value) == ("taxonomy", {"taxonomy": [["A", "B"], ["A"]]})
    (sent,) = tags.encode(TREE, prediction(0.9), ("Cat",), 0.5, "7")
    assert sent.value == {"taxonomy": [["A", "B"]]}


@pytest.mark.parametrize("n", [0, 2])
def test_a_model_of_objects_does_not_answer(n: int) -> None:
    assert tags.encode(TAG, prediction(0.9, 0.1, 0.1, n=n), LABELS, 0.5, "7") == ()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.sampled_from([TAG, MANY, TREE]))
def test_decode_undoes_encode(probs: list[float], tag: ControlTag) -> None:
    sent = [json.loads(json.dumps(one.as_json())) for one in tags.encode(tag, prediction(*probs), tag.labels, 0.5, "k")]
    above = {label for label, score in zip(tag.labels, probs, strict=True) if score >= 0.5}
    found = [box.label for box in tags.decode(tag, sent)]
    assert set(found) == above if tag.multiple else (len(found) == bool(above) and set(found) <= above)
    assert tags.explain(tag, sent) == ()


def test_two_choices_are_two_labels_of_the_whole_image() -> None:
    assert tags.decode(TAG, [result(["red", "blue"])]) == (LabeledBox("red", WHOLE), LabeledBox("blue", WHOLE))


@pytest.mark.parametrize(
    ("tag", "item", "reason"),
    [
        (TAG, result(["green"]), "the label 'green', which is not in the label config"),
        (TAG, result([]), "has no label"),
        (TAG, result(None), "has no label"),
        (TAG, result(["red"], value=None), "has no label"),
        (TREE, result([["A", "Z"]], "taxonomy"), "'A > Z', which is not in the label config"),
        (TREE, result(["Z"], "taxonomy"), "not in the label config"),
        (TREE, result([], "taxonomy"), "has no label"),
        (TREE, result([], "taxonomy", value=None), "has no label"),
    ],
)
def test_what_is_left_out_is_explained(tag: ControlTag, item: dict[str, Any], reason: str) -> None:
    assert tags.decode(tag, [item]) == ()
    (explained,) = tags.explain(tag, [item])
    assert reason in explained


# Learning


def train(
    split: Split, folder: Path, multiple: bool, epochs: int, labels: tuple[str, ...] = LABELS
) -> tuple[Path, Path, float]:
    data_yaml = dataset.write(split, labels, folder / "data", "classify", {"multiple": multiple})
    hyper = Hyper(epochs=epochs, batch=8, imgsz=IMGSZ, seed=0, device="cpu")
    trained = training.train(data_yaml, SCRATCH, hyper, folder / "run", lambda _: None)
    assert trained.losses_finite
    return trained.weights, data_yaml, trained.seconds


@pytest.fixture(scope="module")
def briefly(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights after one epoch, and their data set."""
    folder = tmp_path_factory.mktemp("briefly")
    images = pictures(folder / "pictures", 8, seed=1)
    empty = LabeledImage(7, images[0].path, (), random=True)
    weights, data_yaml, _ = train(Split((*images, empty), images[:4], held_out=True), folder, False, epochs=1)
    return weights, data_yaml


def test_labels_are_class_numbers(briefly: tuple[Path, Path]) -> None:
    paths, labels = classifying.read_part(briefly[1], "train")
    assert [int(path.stem) for path in paths] == sorted([7, *range(100, 108)], key=str)
    assert dict(zip((path.stem for path in paths), labels, strict=True))["7"] == ()
    assert dict(zip((path.stem for path in paths), labels, strict=True))["101"] == (101 % 3,)


def test_a_classifier_keeps_the_contract(briefly: tuple[Path, Path]) -> None:
    classifier = load_predictor(briefly[0], IMGSZ, "cpu")
    assert isinstance(classifier, Classifier)
    assert classifier.classes == LABELS
    paths, _ = classifying.read_part(briefly[1], "train")
    found = list(classifier.predict(paths))
    assert len(found) == len(paths)
    for one in found:
        assert (one.width, one.height) == (40, 30)
        assert one.boxes.tolist() == [[0, 0, 40, 30]]
        assert one.class_probs.shape == (1, 3)
        assert float(one.class_probs.sum()) == pytest.approx(1, abs=1e-5)
        assert one.confidence == pytest.approx(one.class_probs.max())
        assert one.embedding.shape == (1280,)
        assert one.thumbnail.shape == (192,)
    (alone,) = classifier.predict(paths[3:4])
    np.testing.assert_allclose(alone.class_probs, found[3].class_probs, atol=1e-5)
    assert list(classifier.predict([])) == []


def test_a_file_that_is_no_image_is_named(briefly: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("not an image")
    with pytest.raises(MediaError, match=r"x\.png"):
        list(load_predictor(briefly[0], IMGSZ, "cpu").predict([tmp_path / "x.png"]))


def test_a_classifier_finds_no_objects(briefly: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="finds no objects"):
        load_detector(briefly[0], IMGSZ, "cpu")


def test_classes_are_matched_by_name(briefly: tuple[Path, Path], tmp_path: Path) -> None:
    images = pictures(tmp_path / "pictures", 6, seed=2)
    split = Split(images, images, held_out=False)
    before = evaluation.evaluate(briefly[0], dataset.write(split, LABELS, tmp_path / "a", "classify"), IMGSZ, "cpu")
    other = dataset.write(split, ("new", *LABELS[::-1]), tmp_path / "b", "classify")
    assert evaluation.evaluate(briefly[0], other, IMGSZ, "cpu") == before
    assert (before.images, before.boxes, set(before.class_ap50)) == (6, 6, set(LABELS))


@pytest.mark.slow
def test_one_class_of_an_image_is_learned(tmp_path: Path) -> None:
    split = Split(pictures(tmp_path / "p", 36, seed=3), pictures(tmp_path / "p", 12, seed=4), held_out=True)
    weights, data_yaml, seconds = train(split, tmp_path, False, epochs=30)
    metrics = evaluation.evaluate(weights, data_yaml, IMGSZ, "cpu")
    print(f"top-1 {metrics.map50:.3f}, {seconds:.0f} s")
    assert metrics.map50 > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("tag", [MANY, dataclasses.replace(TREE, labels=("A", "A > B", "C"))], ids=lambda tag: tag.kind)
def test_several_classes_of_an_image_are_learned(tag: ControlTag, tmp_path: Path) -> None:
    learned, held = (
        named(pictures(tmp_path / "p", count, seed, multiple=True), tag) for count, seed in ((40, 5), (24, 6))
    )
    weights, data_yaml, seconds = train(Split(learned, held, held_out=True), tmp_path, True, 50, tag.labels)
    metrics = evaluation.evaluate(weights, data_yaml, IMGSZ, "cpu")
    print(f"{tag.kind}: mean average precision {metrics.map50:.3f}, {seconds:.0f} s")
    assert metrics.map50 > 0.75
    classifier = load_predictor(weights, IMGSZ, "cpu")
    right = []
    for image, found in zip(held, classifier.predict([image.path for image in held]), strict=True):
        sent = [one.as_json() for one in tags.encode(tag, found, classifier.classes, 0.5, "k")]
        assert {one["type"] for one in sent} <= {tag.kind}
        right.append({box.label for box in tags.decode(tag, sent)} == {box.label for box in image.boxes})
    print(f"{np.mean(right):.0%} of the images exactly right")
    assert np.mean(right) > 0.4


def named(images: tuple[LabeledImage, ...], tag: ControlTag) -> tuple[LabeledImage, ...]:
    """Return images whose labels are a tag's instead of LABELS."""
    names = dict(zip(LABELS, tag.labels, strict=True))
    return tuple(
        dataclasses.replace(one, boxes=tuple(dataclasses.replace(box, label=names[box.label]) for box in one.boxes))
        for one in images
    )
