"""The answers of a report are drawn as Label Studio's regions are drawn elsewhere on the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from backend.evaluation.judged_images import judge_image
from backend.geometry import masks
from backend.labelstudio import region_outlines, tags
from backend.types import BoolArray
from backend.web.page.overlays import Shape, overlay
from backend.web.page.views.answer_boxes import answer_overlay
from tests import drawings, kinds
from tests.drawings import SIZE
from tests.evaluated import evaluation

SHAPES = {name: kind for name, kind in kinds.ALL_KINDS.items() if kind.task != "classify"}


def covered(shapes: Iterable[Shape]) -> BoolArray:
    """Return the pixels inside of all paths."""
    rings = [
        np.array([point.split(",") for point in ring.strip(" MZ").split(" ")], dtype=np.float64) * SIZE / 100
        for shape in shapes
        for ring in shape.path.split("Z")
        if ring
    ]
    return masks.fill(rings, *SIZE)


@pytest.mark.parametrize("kind", SHAPES.values(), ids=SHAPES)
def test_stored_answers_are_drawn_as_the_annotation_and_the_prediction_are(kind: kinds.Kind, tmp_path: Path) -> None:
    tag, (picture,) = kind.tag(), drawings.pictures(tmp_path, kind.draw, 1, seed=3)
    shapes = kinds.drawn(tag, picture)
    annotation, prediction = kind.annotate(tag, shapes), kinds.prediction(tag, shapes)
    labels = tags.decode(tag, annotation)
    stored, _ = evaluation([judge_image(7, 0, prediction, labels, tag.labels, tag.task)], tag.labels)
    assert stored.answers is not None
    shown = answer_overlay(stored.answers.pictures[0].answers, tag.labels, {}, tag).shapes
    results = {
        "annotator": annotation,
        "model": [region.as_json() for region in tags.encode(tag, prediction, tag.labels, 0.1, "key")],
    }
    for drawer, result in results.items():
        elsewhere = overlay(region_outlines.drawing(result), {}).shapes
        here = [shape for shape in shown if shape.kind == drawer]
        common = covered(here) & covered(elsewhere)
        assert common.sum() / (covered(here) | covered(elsewhere)).sum() > 0.85, drawer
        assert {shape.painted for shape in here} == {shape.painted for shape in elsewhere}
