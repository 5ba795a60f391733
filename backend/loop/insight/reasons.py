"""Why a task comes next: reasons in words and numbers, from what the model says of its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend import acquisition
from backend.acquisition.pool import Pool
from backend.acquisition.uncertainty import entropy, with_nothing
from backend.model_versions import Metrics
from backend.sampling.late_places import STAND_IN
from backend.sampling.pins import Pins
from backend.types import FloatArray, Ranking

CLOSE = 0.5  # two outcomes are confused if the second has at least this share of the first's score
RARE_SHARE = 0.5  # a class is detected badly if its AP50 is below this share of the best class's
LEAST_TYPICAL, MOST_TYPICAL = 0.1, 0.75  # shares of the pool that are less typical
_GROUPS = 2  # of confused outcomes, and of badly detected classes, that are named


@dataclass(frozen=True, slots=True)
class Placing:
    """How a task got its place: its rank and value, and who or what put it there."""

    task_id: int
    value: float  # acquisition value of the strategy, higher = sooner
    higher_than: float  # share of the pool with a lower value
    explored: bool
    late: bool
    pinned: str  # "front", "back" or ""


def placings(order: Ranking, pins: Pins, task_ids: Sequence[int]) -> Iterator[Placing]:
    """Yield how each of these ranked tasks got its place, in their order."""
    row_of = {task_id: row for row, task_id in enumerate(order.task_ids.tolist())}
    values = np.sort(order.acquisition)
    for task_id in task_ids:
        row = row_of[task_id]
        value = float(order.acquisition[row])
        yield Placing(
            task_id,
            value,
            float(np.searchsorted(values, order.acquisition[row], side="left")) / max(len(values), 1),
            explored=bool(order.explored[row]),
            late=bool(order.late[row]) if order.late is not None else False,
            pinned="front" if task_id in pins.front else "back" if task_id in pins.back else "",
        )


def of_placing(placing: Placing, strategy: str) -> list[str]:
    """Return who or what put a task at its place."""
    if placing.pinned:
        return [f"pinned to the {placing.pinned}"]
    if placing.explored:
        return ["drawn by chance, to measure the model"]
    if placing.late:
        by = strategy if acquisition.get(strategy).alone else STAND_IN
        return [f"arrived late: placed by {by}"]
    return [f"{strategy} {placing.value:.3g}, higher than {placing.higher_than:.0%} of the pool"]


def of_boxes(pool: Pool, row: int, classes: Sequence[str], metrics: Metrics | None) -> list[str]:
    """Return what is uncertain or rare about the boxes of an image, or about its choices; the strongest first.

    `pool` has calibrated scores; `row` is the image's. `metrics` are those of the model, None if it was not measured.
    """
    probs = pool.class_probs[pool.offsets[row] : pool.offsets[row + 1]]
    if not len(probs):
        return ["the model sees nothing here"]
    nats = entropy(probs if pool.exclusive else with_nothing(probs)).tolist()
    noun = "choice" if pool.exclusive else "box"
    return [*_confused(probs, nats, classes, noun), *_badly_detected(probs, classes, metrics)]


def _confused(probs: FloatArray, nats: Sequence[float], classes: Sequence[str], noun: str) -> Iterator[str]:
    """Yield what the model cannot tell apart, with the highest entropy in nats: two classes, or a class and nothing."""
    groups: dict[str, list[float]] = defaultdict(list)
    for scores, uncertainty in zip(probs, nats, strict=True):
        ranked = np.argsort(-scores, kind="stable").tolist()
        best, nothing = scores[ranked[0]], 1 - scores[ranked[0]]
        if len(ranked) > 1 and scores[ranked[1]] >= CLOSE * best:
            first, other = sorted(classes[index] for index in ranked[:2])
            groups[f"between '{first}' and '{other}'"].append(uncertainty)
        elif noun == "box" and nothing >= CLOSE * best:
            groups[f"'{classes[ranked[0]]}' or nothing"].append(uncertainty)
    for between, uncertainties in sorted(groups.items(), key=lambda group: -sum(group[1]))[:_GROUPS]:
        count = f"{len(uncertainties)} {noun}{'' if len(uncertainties) == 1 else 'es' if noun == 'box' else 's'}"
        yield f"{count} {between} (entropy {max(uncertainties):.2f})"


def _badly_detected(probs: FloatArray, classes: Sequence[str], metrics: Metrics | None) -> Iterator[str]:
    """Yield the predicted classes that the model detects badly, or that no held-out image shows."""
    if metrics is None:
        return
    ap50: Mapping[str, float] = metrics.class_ap50
    best = max((value for value in ap50.values() if np.isfinite(value)), default=0.0)
    if best <= 0:
        return
    shown = dict.fromkeys(classes[index] for index in probs.argmax(axis=1).tolist())
    weak = sorted((ap50.get(name, np.nan), name) for name in shown if not ap50.get(name, np.nan) >= RARE_SHARE * best)
    for value, name in weak[:_GROUPS]:
        if np.isfinite(value):
            yield f"class '{name}' is detected badly (AP50 {value:.2f})"
        else:
            yield f"class '{name}' is rare: no held-out image shows it"


@dataclass(frozen=True, slots=True)
class Typicality:
    """How similar an image is to the images of the pool: the mean of its cosine similarities to a sample of them."""

    mean: FloatArray  # (D,) of the normalised embeddings of the sample
    similarities: FloatArray  # (k,) of the sample, sorted

    def share_below(self, embedding: FloatArray) -> float:
        """Return the share of the sample that is less typical than an image with this embedding (D,)."""
        similarity = float(_normalised(embedding[None])[0] @ self.mean)
        return float(np.searchsorted(self.similarities, similarity)) / max(len(self.similarities), 1)


def typicality(embeddings: FloatArray) -> Typicality | None:
    """Return the measure of a sample of the pool (k, D); None if there are too few images to compare."""
    if len(embeddings) < 10 or not embeddings.shape[1]:
        return None
    directions = _normalised(embeddings)
    mean = directions.mean(axis=0)
    return Typicality(mean, np.sort(directions @ mean))


def of_typicality(measure: Typicality | None, embedding: FloatArray) -> list[str]:
    """Return whether an image looks like the others of the pool, or unlike them."""
    if measure is None or embedding.shape != measure.mean.shape:
        return []
    share = measure.share_below(embedding)
    if share >= MOST_TYPICAL:
        return [f"typical of the pool: more like the others than {share:.0%} of the images"]
    if share <= LEAST_TYPICAL:
        return [f"unlike the pool: {1 - share:.0%} of the images are more like the others"]
    return []


def _normalised(embeddings: FloatArray) -> FloatArray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, 1e-12), dtype=np.float32)
