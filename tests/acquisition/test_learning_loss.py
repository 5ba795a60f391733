"""Learning loss: the head ranks the losses of new images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backend import acquisition
from backend.acquisition.learning_loss import ENOUGH, LossHead, fit, image_loss, pair_loss
from backend.acquisition.pool import Pool
from backend.errors import ModelError
from backend.types import Prediction

Array = npt.NDArray[np.float32]


def scene(seed: int, images: int, dimensions: int, bent: bool) -> tuple[Array, Array]:
    """Return embeddings that hold ten hidden causes and noise, and a loss by one of the causes."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(images, 10))
    embeddings = causes @ rng.normal(size=(10, dimensions)) + 0.3 * rng.normal(size=(images, dimensions))
    loss = np.abs(causes[:, 0]) if bent else causes[:, 0]
    noisy = loss + 0.2 * rng.normal(size=images)
    return embeddings.astype(np.float32), noisy.astype(np.float32)


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def make_pool(with_loss: int = 40, without_loss: int = 5, images: int = 60) -> Pool:
    """Return a pool with labeled images, some of which the model has learned from."""
    x, loss = scene(3, with_loss + without_loss + images, 16, bent=False)
    losses = loss[: with_loss + without_loss].copy()
    losses[:without_loss] = np.nan
    return Pool(
        np.arange(images),
        np.zeros(images + 1, np.int64),
        np.zeros((0, 2), np.float32),
        {"embeddings": x[with_loss + without_loss :]},
        labeled_embeddings=x[: with_loss + without_loss],
        labeled_losses=losses,
    )


def head(seed: int = 0, **changes: Array) -> LossHead:
    x, loss = scene(1, 50, 8, bent=False)
    return fit(changes.get("x", x), changes.get("loss", loss), np.random.default_rng(seed))


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("dimensions", [32, 256])
def test_the_head_ranks_the_losses_of_new_images(bent: bool, dimensions: int) -> None:
    x, loss = scene(0, 500, dimensions, bent)
    fitted = fit(x[:200], loss[:200], np.random.default_rng(0))
    assert rank_correlation(fitted.predict(x[200:]), loss[200:]) > 0.6


def test_a_loss_that_has_nothing_to_do_with_the_images_is_not_found() -> None:
    x, _ = scene(0, 600, 32, bent=False)
    loss = np.random.default_rng(9).random(600)
    fitted = fit(x[:200], loss[:200], np.random.default_rng(0))
    assert abs(rank_correlation(fitted.predict(x[200:]), loss[200:])) < 0.2


def test_only_the_order_of_losses_counts() -> None:
    x, loss = scene(1, 50, 8, bent=False)
    assert (head(loss=np.exp(3 * loss)).predict(x) == head().predict(x)).all()


def test_the_same_generator_gives_the_same_head() -> None:
    x, _ = scene(1, 50, 8, bent=False)
    assert (head(seed=4).predict(x) == head(seed=4).predict(x)).all()
    assert not (head(seed=4).predict(x) == head(seed=5).predict(x)).all()


def test_features_that_never_change_and_equal_losses_do_no_harm() -> None:
    x, loss = scene(1, 50, 8, bent=False)
    x[:, 3] = 7.0
    assert np.isfinite(head(x=x).predict(x)).all()
    assert np.isfinite(head(x=np.zeros_like(x)).predict(x)).all()
    assert np.isfinite(head(loss=np.ones_like(loss)).predict(x)).all()
    assert head(x=np.zeros((50, 0), np.float32)).predict(np.zeros((3, 0))).shape == (3,)


def test_pairs() -> None:
    assert pair_loss([0.0, 5.0, 10.0], [1.0, 2.0, 3.0]) == 0.0
    assert pair_loss([0.0, 0.5], [1.0, 2.0]) == pytest.approx(0.5)
    assert pair_loss([], []) == 0.0


def test_training_lowers_the_pair_loss() -> None:
    x, loss = scene(1, 50, 8, bent=False)
    assert pair_loss(head().predict(x), loss) < 0.5 * pair_loss(np.zeros(50), loss)


@pytest.mark.parametrize(
    ("x", "loss"),
    [
        (np.full((12, 2), np.nan), np.ones(12)),
        (np.ones((12, 2)), np.full(12, np.nan)),
        (np.ones((12, 2)), np.ones(11)),
        (np.ones(12), np.ones(12)),
        (np.ones((0, 2)), np.ones(0)),
    ],
)
def test_bad_input_is_refused(x: npt.NDArray[Any], loss: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"NaN|fit"):
        fit(x, loss, np.random.default_rng(0))


# The loss of one image


def loss_of(detections: list[tuple[list[float], list[float]]], labels: list[tuple[list[float], int]]) -> float:
    probs = np.array([p for _, p in detections], np.float32).reshape(-1, 2)
    prediction = Prediction(
        width=100,
        height=100,
        boxes=np.array([box for box, _ in detections], np.float32).reshape(-1, 4),
        class_probs=probs,
        confidence=probs.max(axis=1, initial=0.0),
        embedding=np.zeros(3, np.float32),
    )
    boxes = np.array([box for box, _ in labels], np.float32).reshape(-1, 4)
    return image_loss(prediction, boxes, np.array([index for _, index in labels], np.int64))


HERE, THERE, HALF = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 5.0]


@pytest.mark.parametrize(
    ("detections", "labels", "expected"),
    [
        ([], [], 0.0),
        ([], [(HERE, 0), (THERE, 1)], 1.0),  # all missed
        ([(HERE, [0.3, 0.0])], [], 0.3),  # nothing is there
        ([(HERE, [1.0, 0.0])], [(HERE, 0)], 0.0),
        ([(HERE, [0.8, 0.0])], [(HERE, 0)], 0.2),
        ([(HALF, [1.0, 0.0])], [(HERE, 0)], 0.5),
        ([(HERE, [0.0, 0.9])], [(HERE, 0)], 1.9),  # the class is wrong: missed, and seen where it is not
        ([(HERE, [1.0, 0.0])], [(HERE, 0), (THERE, 0)], 0.5),
        ([(HERE, [1.0, 0.0]), (THERE, [0.4, 0.0])], [(HERE, 0)], 0.4),
    ],
)
def test_the_loss_of_an_image(
    detections: list[tuple[list[float], list[float]]], labels: list[tuple[list[float], int]], expected: float
) -> None:
    assert loss_of(detections, labels) == pytest.approx(expected, abs=1e-6)


# The strategy


def values(pool: Pool) -> npt.NDArray[Any]:
    return acquisition.get("learning_loss")(pool, np.random.default_rng(0))


def test_the_strategy_ranks_the_pool() -> None:
    pool = make_pool()
    truth = scene(3, 105, 16, bent=False)[1][45:]
    assert rank_correlation(values(pool), truth) > 0.6


def test_a_task_alone_gets_the_value_it_has_in_the_pool() -> None:
    pool = make_pool()
    alone = Pool(
        pool.task_ids[7:8],
        np.zeros(2, np.int64),
        pool.class_probs,
        {"embeddings": pool.columns["embeddings"][7:8]},
        labeled_embeddings=pool.labeled_embeddings,
        labeled_losses=pool.labeled_losses,
    )
    assert values(alone) == pytest.approx(values(pool)[7:8])


def test_too_few_images_with_a_loss() -> None:
    with pytest.raises(ModelError, match=rf"labeled_losses of {ENOUGH} .* there are 9"):
        values(make_pool(with_loss=9, without_loss=30))
    assert len(values(make_pool(with_loss=10))) == 60


def test_a_missing_need_is_named() -> None:
    pool = Pool(
        np.arange(2), np.zeros(3, np.int64), np.zeros((0, 2), np.float32), {"embeddings": np.ones((2, 3), np.float32)}
    )
    with pytest.raises(ModelError, match="labeled_"):
        values(pool)
    with pytest.raises(ModelError, match="labeled_losses"):
        acquisition.get("learning_loss").function(pool, np.random.default_rng(0))


@pytest.mark.parametrize("losses", [np.ones(3), np.array([1.0, np.inf])])
def test_losses_of_another_shape_are_refused(losses: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="labeled_losses"):
        Pool(
            np.arange(1),
            np.zeros(2, np.int64),
            np.zeros((0, 2), np.float32),
            labeled_embeddings=np.ones((2, 3), np.float32),
            labeled_losses=losses.astype(np.float32),
        )
