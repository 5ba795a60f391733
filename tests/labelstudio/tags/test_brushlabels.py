"""Brush masks: reading, writing, cropping of letterboxed images, a round trip through Label Studio, and training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import brush as sdk
from PIL import Image, ImageDraw

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets import writer
from backend.datasets.writer import LabeledImage, Split
from backend.geometry import brush_rle, masks
from backend.geometry.coordinates import bridged
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.types import BoolArray, LabeledBox, Outline, Prediction
from backend.yolo.decoding import outline_of
from backend.yolo.letterbox import Letterboxed
from tests import drawings
from tests.support import ROOT

TAG = drawings.control_tag("brushlabels", "segment")
WIDTH, HEIGHT = 40, 30


def painted() -> BoolArray:
    """Return an object of two parts, one with a hole."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[3:15, 4:20] = True
    mask[6:10, 8:14] = False
    mask[20:28, 25:38] = True
    return mask


def region(mask: Any = None, labels: Sequence[Any] = ("red",), rle: Any = None, **item: Any) -> dict[str, Any]:
    rle = brush_rle.encode_rle(painted() if mask is None else mask) if rle is None else rle
    value = {"format": "rle", "rle": rle, "brushlabels": list(labels)}
    base = {"id": "r1", "type": "brushlabels", "from_name": "label", "to_name": "image", "value": value}
    return base | {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0} | item


def prediction(
    outlines: tuple[Outline, ...] | None, width: int = WIDTH, height: int = HEIGHT, n: int = 1
) -> Prediction:
    return drawings.prediction(n, width, height, outlines=outlines)


def outline(mask: BoolArray) -> Outline:
    return tuple(ring.astype(np.float32) for ring in masks.trace(mask))


def filled(label: LabeledBox, width: int = WIDTH, height: int = HEIGHT) -> BoolArray:
    return masks.fill([np.array(ring) * (width, height) for ring in label.outline], width, height)


def overlap(first: BoolArray, second: BoolArray) -> float:
    return float((first & second).sum() / (first | second).sum())


# Encode


def test_encode_gives_what_label_studio_stores() -> None:
    (sent,) = tags.encode(TAG, prediction((outline(painted()),)), TAG.labels, 0.5, "k")
    assert json.loads(json.dumps(sent.as_json())) == region() | {"id": sent.id, "score": float(np.float32(0.9))}
    alpha = sdk.decode_rle(sent.value["rle"]).reshape(HEIGHT, WIDTH, 4)
    assert np.array_equal(alpha, 255 * np.repeat(painted()[..., None], 4, axis=2))
    assert list(sent.value["rle"]) == sdk.mask2rle(255 * painted().astype(np.uint8))


def test_objects_that_cover_no_pixel_are_not_sent() -> None:
    speck = np.array([(1.1, 1.1), (1.4, 1.1), (1.4, 1.4)], np.float32)
    outlines: tuple[Outline, ...] = ((), (speck,), outline(painted()))
    (sent,) = tags.encode(TAG, prediction(outlines, n=3), TAG.labels, 0.5, "k")
    assert sent.value["rle"] == brush_rle.encode_rle(painted())


def test_a_model_for_boxes_answers_with_boxes_meanwhile() -> None:
    boxes_only = dataclasses.replace(prediction(None), boxes=np.array([[-5, 10, 20.2, 50]], np.float32))
    (sent,) = tags.encode(TAG, boxes_only, TAG.labels, 0.5, "k")
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    expected[10:, :20] = True
    assert np.array_equal(brush_rle.decode_rle(sent.value["rle"], HEIGHT, WIDTH), expected)


SHAPES = [(96, 96), (300, 60), (60, 300), (200, 64), (37, 91), (500, 333), (20, 16), (1000, 50)]


@pytest.mark.parametrize("size", SHAPES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("auto", [True, False])
def test_the_padding_is_cropped_at_every_aspect_ratio(size: tuple[int, int], auto: bool) -> None:
    from ultralytics.data.augment import LetterBox

    width, height = size
    picture = Image.new("L", size)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, width // 3, height // 3), fill=255)  # touches the padding
    pen.ellipse((width // 2, height // 3, width - 1, height - 1), fill=255)
    mask = np.array(picture) > 0
    pixels = LetterBox((128, 128), auto=auto, stride=32)(image=np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2))
    image = Letterboxed(pixels, height, width)
    letterboxed = np.where(pixels[..., 0] == 114, 0, pixels[..., 0] > 127).astype(np.uint8)  # the padding is gray
    rings = tuple(image.upright_points(ring) for ring in outline_of(letterboxed))
    (sent,) = tags.encode(TAG, prediction((rings,), width, height), TAG.labels, 0.5, "k")
    decoded = brush_rle.decode_rle(sent.value["rle"], height, width)
    pixel = 1 / image.gain  # outlines run through centres, half a pixel inside, and are rounded by as much
    near = round(1.5 * max(pixel, 1))
    inner, outer = (_moved(mask, reach) for reach in (-near, near))
    assert not (decoded & ~outer).any()
    assert decoded[inner].all()
    assert inner.any()


def _moved(mask: BoolArray, reach: int) -> BoolArray:
    """Return a mask with its border moved out by `reach` pixels, or in for a negative number."""
    import cv2

    kernel = np.ones((2 * abs(reach) + 1,) * 2, np.uint8)
    move = cv2.dilate if reach > 0 else cv2.erode
    framed = np.pad(mask, abs(reach)).astype(np.uint8)
    return np.asarray(move(framed, kernel))[abs(reach) : -abs(reach), abs(reach) : -abs(reach)] > 0


# Decode


def test_parts_and_holes_of_a_region_are_one_object() -> None:
    (label,) = tags.decode(TAG, [region()])
    assert len(label.outline) == 3
    assert np.array_equal(filled(label), painted())
    assert label.label == "red"
    assert label.xywh == pytest.approx((21 / 40, 15.5 / 30, 34 / 40, 25 / 30))


def test_two_labels_on_a_region_are_two_objects() -> None:
    labels = tags.decode(TAG, [region(labels=["red", "blue"])])
    assert [label.label for label in labels] == ["red", "blue"]
    assert labels[0].outline == labels[1].outline


def test_what_the_sdk_and_other_tools_write_is_read() -> None:
    half_transparent = sdk.mask2rle(painted().astype(np.uint8) * 100)
    rgba = np.repeat(255 * painted()[..., None].astype(np.uint8), 4, axis=2)
    for rle in (half_transparent, sdk.encode_rle(rgba.ravel())):
        (label,) = tags.decode(TAG, [region(rle=rle)])
        assert np.array_equal(filled(label), painted())


GOOD = brush_rle.encode_rle(painted())
STROKE = {"format": "rle", "rle": None, "brushlabels": ["red"]}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (region(np.zeros((HEIGHT, WIDTH))), "region r1 paints nothing"),
        (region(np.ones((HEIGHT, WIDTH + 1))), "it holds 4920 values where the image has 4800 (4 per pixel)"),
        (region(rle=GOOD[:20]), "it ends after"),
        (region(rle=[300]), "not a list of integers from 0 to 255"),
        (region(rle="AAAA"), "not a list of integers from 0 to 255"),
        (region(value=STROKE), "not a list of integers from 0 to 255"),
        (region(value=STROKE | {"rle": GOOD, "touches": [{"type": "add"}]}), "strokes that are not in its mask yet"),
        (region(value=STROKE | {"rle": GOOD, "maskDataURL": "data:,"}), "strokes that are not in its mask yet"),
        (region(original_width=None), "does not carry original_width and original_height"),
        (region(original_height=0), "does not carry original_width"),
        (region(original_height=30.5), "does not carry original_width"),
        (region(original_height=float("inf")), "does not carry original_width"),
        (region(original_width=2**20, original_height=2**20), "1048576 x 1048576 pixels, more than can be read"),
        (region(labels=["green"]), "region r1 has the label 'green', which is not in the label config"),
        (region(labels=[]), "has no label"),
        (region(value=None), "has no label"),
    ],
)
def test_what_is_left_out_is_explained_and_the_rest_goes_on(item: dict[str, Any], reason: str) -> None:
    result = [region(id="before"), item, region(id="after")]
    assert len(tags.decode(TAG, result)) == 2
    (explained,) = tags.explain(TAG, result)
    assert reason in explained


def test_other_tags_are_left_alone() -> None:
    result = [region(from_name="other"), {"type": "relation"}]
    assert tags.decode(TAG, result) == ()
    assert tags.explain(TAG, result) == ()


def test_regions_of_another_type_under_the_name_of_the_tag_are_named() -> None:
    result = [region(type="brush"), region(type="magicwand")]
    assert tags.decode(TAG, result) == ()
    assert [
        f"of the type '{kind}'" in reason
        for kind, reason in zip(("brush", "magicwand"), tags.explain(TAG, result), strict=True)
    ] == [True, True]


# Round trip

ellipses = st.tuples(*[st.floats(0.0, 1.0)] * 2, *[st.floats(0.05, 0.6)] * 2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(ellipses, min_size=1, max_size=4), max_size=3), st.integers(1, 150), st.integers(1, 150))
def test_decode_undoes_encode(drawn: list[list[tuple[float, float, float, float]]], width: int, height: int) -> None:
    """For any masks, decoding the encoded regions gives the same pixels."""
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height
    objects = []
    for shapes in drawn:
        mask = np.zeros((height, width), dtype=np.bool_)
        for x, y, a, b in shapes:  # the overlap of two ellipses is a hole
            mask ^= ((across - x) / a) ** 2 + ((down - y) / b) ** 2 < 1
        objects.append(mask)
    predicted = prediction(tuple(map(outline, objects)), width, height, len(objects))
    sent = [json.loads(json.dumps(encoded.as_json())) for encoded in tags.encode(TAG, predicted, TAG.labels, 0.5, "k")]
    assert tags.explain(TAG, sent) == ()
    decoded = [filled(shapes, width, height) for shapes in tags.decode(TAG, sent)]
    for mask, again in zip((mask for mask in objects if mask.any()), decoded, strict=True):
        assert np.array_equal(again, mask)


# Label Studio


@pytest.mark.label_studio
def test_label_studio_keeps_masks_as_they_were_sent(label_studio: LabelStudioProcess) -> None:
    config = (ROOT / "label_config/brushlabels.xml").read_text(encoding="utf-8")
    (tag,) = label_config.parse(config)
    rings = outline(painted())
    sent = tags.encode(tag, prediction((rings, rings), n=2), tag.labels, 0.5, "k")
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("brush", config)
        annotated = {"result": [encoded.as_json() for encoded in sent]}
        tasks = [{"data": {"image": "http://images.example/1.png"}, "annotations": [annotated]}]
        client.http.send("POST", f"/api/projects/{project}/import", tasks)
        (labeled,) = client.annotations.annotated_tasks(project)
        assert client.prediction_import.run(project, "v1", [PredictionRow(labeled.task.id, 0.5, sent)]) == 1
    boxes = tags.decode(tag, labeled.result)
    kept_masks = [(box.label, np.array_equal(filled(box), painted())) for box in boxes]
    assert kept_masks == [(tag.labels[0], True), (tag.labels[1], True)]


# Training


def test_parts_and_holes_reach_the_label_file(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"pixels")
    boxes = tags.decode(TAG, [region(), region(labels=["blue"], id="r2")])
    image = LabeledImage(7, path, boxes, random=True)
    writer.write(Split((image,), (image,), held_out=False), TAG.labels, tmp_path / "data", "segment")
    lines = (tmp_path / "data/labels/train/7.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    ring = np.array(lines[0].split()[1:], dtype=np.float64).reshape(-1, 2) * (WIDTH, HEIGHT)
    assert np.array_equal(masks.fill([ring.round(3)], WIDTH, HEIGHT), painted())
    assert len(ring) == len(bridged(boxes[0].outline))


@pytest.mark.slow
def test_masks_are_learned(tmp_path: Path) -> None:
    metrics, pictures = drawings.learn(tmp_path, _donut, TAG, epochs=40)
    assert metrics.map50 > 0.5
    assert (metrics.images, metrics.boxes) == (8, 16)

    overlaps = []
    for image, predicted in pictures:
        for true_label in image.boxes:
            true = filled(true_label, *drawings.SIZE)
            overlaps.append(max((overlap(true, filled(label, *drawings.SIZE)) for label in predicted), default=0.0))
    print(f"median IoU of the masks {np.median(overlaps):.2f}")
    assert np.median(overlaps) > 0.6


def _donut(*args: Any) -> LabeledBox:
    """Draw a donut, painted by an annotator's brush."""
    true = drawings.donut(*args)
    item = region(filled(true, *drawings.SIZE), [true.label])
    width, height = drawings.SIZE
    (read,) = tags.decode(TAG, [item | {"original_width": width, "original_height": height}])
    return read
