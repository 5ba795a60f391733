"""Weights become an ONNX file that the package onnx accepts; without that package the message names it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import pytest

from backend.errors import ModelError
from backend.yolo import onnx_export
from backend.yolo.runtime import quiet_ultralytics
from tests.support import CLASSES, IMGSZ

BOX_SIDES = 4


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_the_graph_takes_an_image_and_gives_boxes_and_classes(tiny_weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    quiet_ultralytics()  # ultralytics hides torch's warnings for as long as nobody sets filters of their own
    warnings.simplefilter("error")
    onnx_export.export(tiny_weights, target, IMGSZ)
    model = onnx.load(target)
    onnx.checker.check_model(model)
    ((image,), (answer,)) = model.graph.input, model.graph.output
    assert shape_of(image) == [1, 3, IMGSZ, IMGSZ]
    cells = sum((IMGSZ // stride) ** 2 for stride in (8, 16, 32))
    assert shape_of(answer) == [1, BOX_SIDES + len(CLASSES), cells]
    assert not list(tiny_weights.parent.glob("*.onnx")), "nothing is written beside the weights"


def test_without_the_package_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"the package onnx is not installed .*pip install onnx"):
        onnx_export.export(tmp_path / "none.pt", tmp_path / "model.onnx", IMGSZ)


def test_a_failing_exporter_gives_its_reason_in_one_line(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr("ultralytics.YOLO.export", fail)
    with pytest.raises(ModelError, match=r"the ONNX exporter failed: no such operator \[.*--what weights"):
        onnx_export.export(tiny_weights, tmp_path / "model.onnx", IMGSZ)
    assert not list(tmp_path.glob("*.onnx"))
