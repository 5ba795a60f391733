"""SAM's weights are read without running code, an image is embedded once, and a prompt gets a mask."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.errors import MediaError, ModelError
from backend.geometry.pointing import Click, Pointing
from backend.yolo.letterbox import read_pixels
from backend.yolo.sam import NAMES, Sam
from tests.sam_weights import mobile_sam

pytestmark = pytest.mark.torch

IMGSZ = 256
WIDTH, HEIGHT = 80, 60
CLICK = Pointing((Click(0.3, 0.4),))
PROMPTS = {
    "click": CLICK,
    "elsewhere": Pointing((Click(0.8, 0.8),)),
    "two clicks": Pointing((Click(0.3, 0.4), Click(0.6, 0.5, on_object=False))),
    "rectangle": Pointing(rectangle=(0.1, 0.1, 0.5, 0.6)),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mobile_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def sam(weights: Path) -> Sam:
    return Sam(weights, "cpu", IMGSZ)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.png"
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
    return path


def test_each_prompt_gets_one_mask_with_a_score_of_its_own(sam: Sam, picture: Path) -> None:
    answers = {name: sam.object_at(picture, prompt) for name, prompt in PROMPTS.items()}
    for answer in answers.values():
        assert (answer.width, answer.height) == (WIDTH, HEIGHT)
        assert answer.outlines is not None
        ((ring,),) = answer.outlines
        assert 0 < answer.confidence[0] < 1
        np.testing.assert_allclose(answer.boxes, [[0.5, 0.5, WIDTH - 0.5, HEIGHT - 0.5]])
        np.testing.assert_allclose([*ring.min(axis=0), *ring.max(axis=0)], answer.boxes[0])
        assert answer.rotated is not None
        np.testing.assert_allclose(answer.rotated[0, :2], (WIDTH / 2, HEIGHT / 2), atol=0.01)
    scores = {name: float(answer.confidence[0]) for name, answer in answers.items()}
    assert len(set(scores.values())) == len(PROMPTS), scores
    assert float(sam.object_at(picture, CLICK).confidence[0]) == scores["click"]


def test_an_image_is_embedded_once(sam: Sam, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[Path] = []

    def read(path: Path) -> Any:
        embedded.append(path)
        return read_pixels(path)

    monkeypatch.setattr("backend.yolo.sam.read_pixels", read)
    for prompt in PROMPTS.values():
        sam.object_at(picture, prompt)
    assert embedded == [picture]
    other = picture.with_name("other.png")
    shutil.copy(picture, other)
    sam.object_at(other, CLICK)
    sam.object_at(picture, CLICK)
    assert embedded == [picture, other]


def test_an_empty_mask_is_no_object(weights: Path, picture: Path, tmp_path: Path) -> None:
    import torch

    numbers = torch.load(weights, weights_only=True)
    for place in range(4):
        numbers[f"mask_decoder.output_hypernetworks_mlps.{place}.layers.2.bias"].fill_(-1)
    torch.save(numbers, tmp_path / "mobile_sam.pt")
    answer = Sam(tmp_path / "mobile_sam.pt", "cpu", IMGSZ).object_at(picture, CLICK)
    assert (len(answer.boxes), answer.outlines) == (0, ())


def test_a_file_that_is_no_image(sam: Sam, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(MediaError, match=r"no\.png"):
        sam.object_at(tmp_path / "no.png", CLICK)


@pytest.mark.parametrize(
    ("name", "is_sam"),
    [
        ("mobile_sam.pt", True),
        ("sam2_t.pt", True),
        ("sam2.1_l.pt", True),
        ("sam_b.pt", False),
        ("sam2_t.pt.pt", False),
        ("my_mobile_sam.pt", False),
        ("yolo11n.pt", False),
    ],
)
def test_the_names_of_weights(name: str, is_sam: bool) -> None:
    assert bool(NAMES.fullmatch(name)) is is_sam


class Evil:
    """A pickle that makes a folder where it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"model": Evil(tmp_path / "made")}, tmp_path / "mobile_sam.pt")
    with pytest.raises(ModelError, match="cannot read the SAM weights"):
        Sam(tmp_path / "mobile_sam.pt", "cpu", IMGSZ)
    assert not (tmp_path / "made").exists()


def test_weights_that_are_damaged_missing_or_of_another_model(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such SAM weights"):
        Sam(tmp_path / "mobile_sam.pt", "cpu", IMGSZ)
    (tmp_path / "mobile_sam.pt").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot read .*mobile_sam\.pt.*replace the file"):
        Sam(tmp_path / "mobile_sam.pt", "cpu", IMGSZ)
    shutil.copy(weights, tmp_path / "sam2_t.pt")
    with pytest.raises(ModelError, match="cannot read"):
        Sam(tmp_path / "sam2_t.pt", "cpu", IMGSZ)


@pytest.mark.parametrize("name", ["sam2_t.pt", "sam2.1_t.pt"])
def test_sam_2_is_loaded_and_answers(picture: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from ultralytics.models.sam import build

    path = tmp_path / name
    with monkeypatch.context() as patch:  # the builder takes the version from the name of a file that it would read
        patch.setattr(build, "_load_checkpoint", lambda model, _: model)
        numbers = build.build_sam2_t(str(path)).state_dict()
    torch.save({"model": {key: value.half() for key, value in numbers.items()}}, path)
    answer = Sam(path, "cpu", IMGSZ).object_at(picture, CLICK)
    assert (answer.width, answer.height) == (WIDTH, HEIGHT)
