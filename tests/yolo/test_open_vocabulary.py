from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backend.datasets import writer
from backend.datasets.writer import Split
from backend.errors import ModelError
from backend.yolo import open_vocabulary, training
from backend.yolo.approved_weights import LISTING
from backend.yolo.base_weights import BaseWeights, base_weights
from backend.yolo.detector import Detector
from backend.yolo.predictors import load_predictor
from backend.yolo.runtime import load_model, quiet_ultralytics
from tests.prompted import THING, approved_encoder, tiny_open, words
from tests.squares import CLASSES, hyper, squares
from tests.support import IMGSZ, ImageSite

pytestmark = pytest.mark.torch

WORLD, YOLOE = "yolov8n-worldv2", "yoloe-11n-seg"
PROMPTS = {"other": "another", "mine": THING}


@pytest.mark.parametrize("architecture", [WORLD, YOLOE])
@pytest.mark.usefixtures("encoder")
def test_a_model_finds_what_its_prompts_ask_for(
    architecture: str, tmp_path: Path, images: ImageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tiny_open(tmp_path / f"{architecture}.pt", architecture)
    prompted = open_vocabulary.prompted(weights, PROMPTS, tmp_path)
    detector = load_predictor(prompted, IMGSZ, "cpu")
    assert isinstance(detector, Detector)
    assert detector.classes == ("other", "mine")
    images.add("1.png", 1)
    (prediction,) = detector.predict([images.folder / "1.png"])
    assert len(prediction.boxes)
    assert set(prediction.class_probs.argmax(axis=1)) == {1}
    assert prediction.confidence.min() > 0.9
    monkeypatch.setattr(open_vocabulary, "text_vectors", None)  # it is asked once
    assert open_vocabulary.prompted(weights, PROMPTS, tmp_path) == prompted
    assert load_model(weights, "detect").names == {0: "0", 1: "1"}  # the file of the admin stays as it is


@pytest.mark.usefixtures("encoder")
def test_the_files_that_were_used_last_are_kept(tmp_path: Path) -> None:
    weights = tiny_open(tmp_path / f"{WORLD}.pt")
    for number in range(open_vocabulary.KEPT + 2):
        last = open_vocabulary.prompted(weights, {"thing": f"thing {number}"}, tmp_path)
    files = list(last.parent.iterdir())
    assert len(files) == open_vocabulary.KEPT
    assert last in files


@pytest.mark.parametrize(("architecture", "file"), [(WORLD, "ViT-B-32.pt"), (YOLOE, "mobileclip_blt.ts")])
def test_without_the_text_encoder_the_reason_says_what_to_put_where(
    architecture: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tiny_open(tmp_path / f"{architecture}.pt", architecture)
    with pytest.raises(ModelError, match="the Python package clip, which is not installed") as missing:
        open_vocabulary.prompted(weights, PROMPTS, tmp_path)
    assert f"put {file} (" in missing.value.fix
    monkeypatch.setattr("backend.yolo.open_vocabulary.find_spec", lambda _: object())
    with pytest.raises(ModelError, match=f"prompts need the text encoder {file}: .* not approved") as unapproved:
        open_vocabulary.prompted(weights, PROMPTS, tmp_path)
    assert f"sha256sum {file} >> {LISTING}" in unapproved.value.fix
    assert unapproved.value.fix.startswith(f"get {file} (")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # the encoders are TorchScript files
def test_an_approved_encoder_makes_vectors_of_length_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approved_encoder(tmp_path / "mobileclip_blt.ts")
    monkeypatch.setitem(sys.modules, "clip", words())
    monkeypatch.setattr("backend.yolo.open_vocabulary.find_spec", lambda _: object())
    vectors = open_vocabulary.text_vectors("mobileclip:blt", ["cat", "a dog"], tmp_path)
    assert vectors.shape == (2, 512)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert vectors[0, 0] == vectors[0, 1] != vectors[1, 0]


@pytest.mark.parametrize("name", ["yoloe-11n-seg", "yoloe-v8s-seg", "yoloe-26n-seg"])
def test_the_name_of_weights_tells_their_text_encoder(name: str) -> None:
    quiet_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load

    variant = yaml_model_load(f"{name}.yaml").get("text_model", "mobileclip:blt")  # as ultralytics reads it
    assert open_vocabulary.encoder_of(f"{name}.pt") == open_vocabulary.ENCODERS[variant]


@pytest.mark.parametrize(("architecture", "learned"), [(WORLD, "yolov8n.yaml"), (YOLOE, "yolo11n.yaml")])
def test_the_architecture_that_learns_is_a_closed_one(architecture: str, learned: str, tmp_path: Path) -> None:
    weights = tiny_open(tmp_path / f"{architecture}.pt", architecture)
    assert base_weights(weights.name, tmp_path) == BaseWeights(
        str(weights), pretrained=True, note="", architecture=learned
    )


def test_a_training_begins_with_the_backbone_of_the_base_weights(tmp_path: Path) -> None:
    weights = tiny_open(tmp_path / f"{WORLD}.pt")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    split = Split(squares(pictures, 4, seed=1), squares(pictures, 2, seed=2), held_out=True)
    data_yaml = writer.write(split, CLASSES, tmp_path / "data")
    done = training.train(data_yaml, base_weights(weights.name, tmp_path), hyper(epochs=1), tmp_path / "run", print)
    model = load_model(done.weights, "detect")
    assert (type(model).__name__, tuple(model.names.values())) == ("DetectionModel", CLASSES)
    first = "model.0.conv.weight"
    assert abs(model.state_dict()[first] - load_model(weights).state_dict()[first]).max() < 0.05  # after one step


def test_open_vocabulary_weights_need_a_name_that_says_so(tmp_path: Path) -> None:
    tiny_open(tmp_path / "mine.pt")
    with pytest.raises(ModelError, match="whose classes are prompts; its name hides it"):
        base_weights("mine.pt", tmp_path)
