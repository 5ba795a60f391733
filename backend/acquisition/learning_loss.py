"""Learning loss: a small head that predicts the model's loss on an image, learned from labeled images.

Source: Yoo & Kweon, Learning Loss for Active Learning, CVPR 2019. The paper trains the head inside the detector. Here
it is trained afterwards, on frozen pooled features. So it needs out-of-fold losses, of a model that has not learned
from the image: the loss on a learned image says nothing about new images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.pool import Pool
from backend.acquisition.registry import Values, acquisition
from backend.errors import ModelError
from backend.geometry.coordinates import iou
from backend.types import FloatArray, IntArray, Prediction

Floats = npt.NDArray[np.float64]
ENOUGH = 10  # labeled images with a loss that a training needs
_HIDDEN = 32
_MARGIN = 1.0  # ξ
_STEPS = 300
_BATCH = 128  # images per step; all pairs of them are compared
_RATE = 0.01
_DECAY = 0.3  # there are few images and hundreds of features; without weight decay the head overfits


@dataclass(frozen=True, slots=True)
class LossHead:
    """One hidden layer of rectified units on standardised features; its output ranks images, but is no loss."""

    mean: Floats  # (D,)
    scale: Floats  # (D,)
    layers: tuple[Floats, ...]  # (D, H), (H,), (H,)

    def predict(self, embeddings: npt.NDArray[np.floating[Any]]) -> Values:
        """Return a value per image, higher = more loss expected: (n, D) -> (n,)."""
        return _outputs(self.layers, (embeddings - self.mean) / self.scale)[1]


def pair_loss(predicted: npt.ArrayLike, losses: npt.ArrayLike, margin: float = _MARGIN) -> float:
    """Return the mean over pairs with l_i ≠ l_j of max(0, −sign(l_i − l_j)(l̂_i − l̂_j) + ξ): (n,), (n,).

    >>> pair_loss([0., 2.], [1., 3.]), pair_loss([2., 0.], [1., 3.]), pair_loss([0., 2.], [1., 1.])
    (0.0, 3.0, 0.0)
    """
    sign, hinge = _pairs(np.asarray(predicted, dtype=np.float64), np.asarray(losses, dtype=np.float64), margin)
    return float(hinge[sign != 0].mean()) if sign.any() else 0.0


def image_loss(prediction: Prediction, boxes: FloatArray, classes: IntArray) -> float:
    """Return the loss of a model on one image, per label: missed labels and false detections; 0 is perfect.

    The labels are boxes (k, 4), xyxy in pixels, with classes (k,). A label costs 1 − the largest IoU·p of its class. A
    detection without a label of its class at IoU ≥ .5 costs its confidence. For training a `LossHead` the model must
    not have learned from the image.
    """
    overlap = iou(prediction.boxes, boxes)
    if not overlap.size:
        return 1.0 if len(boxes) else float(prediction.confidence.sum())
    quality = (overlap * prediction.class_probs[:, classes]).max(axis=0)
    same = prediction.class_probs.argmax(axis=1)[:, None] == classes
    false = ~((overlap >= 0.5) & same).any(axis=1)
    return float(((1.0 - quality).sum() + prediction.confidence[false].sum()) / len(boxes))


def fit(
    embeddings: npt.NDArray[np.floating[Any]], losses: npt.NDArray[np.floating[Any]], rng: np.random.Generator
) -> LossHead:
    """Train the head on l images by pairs: (l, D), (l,); the same generator gives the same head.

    Raises ValueError for shapes that do not fit, and for values that are not finite.
    """
    if embeddings.ndim != 2 or losses.shape != embeddings.shape[:1] or not len(losses):
        raise ValueError(f"losses {losses.shape} do not fit embeddings {embeddings.shape}")
    if not (np.isfinite(embeddings).all() and np.isfinite(losses).all()):
        raise ValueError("embeddings or losses hold NaN or infinity")
    x = embeddings.astype(np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale <= 1e-6 * (1.0 + np.abs(mean))] = 1.0  # a constant feature carries no information
    x = (x - mean) / scale
    width = x.shape[1]
    layers = (
        rng.normal(0, (2 / max(width, 1)) ** 0.5, (width, _HIDDEN)),
        np.zeros(_HIDDEN),
        rng.normal(0, 0.2, _HIDDEN),
    )
    return LossHead(mean, scale, _train(layers, x, losses.astype(np.float64), rng))


@acquisition(
    "learning_loss",
    asks="on which images will the model make large errors? it learns this from images with known errors",
    needs=frozenset({"embeddings", "labeled_embeddings", "labeled_losses"}),
    cost="training a small head, about a second; out-of-fold losses of the labeled images",
    paper="Yoo & Kweon, Learning Loss for Active Learning, CVPR 2019; here after the training, on frozen features",
    when="some hundred labeled images have an out-of-fold loss, and no other strategy finds the errors",
)
def image_learning_loss(pool: Pool, rng: np.random.Generator) -> Values:
    """Return the loss that a head predicts for each image after learning from the labeled images (n,), without a unit.

    Raises ModelError for a pool without embeddings, or with fewer than 10 labeled images.
    """
    embeddings, labeled, losses = pool.columns.get("embeddings"), pool.labeled_embeddings, pool.labeled_losses
    has_loss = np.zeros(0, dtype=np.bool_) if losses is None else ~np.isnan(losses)
    if embeddings is None or labeled is None or losses is None or has_loss.sum() < ENOUGH:
        raise ModelError(
            f"strategy 'learning_loss' needs labeled_losses of {ENOUGH} images or more from which the model has not "
            f"learned; there are {has_loss.sum()}",
            fix="label more images, or use another strategy",
        )
    return fit(labeled[has_loss], losses[has_loss], rng).predict(embeddings)


def _outputs(layers: tuple[Floats, ...], x: Floats) -> tuple[Floats, Floats]:
    """Return the hidden units and the values of standardised features: (n, D) -> (n, H), (n,)."""
    hidden = np.maximum(x @ layers[0] + layers[1], 0.0)
    return hidden, hidden @ layers[2]


def _pairs(predicted: Floats, losses: Floats, margin: float) -> tuple[Floats, Floats]:
    """Return sign(l_i − l_j) and the hinge of every pair: (n,), (n,) -> (n, n), (n, n)."""
    sign = np.sign(losses[:, None] - losses)
    return sign, np.maximum(0.0, margin - sign * (predicted[:, None] - predicted))


def _gradients(layers: tuple[Floats, ...], x: Floats, losses: Floats) -> tuple[Floats, ...]:
    """Return the gradient of `pair_loss` by each layer; each pair is counted in both orders."""
    hidden, predicted = _outputs(layers, x)
    sign, hinge = _pairs(predicted, losses, _MARGIN)
    by_output = -2.0 * (sign * (hinge > 0)).sum(axis=1) / max(np.count_nonzero(sign), 1)
    by_hidden = np.outer(by_output, layers[2]) * (hidden > 0)
    return x.T @ by_hidden, by_hidden.sum(axis=0), hidden.T @ by_output


def _train(layers: tuple[Floats, ...], x: Floats, losses: Floats, rng: np.random.Generator) -> tuple[Floats, ...]:
    """Return the layers after training with AdamW (Loshchilov & Hutter, 2019) and a rate that falls to 0."""
    first, second = ([np.zeros_like(layer) for layer in layers] for _ in range(2))
    for step in range(1, _STEPS + 1):
        rate = _RATE * (1.0 - (step - 1) / _STEPS)
        batch = rng.permutation(len(x))[:_BATCH]
        for index, slope in enumerate(_gradients(layers, x[batch], losses[batch])):
            first[index] = 0.9 * first[index] + 0.1 * slope
            second[index] = 0.999 * second[index] + 0.001 * slope**2
        moved = (
            (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
            for mean, square in zip(first, second, strict=True)
        )
        layers = tuple(layer - rate * (update + _DECAY * layer) for layer, update in zip(layers, moved, strict=True))
    return layers
