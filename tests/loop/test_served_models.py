from __future__ import annotations

import gc
import shutil
import subprocess
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from backend.errors import ModelError, SettingError
from backend.labelstudio import label_config
from backend.loop import base_models, served_models
from backend.loop.context import Context
from backend.loop.served_models import name_of
from backend.media.cache import MediaFile
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord
from tests.support import CLASSES, CONFIG, ImageSite, model_for, open_context, publish

RECORD = ProjectRecord(7, CONFIG, "", "", "", "")
OWN = replace(RECORD, label_config=CONFIG.replace("<RectangleLabels", '<RectangleLabels model_path="mine.pt"'))


@pytest.fixture
def model_dir(context: Context) -> Path:
    return Path(context.settings.model_dir)


def put(model_dir: Path, name: str, weights: Path) -> None:
    (model_dir / name).write_bytes(weights.read_bytes())


def approve(model_dir: Path, name: str) -> None:
    subprocess.run(f"sha256sum {name} >> weights.sha256", shell=True, check=True, cwd=model_dir)


def test_an_accepted_version_is_served_once_it_is_activated(
    context: Context, tiny_weights: Path, model_dir: Path
) -> None:
    put(model_dir, "yolo11n.pt", tiny_weights)
    assert name_of(context, RECORD) == model_for(context, RECORD, accepted=False).name == "yolo11n-v0"
    publish(context.store, 7, tiny_weights)
    assert name_of(context, RECORD) == model_for(context, RECORD, accepted=False).name == "yolo11n-v0"
    assert name_of(context, RECORD, accepted=True) == model_for(context, RECORD, accepted=True).name == "yolo11n-v1"
    context.store.activate(7, 1)
    served = model_for(context, RECORD, accepted=False)
    assert (served.name, served.classes) == (name_of(context, RECORD), CLASSES)
    assert served.class_weights is not None
    assert served.class_weights.shape == (2,)


def test_a_model_without_weights_predicts_nothing(context: Context, model_dir: Path) -> None:
    without_weights = served_models.ServedModel(
        7, 0, "yolo11n-v0", (), None, 1.0, None, 64, "cpu", label_config.parse(CONFIG)[0], "label"
    )
    (prediction,) = without_weights.predict([MediaFile(Path("unread.png"), 80, 60)])
    assert (prediction.width, prediction.height) == (80, 60)
    assert (len(prediction.boxes), prediction.class_probs.shape) == (0, (0, 0))
    assert list(without_weights.predict([])) == []


def test_a_context_releases_its_models_when_it_is_closed(
    settings: Settings, tiny_weights: Path, images: ImageSite
) -> None:
    with open_context(settings) as first, open_context(settings) as second:
        publish(first.store, 7, tiny_weights)
        model = model_for(first, RECORD, accepted=True)
        assert model.weights is not None
        loaded = weakref.ref(first.predictors.get(model.weights, model.imgsz, model.device))
        assert (len(first.predictors), len(second.predictors)) == (1, 0)
    gc.collect()
    assert loaded() is None


def test_damaged_weights_of_a_version_are_refused(context: Context, tiny_weights: Path, model_dir: Path) -> None:
    publish(context.store, 7, tiny_weights)
    context.store.activate(7, 1)
    (path,) = model_dir.rglob("weights.pt")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"damaged.*roll back"):
        model_for(context, RECORD, accepted=False)


def test_the_weights_of_a_label_config_must_be_approved_and_unchanged(
    context: Context, tiny_weights: Path, model_dir: Path, images: ImageSite
) -> None:
    put(model_dir, "mine.pt", tiny_weights)
    (tag,) = label_config.parse(OWN.label_config)
    refused: list[Callable[[], object]] = [
        lambda: base_models.check_base(context, OWN),
        lambda: base_models.open_base(context, OWN, tag),
    ]
    for refuse in refused:
        with pytest.raises(ModelError, match=r"mine\.pt are not approved"):
            refuse()
    approve(model_dir, "mine.pt")
    base_models.check_base(context, OWN)
    model = model_for(context, OWN, accepted=False)
    assert (model.name, model.classes, model.weights) == ("mine-v0", CLASSES, model_dir / "mine.pt")
    images.add("a.png")
    (prediction,) = model.predict([MediaFile(images.folder / "a.png", 80, 60)])
    assert np.isfinite(prediction.boxes).all()
    (model_dir / "mine.pt").write_bytes(b"a pickle of somebody else")
    with pytest.raises(ModelError, match="differ from the approved file"):
        model_for(context, OWN, accepted=False)


def test_the_label_config_wins_over_the_settings(context: Context) -> None:
    extra = replace(RECORD, extra_params='{"BASE_MODEL": "yolo11s.pt"}')
    assert base_models.base_model(context, RECORD) == "yolo11n.pt"
    assert base_models.base_model(context, extra) == "yolo11s.pt"
    assert base_models.base_model(context, replace(OWN, extra_params=extra.extra_params)) == "mine.pt"


def test_base_weights_are_found_in_a_folder_that_a_url_names(
    settings: Settings, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(tiny_weights, tmp_path / "models" / "mine.pt")
    (tmp_path / "models" / "weights.sha256").write_text(f"{file_sha256(tiny_weights)}  mine.pt\n")
    with open_context(settings.model_copy(update={"model_dir": f"file://{tmp_path}/models"})) as context:
        base_models.check_base(context, OWN)
        assert model_for(context, OWN, accepted=False).weights == tmp_path / "models" / "mine.pt"


def test_base_weights_and_their_list_are_found_in_a_remote_model_dir(
    settings: Settings, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the local copies are written there
    root = "memory://remote-base"
    listing = f"{file_sha256(tiny_weights)}  mine.pt\n".encode()
    for name, content in (("base/mine.pt", tiny_weights.read_bytes()), ("weights.sha256", listing)):
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(content)
    with open_context(settings.model_copy(update={"model_dir": root})) as context:
        base_models.check_base(context, OWN)
        served = model_for(context, OWN, accepted=False)
    assert served.weights == tmp_path / ".yolo-backend/base/mine.pt"


def test_a_project_with_tiles_sees_large_images_in_tiles(
    context: Context, tiny_weights: Path, images: ImageSite
) -> None:
    """Small images are predicted as without TILE; another TILE asks for a new scoring, and a committee is refused."""
    publish(context.store, 7, tiny_weights)
    tiled = replace(RECORD, extra_params='{"TILE": 64}')
    large, small = (
        MediaFile(images.folder / name, *size) for name, size in (("large.png", (200, 130)), ("small.png", (64, 50)))
    )
    for number, file in enumerate((large, small)):
        images.add(file.path.name, number, (file.width, file.height))
    with_tiles, without = (model_for(context, record, accepted=True) for record in (tiled, RECORD))
    (in_tiles, alone), (whole, alone_before) = (list(model.predict([large, small])) for model in (with_tiles, without))
    assert len(in_tiles.boxes) > len(whole.boxes)
    assert np.allclose(alone.confidence, alone_before.confidence, atol=1e-4)
    keys = {
        side: served_models.pool_keys(context, replace(RECORD, extra_params=f'{{"TILE": {side}}}'))
        for side in (0, 64, 99)
    }
    assert keys[0] == served_models.pool_keys(context, RECORD)
    assert len({key["label"] for key in keys.values()}) == 3
    with pytest.raises(ModelError, match="TILE cuts them"):
        served_models.committee_for(context, context.settings, with_tiles)
    with pytest.raises(SettingError, match="64 pixels or more"):
        context.project_settings(replace(RECORD, extra_params='{"TILE": 63}'))
