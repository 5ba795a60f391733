from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import acquisition
from backend.datasets.writer import LabeledImage, Split
from backend.errors import ModelError
from backend.model_versions import Metrics
from backend.sampling import ranking
from backend.settings import Settings
from backend.simulate import simulated_pool
from backend.simulate.simulated_pool import Knowledge, PastLosses
from backend.types import LabeledBox, Ranking, YoloTask
from backend.yolo.classifier import Classifier
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import RECIPES
from tests.support import IMGSZ, tiny_yolo

pytestmark = pytest.mark.torch

SETTINGS = Settings(imgsz=IMGSZ, device="cpu", retrain_every=3)
VALIDATION = Metrics(0.25, 0.1, {"cat": 0.5}, 4, 4, 10)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabeledImage, ...]:
    """Twelve images of blobs with a box each."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    labeled = []
    for task_id in range(1, 13):
        path = folder / f"{task_id}.png"
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((IMGSZ, IMGSZ), Image.Resampling.BICUBIC).save(path)
        labeled.append(LabeledImage(task_id, path, (LabeledBox("cat", (0.5, 0.5, 0.5, 0.5)),), random=True))
    return tuple(labeled)


@pytest.fixture(scope="module")
def knowledge(images: tuple[LabeledImage, ...], tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    """Five images to choose from, four learned from, three held out; two versions."""
    folder = tmp_path_factory.mktemp("versions")
    versions = tuple(tiny_yolo(folder / f"{seed}.pt", seed=seed) for seed in range(2))
    split = Split(images[5:9], images[9:], held_out=True)
    past = (PastLosses(frozenset(), {6: 0.5}),)
    return Knowledge(versions, images[:5], split, frozenset(range(6, 10)), past, VALIDATION, threads=1)


# "learning_loss" wants more labels than there are here, "shape" a model of masks or points, "video" videos.
@pytest.mark.parametrize("strategy", sorted(set(acquisition.names()) - {"learning_loss", "shape", "video"}))
def test_every_strategy_gets_what_it_needs(strategy: str, knowledge: Knowledge) -> None:
    scored = simulated_pool.gather(knowledge, strategy, SETTINGS)
    order = ranking.rank(scored.pool, strategy, explore_share=0.2, rng=np.random.default_rng(0))
    assert sorted(order.task_ids.tolist()) == [1, 2, 3, 4, 5]
    assert scored.pool.batch == 3


@pytest.mark.parametrize("task", ["obb", "segment", "pose", "classify"])
def test_models_of_other_tasks_fill_the_pool(task: YoloTask, knowledge: Knowledge, tmp_path: Path) -> None:
    mine = replace(knowledge, versions=(tiny_yolo(tmp_path / "tiny.pt", task=task),))
    able = [name for name in ("ppal", "bald", "localization") if not acquisition.get(name).needs & RECIPES[task].lacks]
    assert len(able) == (2 if task == "classify" else 3)
    for strategy in able:
        pool = simulated_pool.gather(mine, strategy, SETTINGS).pool
        order = ranking.rank(pool, strategy, explore_share=0, rng=np.random.default_rng(0))
        assert sorted(order.task_ids.tolist()) == [1, 2, 3, 4, 5]
        assert len(np.unique(order.acquisition)) == 5
        assert pool.labeled_embeddings is not None
        assert len(pool.labeled_embeddings) == 7


@pytest.mark.parametrize(
    ("strategy", "reason"), [("box_disagreement", "predicts whole images"), ("localization", "needs box_variance")]
)
def test_models_of_whole_images_lack_something(
    strategy: str, reason: str, knowledge: Knowledge, tmp_path: Path
) -> None:
    mine = replace(knowledge, versions=(tiny_yolo(tmp_path / "tiny.pt", task="classify"),))
    with pytest.raises(ModelError, match=reason):
        rank_by(strategy, mine)


def rank_by(strategy: str, knowledge: Knowledge) -> Ranking:
    pool = simulated_pool.gather(knowledge, strategy, SETTINGS).pool
    return ranking.rank(pool, strategy, explore_share=0.2, rng=np.random.default_rng(0))


def test_a_strategy_gets_the_quality_on_validation_images_only(knowledge: Knowledge) -> None:
    pool = simulated_pool.gather(knowledge, "auto", SETTINGS).pool
    assert pool.map50 == 0.25
    assert pool.class_weights is not None
    assert pool.class_weights.tolist() == [1, 3]  # dog is not among them: unseen means rare
    assert pool.labeled_embeddings is not None
    assert len(pool.labeled_embeddings) == 7
    assert pool.columns["thumbnails"].shape == (len(pool), 192)
    assert pool.labeled_thumbnails is not None
    assert pool.labeled_thumbnails.shape == (7, 192)


def test_losses_are_of_images_the_version_had_not_learned_from(knowledge: Knowledge) -> None:
    scored = simulated_pool.gather(knowledge, "learning_loss", SETTINGS)
    losses = scored.pool.labeled_losses
    assert losses is not None
    assert losses[0] == 0.5  # learned from since, and scored before that
    assert np.isnan(losses[1:4]).all()
    assert np.isfinite(losses[4:]).all()  # held out
    assert set(scored.losses) == {1, 2, 3, 4, 5}
    with pytest.raises(ModelError, match="labeled_losses of 10 images or more"):
        ranking.rank(scored.pool, "learning_loss", explore_share=0, rng=np.random.default_rng(0))


def test_without_held_out_images_nothing_is_calibrated_and_no_loss_is_known(knowledge: Knowledge) -> None:
    everything = (*knowledge.split.train, *knowledge.split.val)
    split, learned = Split(everything, everything, held_out=False), frozenset(range(6, 13))
    cold = replace(knowledge, split=split, learned=learned, past=())
    pool = simulated_pool.gather(cold, "learning_loss", SETTINGS).pool
    assert pool.labeled_losses is not None
    assert len(pool.labeled_losses) == 7
    assert np.isnan(pool.labeled_losses).all()


@pytest.mark.parametrize("multiple", [False, True])
def test_each_of_several_labels_is_calibrated(multiple: bool, knowledge: Knowledge, tmp_path: Path) -> None:
    detector = load_predictor(tiny_yolo(tmp_path / "tiny.pt", task="classify"), IMGSZ, "cpu")
    assert isinstance(detector, Classifier)
    detector.multiple = multiple
    answers = simulated_pool.predicted_alone(detector, knowledge.split.val)
    assert len(answers.confidence) == len(knowledge.split.val) * (2 if multiple else 1)


@pytest.mark.parametrize(("kind", "members"), [("augmented", 3), ("perturbed", 3), ("snapshots", 2)])
def test_the_committee_is_the_one_of_the_settings(kind: str, members: int, knowledge: Knowledge) -> None:
    settings = SETTINGS.model_copy(update={"committee": kind})
    committee = simulated_pool.gather(knowledge, "bald", settings).pool.committee
    assert committee is not None
    assert len(committee.member_probs) == members


def test_snapshots_take_two_versions(knowledge: Knowledge) -> None:
    young = replace(knowledge, versions=knowledge.versions[:1])
    with pytest.raises(ModelError, match="two published versions"):
        simulated_pool.gather(young, "bald", SETTINGS.model_copy(update={"committee": "snapshots"}))


def test_random_selection_predicts_nothing(knowledge: Knowledge) -> None:
    blind = replace(knowledge, versions=(Path("no-such-weights.pt"),))
    pool = simulated_pool.gather(blind, "random", SETTINGS).pool
    assert pool.task_ids.tolist() == [1, 2, 3, 4, 5]


def test_an_unknown_quality_is_none(knowledge: Knowledge) -> None:
    unknown = replace(knowledge, validation=Metrics(math.nan, 0, {}, 0, 0, 0))
    assert simulated_pool.gather(unknown, "entropy", SETTINGS).pool.map50 is None


def test_the_settings_choose_class_weights_and_empty(knowledge: Knowledge) -> None:
    pools = {}
    for kind in ("long_tail", "ppal", "none"):
        settings = SETTINGS.model_copy(update={"class_weights": kind, "empty": "lowest"})
        pools[kind] = simulated_pool.gather(knowledge, "class_entropy", settings).pool
    assert pools["none"].class_weights is None
    assert {pool.empty for pool in pools.values()} == {"lowest"}
    long_tail, ppal = pools["long_tail"].class_weights, pools["ppal"].class_weights
    assert long_tail is not None
    assert ppal is not None
    assert ppal.max() <= np.float32(1.2)
    assert long_tail.tolist() != ppal.tolist()
